"""Score the reviews that a model version has not scored yet.

    spark-submit --properties-file spark-defaults.conf jobs/score.py --lake lake --model champion

Reads   silver.reviews, gold.scores, ops.models, the registered model
Writes  gold.scores
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import DataFrame

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.staging import staged, staged_parts
from pipelines.lake.tables import Commit, TableStore
from pipelines.model.manifest import manifest_sha256
from pipelines.score import (
    check_scores,
    in_slices,
    load_once,
    n_slices,
    n_tasks,
    score_rows,
    scorer,
    unscored,
)
from pipelines.tracking import model_files, model_table, registry
from pipelines.tracking.names import CHAMPION, MODEL_NAME
from pipelines.tracking.store import connect
from schemas import GOLD_SCORES, SILVER_REVIEWS


@dataclass(frozen=True)
class ScoreConfig:
    """Flags of this job."""

    model: str = flag("alias or version number of the registered model", CHAMPION)
    model_name: str = flag("registered model", MODEL_NAME)
    tasks: int = flag(
        "Spark tasks that score at a time, each with a model of its own; 0 = one a core", 0
    )
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if self.tasks < 0:
            raise ValueError(f"--tasks must be 0 or more, got {self.tasks}")


def main(argv: Sequence[str] | None = None) -> None:
    """Resolve the model once, verify it, score what is missing, add one row for each review."""
    config = cli.parse(ScoreConfig, argv, __doc__)
    store = TableStore(get_session("score", config.lake), config.lake)
    client = connect(config.lake)
    version = registry.resolve(client, config.model_name, config.model)
    name, number, silver_version = version.name, int(version.version), store.latest(SILVER_REVIEWS)
    run = ledger.start(
        "score", config, {SILVER_REVIEWS.name: silver_version, "model_version": number}
    )
    if ledger.already_done(store, run):
        return
    store.create(GOLD_SCORES)
    waiting = unscored(
        store.read(SILVER_REVIEWS, silver_version), store.read(GOLD_SCORES), name, number
    )
    n_waiting = waiting.count()
    if n_waiting == 0:  # also where a run was killed before it came to its row in the ledger
        cli.log.info("score: nothing to do, %s version %d has scored all reviews", name, number)
        ledger.finish(
            store, run, [Commit(GOLD_SCORES, store.version(GOLD_SCORES), 0)], {"in": 0, "scored": 0}
        )
        return
    record = model_table.record_of(store, version)
    files, key = record.files, manifest_sha256(record.files)
    directory = model_files.directory_for_workers(client, version, files, config.lake)
    score, now = (
        scorer(lambda: load_once(key, lambda: model_files.load_verified(directory, files))),
        datetime.now(UTC),
    )

    def rows_of(part: DataFrame) -> DataFrame:
        return score_rows(
            part.repartition(config.tasks or n_tasks(n_waiting, config.lake.is_local)), score,
            model_name=name, model_version=number, run_id=record.run_id, silver_version=silver_version, scored_at=now,
        )  # fmt: skip

    slices = n_slices(n_waiting) if config.lake.is_local else 1
    with (
        staged(store, in_slices(waiting, slices), "waiting") as parts,
        staged_parts(
            store, [rows_of(parts.where(f"slice = {i}")) for i in range(slices)], "scores"
        ) as scores,
    ):
        errors = scores.where("score_error IS NOT NULL").count()
        check_scores(n_waiting, scores.count(), errors)
        commit = store.merge(GOLD_SCORES, scores)
    ledger.finish(
        store,
        run,
        [commit],
        {"in": n_waiting, "scored": n_waiting - errors, "score_errors": errors},
    )


if __name__ == "__main__":
    program.run(main)
