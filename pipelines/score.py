"""Score reviews with a model: one output row per review, with a score or an error."""

import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import (
    BooleanType,
    DoubleType,
    IntegerType,
    StringType,
    StructField,
    StructType,
)

from pipelines import provenance
from pipelines.errors import IntegrityError
from pipelines.lake import ledger
from pipelines.lake.changes import changes_of, net_changes
from pipelines.lake.commits import Commit
from pipelines.lake.staging import staged, staged_parts
from pipelines.lake.tables import TableStore
from pipelines.model.predict import Predict, VerifiedModel, score_texts
from pipelines.provenance import same_code
from schemas import GOLD_SCORES, SILVER_REVIEWS

log = logging.getLogger("reviewlake")

SCORE = StructType(
    [
        StructField("probability", DoubleType()),
        StructField("prediction", IntegerType()),
        StructField("is_truncated", BooleanType()),
        StructField("score_error", StringType()),
    ]
)
SLICE_REVIEWS = 2_500
# On a cluster: about ten seconds per task, of which loading the model takes one.
TASK_REVIEWS = 1_000
MIN_JUDGED = 10  # fewer reviews may all be unreadable, though the model is fine

# Of this Python process: Spark reuses its workers from task to task.
_loaded: dict[str, Predict] = {}


def run(
    store: TableStore,
    config: Any,
    name: str,
    version: int,
    n_tasks: int,
    open_model: Callable[[], VerifiedModel],
) -> dict[str, int] | None:
    """Score the reviews that this version of the model has not scored; return rows by outcome.

    config      with the inputs it identifies the run
    n_tasks     0 = by the number of reviews, and the cores of this machine
    open_model  called if there is anything to score
    None if an identical run is done.
    """
    silver_version = store.latest(SILVER_REVIEWS)
    inputs = {SILVER_REVIEWS.name: silver_version, "model_version": version}
    own_run = ledger.start("score", config, inputs)
    if ledger.already_done(store, own_run):
        return None
    store.create(GOLD_SCORES)
    base = ledger.base_of(store, own_run, SILVER_REVIEWS)
    reviews, since = new_reviews(store, silver_version, base.since if base else None)
    waiting = unscored(reviews, store.read(GOLD_SCORES), name, version)
    with staged(store, waiting, "waiting") as rows:
        n_waiting = rows.count()
        if n_waiting == 0:  # or the last run was killed just before it wrote its row
            log.info("score: nothing to do, %s version %d has scored all reviews", name, version)
            commit, n_errors = Commit(GOLD_SCORES, store.version(GOLD_SCORES), 0), 0
        else:
            model = open_model()
            load = partial(load_once, model.manifest_sha256, model.load)
            to_scores = partial(
                score_rows,
                score=scorer(load),
                model_name=name,
                model_version=version,
                run_id=model.run_id,
                silver_version=silver_version,
                scored_at=datetime.now(UTC),
            )
            commit, n_errors = _scored(store, rows, n_waiting, n_tasks, to_scores)
            provenance.log_code("score")
    counts = {"in": n_waiting, "scored": n_waiting - n_errors}
    if n_waiting:
        counts["score_errors"] = n_errors
    ledger.finish(store, own_run, [commit], counts, input_since=since)
    return counts


def _scored(
    store: TableStore,
    waiting: DataFrame,
    n_waiting: int,
    tasks: int,
    to_scores: Callable[[DataFrame], DataFrame],
) -> tuple[Commit, int]:
    """Score the staged reviews slice by slice, and add their rows in one commit."""
    is_local = store.config.is_local
    slices = in_slices(waiting, n_slices(n_waiting) if is_local else 1)
    n = tasks or n_tasks(n_waiting, is_local)
    parts = [to_scores(part.repartition(n)) for part in slices]
    with staged_parts(store, parts, "scores") as scores:
        n_errors = scores.where("score_error IS NOT NULL").count()
        check_scores(n_waiting, scores.count(), n_errors)
        return store.merge(GOLD_SCORES, scores), n_errors


def load_once(key: str, loader: Callable[[], Predict]) -> Predict:
    """Return the model of `key`, loaded at its first use in this process; drop the previous one."""
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = loader()
    return _loaded[key]


def scorer(load: Callable[[], Predict]) -> Callable[[Column], Column]:
    """Return a column function: text -> struct of the fields of SCORE.

    `load` is called once per task. With `load_once` the model is loaded once per process.
    """

    @same_code
    def score(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        predict = load()
        for texts in batches:
            yield score_texts(texts, predict)

    # Nondeterministic: else Spark may move the call, or repeat it for each field that is read.
    # The stubs of pandas_udf do not know UDFs with type hints.
    udf = pandas_udf(score, SCORE)  # type: ignore[call-overload]
    scored: Callable[[Column], Column] = udf.asNondeterministic()
    return scored


def new_reviews(
    store: TableStore, version: int, since: int | None
) -> tuple[DataFrame, dict[str, int]]:
    """Return the reviews that silver has added or changed after the version `since`; None: all.

    With them the versions since which silver was read, for the ledger.
    """
    silver = store.read(SILVER_REVIEWS, version)
    changes = None if since is None else changes_of(store, SILVER_REVIEWS, since, version)
    if since is None or changes is None:
        return silver, {}
    added = net_changes(changes, silver.columns).where("change > 0").drop("change")
    return added, {SILVER_REVIEWS.name: since}


def unscored(
    reviews: DataFrame, scores: DataFrame, model_name: str, model_version: int
) -> DataFrame:
    """Return the reviews that have no row of this model version: no score, no score_error."""
    is_of_model = F.col("model_name") == model_name
    is_of_version = F.col("model_version") == model_version
    scored = scores.where(is_of_model & is_of_version).select("review_id")
    return reviews.join(scored, "review_id", "left_anti")


def n_slices(n_reviews: int) -> int:
    """Return the number of parts of the work.

    Each part fills all cores, and progress shows every half minute.
    """
    return max(1, round(n_reviews / SLICE_REVIEWS))


def n_tasks(n_reviews: int, is_local: bool) -> int:
    """Return the number of Spark tasks: one per core of this machine.

    The cores of a cluster are not known: there it depends on the number of reviews.
    """
    return (os.cpu_count() or 1) if is_local else max(1, round(n_reviews / TASK_REVIEWS))


def in_slices(reviews: DataFrame, n: int) -> list[DataFrame]:
    """Return the reviews in `n` parts, by a hash of the review id."""
    number = F.pmod(F.xxhash64("review_id"), F.lit(n))
    return [reviews.where(number == part) for part in range(n)] if n > 1 else [reviews]


def check_scores(n_in: int, n_out: int, n_errors: int) -> None:
    """Raise IntegrityError unless there is one row per review and at least half have a score.

    If the model fails on most texts, the model is broken, not the texts.
    """
    if n_in != n_out:
        raise IntegrityError(
            f"gold.scores: expected a row for each of {n_in:,} reviews, found {n_out:,}. "
            "Nothing was written."
        )
    if n_in >= MIN_JUDGED and n_errors > n_in / 2:
        raise IntegrityError(
            "gold.scores: expected scores, found a score_error in "
            f"{n_errors:,} of {n_in:,} rows: the model fails, "
            "not the texts. Nothing was written. Promote another version, or roll back."
        )


def score_rows(
    reviews: DataFrame,
    score: Callable[[Column], Column],
    *,
    model_name: str,
    model_version: int,
    run_id: str,
    silver_version: int,
    scored_at: datetime,
) -> DataFrame:
    """Return one row of gold.scores for each review."""
    # Copied, since silver's row may change or be deleted later: a score must keep its origins.
    scored = reviews.select("review_id", "source", "origins", score(F.col("text")).alias("score"))
    return scored.select(
        "review_id",
        F.lit(model_name).alias("model_name"),
        F.lit(model_version).cast("int").alias("model_version"),
        *[F.col(f"score.{name}").alias(name) for name in SCORE.names],
        "source",
        "origins",
        F.lit(run_id).alias("run_id"),
        F.lit(silver_version).cast("long").alias("silver_version"),
        F.lit(scored_at).alias("scored_at"),
    ).select(*GOLD_SCORES.column_names)
