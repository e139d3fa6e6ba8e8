"""Train a past run again, from the table version that it read, and say whether the same came of it.

    python jobs/reproduce.py 4be1f0c2 --lake lake
    python jobs/reproduce.py models:/review_classifier@champion --lake lake --data-only

Reads   gold.reviews at the run's version, ops.models, the run in MLflow
Writes  an MLflow run linked to the first, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines import cli, program, reproduce
from pipelines.cli import argument, flag, group
from pipelines.errors import IntegrityError
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from pipelines.model import backbone
from pipelines.tracking import model_table, registry, runs
from pipelines.tracking.store import connect
from pipelines.train.environment import environment
from pipelines.train.evaluation import EPOCH_METRICS
from pipelines.train.settings import TrainSettings
from schemas import GOLD_REVIEWS


@dataclass(frozen=True)
class ReproduceConfig:
    """Flags of this job."""

    run: str = argument("run id, or models:/name@alias or models:/name/version")
    data_only: bool = flag("only read the data again and compare its hash: seconds", False)
    tolerance: float = flag(
        "largest difference of a metric, and mean difference of a probability, still equal", 0.02
    )
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"--tolerance must be 0 or more and below 1, got {self.tolerance}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the same version, train with the same settings and threads, compare; exit 3 where it is not the same."""
    config = cli.parse(ReproduceConfig, argv, __doc__)
    store = TableStore(get_session("reproduce", config.lake), config.lake)
    client = connect(config.lake)
    model = model_table.record_of_run(store, registry.run_id_of(client, config.run))
    first = runs.past_run(client, model.run_id, EPOCH_METRICS)
    settings = cli.from_params(TrainSettings, {**reproduce.LATER, **first.params})
    settings = replace(settings, threads=int(first.tags["torch.threads"]))
    directory = None if config.data_only else backbone.find(settings.backbone)
    run = ledger.start(
        "reproduce", replace(config, run=model.run_id), {GOLD_REVIEWS.name: model.gold_version}
    )
    now = {"backbone.sha256": first.tags["backbone.sha256"]} | environment(settings.threads)
    now |= {"backbone.sha256": backbone.fingerprint(directory)} if directory else {}
    tags = now | {"reproduces": model.run_id, "mlflow.parentRunId": model.run_id}
    differing = reproduce.surroundings_that_differ(first.tags, now)
    with runs.tracked(client, config.lake, first.experiment, cli.as_params(config), tags):
        try:
            found = reproduce.trained_again(store, client, model, first, settings, directory)
        except IntegrityError as error:
            reproduce.record_verdict(store, run, reproduce.DIFFERENT, [f"data: {error}"], None)
            raise
        verdict = (
            reproduce.verdict_of(found, config.tolerance) if found else reproduce.DATA_IDENTICAL
        )
        reproduce.record_verdict(store, run, verdict, differing, found)
    for line in reproduce.report(model, first, verdict, found, differing):
        print(line)
    if verdict == reproduce.DIFFERENT:
        cause = "; ".join(differing) or reproduce.NOTHING_DIFFERS
        raise IntegrityError(f"run {model.run_id}: {verdict}: {found}. Differs: {cause}")


if __name__ == "__main__":
    program.run(main)
