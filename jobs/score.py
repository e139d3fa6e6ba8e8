"""Score the reviews that a model version has not scored yet.

    spark-submit --properties-file spark-defaults.conf jobs/score.py --lake lake --model champion

Reads   silver.reviews, gold.scores, ops.models, the registered model
Writes  gold.scores, ops.runs
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, flag_rules, program, provenance
from pipelines.cli import flag, group
from pipelines.flag_rules import MODEL_VERSION, between
from pipelines.lake.config import LakeConfig
from pipelines.tracking.names import CHAMPION, MODEL_NAME
from schemas import GOLD_SCORES, OPS_MODELS, OPS_RUNS, SILVER_REVIEWS

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class ScoreConfig:
    """Flags of this job."""

    model: str = flag(
        "alias or version number of the registered model",
        CHAMPION,
        must_be=MODEL_VERSION,
    )
    model_name: str = flag("registered model", MODEL_NAME, must_be=flag_rules.MODEL_NAME)
    tasks: int = flag(
        "parallel Spark tasks, each with its own copy of the model; 0 = one per core",
        0,
        must_be=between(0, 10_000),
    )
    full: bool = flag("look for unscored reviews among all reviews", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Resolve the model once, verify it, score the unscored reviews, add one row per review."""
    config = cli.parse(ScoreConfig, argv, __doc__)
    # Imported after the flags: --help needs none of it, and a finished run needs no MLflow.
    from pipelines.lake import ledger
    from pipelines.lake.commits import Commit
    from pipelines.lake.tables import open_lake
    from pipelines.tracking import aliases

    name = config.model_name
    store = open_lake("score", config.lake, (SILVER_REVIEWS, GOLD_SCORES, OPS_MODELS, OPS_RUNS))
    version_number = aliases.version_number(config.lake, name, config.model)
    silver_version = store.latest(SILVER_REVIEWS)
    inputs = {SILVER_REVIEWS.name: silver_version, "model_version": version_number}
    run = ledger.start("score", config, inputs)
    if ledger.already_done(store, run):
        return

    from datetime import UTC, datetime
    from functools import partial

    from pipelines import score
    from pipelines.lake.staging import staged, staged_parts
    from pipelines.model.manifest import manifest_sha256
    from pipelines.tracking import model_files, model_table, registry
    from pipelines.tracking.store import connect

    client = connect(config.lake)
    model_version = registry.resolve(client, name, str(version_number))
    store.create(GOLD_SCORES)
    base = ledger.base_of(store, run, SILVER_REVIEWS)
    reviews, since = score.new_reviews(store, silver_version, base.since if base else None)
    waiting = score.unscored(reviews, store.read(GOLD_SCORES), name, version_number)
    n_waiting = waiting.count()
    if n_waiting == 0:  # or the last run was killed just before it wrote its row
        log.info("score: nothing to do, %s version %d has scored all reviews", name, version_number)
        unchanged = Commit(GOLD_SCORES, store.version(GOLD_SCORES), 0)
        rows = {"in": 0, "scored": 0}
        ledger.finish(store, run, [unchanged], rows, input_since=since)
        return
    record = model_table.record_of(store, model_version)
    directory = model_files.directory_for_workers(client, model_version, record.files, config.lake)
    load_model = partial(model_files.load, directory, record.files)
    load_once = partial(score.load_once, manifest_sha256(record.files), load_model)
    to_scores = partial(
        score.score_rows,
        score=score.scorer(load_once),
        model_name=name,
        model_version=version_number,
        run_id=record.run_id,
        silver_version=silver_version,
        scored_at=datetime.now(UTC),
    )
    n_slices = score.n_slices(n_waiting) if config.lake.is_local else 1
    n_tasks = config.tasks or score.n_tasks(n_waiting, config.lake.is_local)
    with staged(store, score.in_slices(waiting, n_slices), "waiting") as sliced:
        slices = [sliced.where(f"slice = {number}") for number in range(n_slices)]
        parts = [to_scores(part.repartition(n_tasks)) for part in slices]
        with staged_parts(store, parts, "scores") as scores:
            n_errors = scores.where("score_error IS NOT NULL").count()
            score.check_scores(n_waiting, scores.count(), n_errors)
            commit = store.merge(GOLD_SCORES, scores)
    provenance.log_code("score")
    counts = {"in": n_waiting, "scored": n_waiting - n_errors, "score_errors": n_errors}
    ledger.finish(store, run, [commit], counts, input_since=since)


if __name__ == "__main__":
    program.run(main)
