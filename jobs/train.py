"""Train a model on one version of gold.reviews and register it as the challenger.

    spark-submit --properties-file spark-defaults.conf jobs/train.py --lake lake --gold-version -1
    spark-submit --properties-file spark-defaults.conf jobs/train.py --lake lake --preset best

Reads   gold.reviews at one version, ops.runs
Writes  an MLflow run and model version, its alias challenger, ops.models, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, flag_rules, program
from pipelines.cli import flag, group
from pipelines.flag_rules import NAME, between
from pipelines.lake.config import LakeConfig
from pipelines.tracking.names import MODEL_NAME
from pipelines.train.settings import PRESETS, TrainSettings
from schemas import GOLD_REVIEWS


@dataclass(frozen=True)
class TrainConfig:
    """Flags of this job."""

    gold_version: int = flag(
        "Delta version of gold.reviews to train on; -1 = latest",
        -1,
        must_be=between(-1),
    )
    preset: str = flag(
        "best: more tokens, one more trained layer, slower; seed: the settings of the notebook "
        "that this project started from",
        "default",
        ("default", *PRESETS),
    )
    model_name: str = flag("registered model", MODEL_NAME, must_be=flag_rules.MODEL_NAME)
    experiment: str = flag("MLflow experiment", MODEL_NAME, must_be=NAME)
    settings: TrainSettings = group(TrainSettings)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Train on exactly the version that is logged."""
    config = cli.parse(TrainConfig, argv, __doc__, PRESETS)
    # Imported after the flags: --help needs no Spark, and a finished run needs no torch.
    from pipelines.lake import ledger
    from pipelines.lake.tables import open_lake
    from pipelines.model import backbone

    store = open_lake("train", config.lake)
    latest = store.latest(GOLD_REVIEWS)
    version = latest if config.gold_version == -1 else config.gold_version
    directory = backbone.find(config.settings.backbone)
    backbone_sha256 = backbone.fingerprint(directory)
    inputs: dict[str, int | str] = {GOLD_REVIEWS.name: version, "backbone": backbone_sha256}
    run = ledger.start("train", config, inputs)
    if ledger.already_done(store, run):
        return

    import tempfile
    from pathlib import Path

    from pipelines.lake.snapshot import data_tags, snapshot_of
    from pipelines.tracking import model_table, registry, runs
    from pipelines.tracking.store import connect
    from pipelines.train.environment import environment
    from pipelines.train.mlflow_log import TrainingLog
    from pipelines.train.training import train_model

    settings, name = config.settings, config.model_name
    client = connect(config.lake)
    recorded = {model.key for model in model_table.model_records(store)}
    if interrupted := registry.adopt_interrupted(client, name, run.key, recorded):
        model_table.record_model(store, run, *interrupted, {})
        return
    tags = environment(settings)
    with snapshot_of(store, version) as (snapshot, content_hash):
        tags |= data_tags(store, GOLD_REVIEWS, version, content_hash)
        tags |= {
            "backbone": settings.backbone,
            "backbone.sha256": backbone_sha256,
            "seed": str(settings.seed),
            registry.RUN_KEY: run.key,
        }
        params = cli.as_params(config)
        with (
            tempfile.TemporaryDirectory() as scratch,
            runs.tracked(client, config.lake, config.experiment, params, tags) as run_id,
        ):
            location = config.lake.location(GOLD_REVIEWS)
            runs.log_dataset(GOLD_REVIEWS.name, location, version, content_hash)
            training_log = TrainingLog(client, run_id)
            trained = train_model(
                snapshot, directory, settings, training_log.step, training_log.epoch
            )
            card = training_log.test(name, trained, tags)
            files = Path(scratch) / "model"
            trained.save(files)
            registered = registry.register(client, name, files, tags, card)
    model_table.record_model(store, run, registered, content_hash, trained.n_rows)


if __name__ == "__main__":
    program.run(main)
