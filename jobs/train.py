"""Fine-tune an encoder on one version of gold.reviews and register it as the challenger.

    spark-submit --properties-file spark-defaults.conf jobs/train.py --lake lake --gold-version -1
    spark-submit --properties-file spark-defaults.conf jobs/train.py --lake lake --preset best

Reads   gold.reviews at one version, ops.runs
Writes  an MLflow run and model version, ops.models
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.snapshot import snapshot_of
from pipelines.lake.tables import TableStore
from pipelines.model import backbone
from pipelines.tracking import model_table, registry, runs
from pipelines.tracking.names import MODEL_NAME
from pipelines.tracking.store import connect
from pipelines.train.environment import environment
from pipelines.train.mlflow_log import TrainingLog
from pipelines.train.settings import PRESETS, TrainSettings
from pipelines.train.training import train_model
from schemas import GOLD_REVIEWS


@dataclass(frozen=True)
class TrainConfig:
    """Flags of this job."""

    gold_version: int = flag(
        "Delta version of gold.reviews to train on; -1 = latest, resolved and logged", -1
    )
    preset: str = flag(
        "best: more tokens of each review, more time; seed: the settings of the project this one grew from",
        "default", ("default", *PRESETS),
    )  # fmt: skip
    model_name: str = flag("registered model", MODEL_NAME)
    experiment: str = flag("MLflow experiment", MODEL_NAME)
    settings: TrainSettings = group(TrainSettings)
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.model_name):
            raise ValueError(
                f"--model-name must be letters, digits, _ . and -, got {self.model_name!r}"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Train on exactly the version that is logged."""
    config = cli.parse(TrainConfig, argv, __doc__, PRESETS)
    store = TableStore(get_session("train", config.lake), config.lake)
    version = store.latest(GOLD_REVIEWS) if config.gold_version == -1 else config.gold_version
    settings, name = config.settings, config.model_name
    directory = backbone.find(settings.backbone)
    weights = backbone.fingerprint(directory)
    run = ledger.start("train", config, {GOLD_REVIEWS.name: version, "backbone": weights})
    if ledger.already_done(store, run):
        return
    client = connect(config.lake)
    if found := registry.adopt_interrupted(
        client, name, run.key, {model.key for model in model_table.model_records(store)}
    ):
        model_table.record_model(store, run, *found, {})
        return
    with (
        snapshot_of(store, version) as (snapshot, content_hash),
        tempfile.TemporaryDirectory() as scratch,
    ):
        tags = environment(settings.threads) | store.data_tags(GOLD_REVIEWS, version, content_hash)
        tags |= {
            "backbone": settings.backbone,
            "backbone.sha256": weights,
            "seed": str(settings.seed),
        }
        tags |= {registry.RUN_KEY: run.key}
        with runs.tracked(
            client, config.lake, config.experiment, cli.as_params(config), tags
        ) as run_id:
            runs.log_dataset(GOLD_REVIEWS.name, store.location(GOLD_REVIEWS), version, content_hash)
            steps = TrainingLog(client, run_id)
            learned = train_model(snapshot, directory, settings, steps.step, steps.epoch)
            card = steps.test(name, learned, tags)
            learned.save(Path(scratch) / "model")
            registered = registry.register(client, name, Path(scratch) / "model", tags, card)
    model_table.record_model(store, run, registered, content_hash, learned.n_rows)


if __name__ == "__main__":
    program.run(main)
