"""Scores from a model: one row out for every row in, whatever the row holds."""

import os
from collections.abc import Callable, Iterator
from datetime import datetime

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

from pipelines.errors import IntegrityError
from pipelines.model.predict import Predict, score_texts
from schemas import GOLD_SCORES

SCORE = StructType(
    [
        StructField("probability", DoubleType()),
        StructField("prediction", IntegerType()),
        StructField("is_truncated", BooleanType()),
        StructField("score_error", StringType()),
    ]
)
SLICE_REVIEWS = 2_500
TASK_REVIEWS = 1_000  # on a cluster: a task of some ten seconds, which loads the model in one
LEAST_JUDGED = 10  # fewer reviews than these may well all be poisonous

# Of this Python process: Spark reuses its workers from task to task.
_loaded: dict[str, Predict] = {}


def load_once(key: str, loader: Callable[[], Predict]) -> Predict:
    """The model of `key`, loaded at its first use in this process; the model before it is let go."""
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = loader()
    return _loaded[key]


def scorer(load: Callable[[], Predict]) -> Callable[[Column], Column]:
    """A column function: text -> struct of probability, prediction, is_truncated, score_error.

    `load` is called once a task; give it `load_once`, so that the model is loaded once a process.
    """

    def score(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        predict = load()
        for texts in batches:
            yield score_texts(texts, predict)

    # Nondeterministic: Spark may otherwise move the call, or make it again for each field that is read.
    # The stubs of pandas_udf do not know UDFs with type hints.
    udf = pandas_udf(score, SCORE)  # type: ignore[call-overload]
    scored: Callable[[Column], Column] = udf.asNondeterministic()
    return scored


def unscored(
    reviews: DataFrame, scores: DataFrame, model_name: str, model_version: int
) -> DataFrame:
    """The reviews that have no row of this model version yet, neither a score nor a score_error."""
    is_of_model = F.col("model_name") == model_name
    is_of_version = F.col("model_version") == model_version
    scored = scores.where(is_of_model & is_of_version).select("review_id")
    return reviews.join(scored, "review_id", "left_anti")


def n_slices(n_reviews: int) -> int:
    """Into how many parts to split the work, so that progress shows every half minute and a part fills all cores."""
    return max(1, round(n_reviews / SLICE_REVIEWS))


def n_tasks(n_reviews: int, is_local: bool) -> int:
    """Into how many tasks: one a core of this machine; on a cluster, whose cores are not known, by the work."""
    return (os.cpu_count() or 1) if is_local else max(1, round(n_reviews / TASK_REVIEWS))


def in_slices(reviews: DataFrame, n: int) -> DataFrame:
    """The reviews with the number of their slice, 0..n-1, by their id."""
    return reviews.withColumn("slice", F.pmod(F.xxhash64("review_id"), F.lit(n)))


def check_scores(n_in: int, n_out: int, n_errors: int) -> None:
    """One row out for every row in, and most of them scores: a model that fails on all is broken, not its texts."""
    if n_in != n_out:
        raise IntegrityError(
            f"gold.scores: expected a row for each of {n_in:,} reviews, found {n_out:,}. Nothing was written."
        )
    if n_in >= LEAST_JUDGED and n_errors > n_in / 2:
        raise IntegrityError(
            f"gold.scores: expected scores, found a score_error in {n_errors:,} of {n_in:,} rows: the model fails, "
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
    """Reviews in, rows of gold.scores out, one for one."""
    # Origins as of now: silver's row may gain some later, or go, and the score must still name its bytes.
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
