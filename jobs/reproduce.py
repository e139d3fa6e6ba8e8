"""Train a past run again on its own table version; report whether the result is identical.

    python jobs/reproduce.py 044724708a3d45a797a9a231829e513f --lake lake
    python jobs/reproduce.py models:/review_classifier@champion --lake lake --data-only

Reads   gold.reviews at the run's version, ops.models, the run in MLflow
Writes  an MLflow run nested below the first one, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines import cli, program
from pipelines.cli import argument, flag, group
from pipelines.errors import IntegrityError
from pipelines.flag_rules import SHARE, matching
from pipelines.lake.config import LakeConfig
from pipelines.train.settings import DEVICES
from schemas import GOLD_REVIEWS

RUN = matching(
    r"[0-9A-Za-z_-]{1,64}|models:/[\w.-]{1,250}(@[\w-]{1,250}|/[0-9]{1,9})",
    "a run id, models:/name@alias or models:/name/version",
)


@dataclass(frozen=True)
class ReproduceConfig:
    """Flags of this job."""

    run: str = argument("run id, or models:/name@alias or models:/name/version", must_be=RUN)
    data_only: bool = flag("only read the data again and compare its hash: takes seconds", False)
    tolerance: float = flag(
        "largest difference of a metric, or of the mean probability, that counts as equal",
        0.02,
        must_be=SHARE,
    )
    device: str = flag(
        "recorded = CPU or GPU, as in the run; else as in jobs/train.py",
        "recorded",
        ("recorded", *DEVICES),
    )
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Train on the same version with the same settings and threads; exit 3 if it differs."""
    config = cli.parse(ReproduceConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark, MLflow and torch.
    from pipelines import reproduce
    from pipelines.lake import ledger
    from pipelines.lake.tables import open_lake
    from pipelines.model import backbone
    from pipelines.tracking import model_table, registry, runs
    from pipelines.tracking.store import connect
    from pipelines.train.environment import environment
    from pipelines.train.evaluation import EPOCH_METRICS

    store = open_lake("reproduce", config.lake)
    client = connect(config.lake)
    model = model_table.record_of_run(store, registry.run_id_of(client, config.run))
    first = runs.past_run(client, model.run_id, EPOCH_METRICS)
    # Comparing the data needs no GPU.
    settings = reproduce.settings_of(first, "auto" if config.data_only else config.device)
    directory = None if config.data_only else backbone.find(settings.backbone)
    inputs = {GOLD_REVIEWS.name: model.gold_version}
    run = ledger.start("reproduce", replace(config, run=model.run_id), inputs)
    current_tags = environment(settings)
    current_tags["backbone.sha256"] = first.tags["backbone.sha256"]
    if directory:
        current_tags["backbone.sha256"] = backbone.fingerprint(directory)
    differing = reproduce.surroundings_that_differ(first.tags, current_tags)
    links = {"reproduces": model.run_id, "mlflow.parentRunId": model.run_id}
    tags, params = current_tags | links, cli.as_params(config)
    with runs.tracked(client, config.lake, first.experiment, params, tags):
        try:
            comparison = reproduce.trained_again(store, client, model, first, settings, directory)
        except IntegrityError as error:
            fault = [f"data: {error}"]
            reproduce.record_verdict(store, run, reproduce.DIFFERENT, fault, None)
            raise
        verdict = reproduce.DATA_IDENTICAL
        if comparison:
            verdict = reproduce.verdict_of(comparison, config.tolerance)
        reproduce.record_verdict(store, run, verdict, differing, comparison)
    program.show(*reproduce.report(model, first, verdict, comparison, differing))
    if verdict == reproduce.DIFFERENT:
        cause = "; ".join(differing) or reproduce.NOTHING_DIFFERS
        raise IntegrityError(f"run {model.run_id}: {verdict}: {comparison}. Differs: {cause}")


if __name__ == "__main__":
    program.run(main)
