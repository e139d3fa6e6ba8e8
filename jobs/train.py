"""Fine-tune an encoder on one version of gold.reviews and register it as the challenger.

    spark-submit --properties-file spark-defaults.conf jobs/train.py --lake lake --gold-version -1
    spark-submit --properties-file spark-defaults.conf jobs/train.py --lake lake --preset seed

Reads   gold.reviews at one version, ops.runs
Writes  an MLflow run and model version, ops.models
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import backbone, classifier, cli, ledger, registry
from pipelines.cli import flag, group
from pipelines.provenance import environment
from pipelines.session import LakeConfig, get_session
from pipelines.snapshot import SPLITS, labels_of, rows_of, snapshot_of, tokenise_rows
from pipelines.tables import TableStore
from pipelines.train import SEED_PRESET, TrainSettings, fit, predicted, require_rows
from pipelines.training_log import TrainingLog, model_row, require_added
from schemas import GOLD_REVIEWS, OPS_MODELS


@dataclass(frozen=True)
class TrainConfig:
    """Flags of this job."""

    gold_version: int = flag("Delta version of gold.reviews to train on; -1 = latest, resolved and logged", -1)
    preset: str = flag("seed: the settings of the project this one grew from", "default", ("default", "seed"))
    model_name: str = flag("registered model", "review_classifier")
    experiment: str = flag("MLflow experiment", "review_classifier")
    settings: TrainSettings = group(TrainSettings)
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.model_name):
            raise ValueError(f"--model-name must be letters, digits, _ . and -, got {self.model_name!r}")


def main(argv: Sequence[str] | None = None) -> None:
    """Train on exactly the version that is logged."""
    config = cli.parse(TrainConfig, argv, __doc__, {"seed": SEED_PRESET})
    store = TableStore(get_session("train", config.lake), config.lake)
    version = store.latest(GOLD_REVIEWS) if config.gold_version == -1 else config.gold_version
    settings, name = config.settings, config.model_name
    directory = backbone.find(settings.backbone)
    weights = backbone.fingerprint(directory)
    run = ledger.start("train", config, {GOLD_REVIEWS.name: version, "backbone": weights})
    if ledger.is_done(store, run):
        return
    client = registry.connect(config.lake)
    with snapshot_of(store, version) as (snapshot, content_hash), tempfile.TemporaryDirectory() as scratch:
        model, tokenizer = backbone.load_for_training(directory, settings.seed, settings.dropout, settings.max_tokens)
        rows = {split: rows_of(snapshot, split) for split in SPLITS}
        labels = {split: labels_of(rows[split]) for split in SPLITS}
        tokens = {split: tokenise_rows(rows[split], tokenizer, settings.policy) for split in SPLITS}
        require_rows(tokens, labels)
        tags = environment(settings.threads) | store.data_tags(GOLD_REVIEWS, version, content_hash)
        tags |= {"backbone": settings.backbone, "backbone.sha256": weights, "seed": str(settings.seed)}
        with registry.training_run(client, config.lake, config.experiment, cli.as_params(config), tags) as run_id:
            registry.log_dataset(GOLD_REVIEWS.name, store.location(GOLD_REVIEWS), version, content_hash)
            record = TrainingLog(client, run_id)
            learned = tokens["train"], labels["train"], tokens["validation"], labels["validation"]
            fitted = fit(model, *learned, settings, record.step, record.epoch)
            policy = record.calibrated(settings.policy, fitted, labels["validation"])
            logits = predicted(model, tokens["test"], settings, "test")
            card = record.test(name, fitted, rows["test"], labels["test"], logits, policy, tags)
            classifier.save(Path(scratch) / "model", model, tokenizer, policy)
            registered = registry.register(client, name, Path(scratch) / "model", tags, card)
    commit = require_added(store.merge(OPS_MODELS, model_row(store, registered, version, content_hash)), registered)
    counts = {split: len(labels[split]) for split in SPLITS} | {"model_version": registered.version}
    ledger.finish(store, run, [commit], counts, content_hash)


if __name__ == "__main__":
    cli.run(main)
