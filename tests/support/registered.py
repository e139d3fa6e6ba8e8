"""A tiny untrained classifier, registered in a real MLflow store and in ops.models."""

from collections.abc import Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from pipelines.lake.tables import TableStore
from pipelines.model import classifier
from pipelines.tracking import registry, runs
from pipelines.tracking.model_table import model_row
from pipelines.train.encoder import load_for_training
from schemas import OPS_MODELS
from tests.support import tiny_encoder

NAME = "review_classifier"


def register_tiny(
    store: TableStore,
    client: MlflowClient,
    directory: Path,
    texts: Sequence[str],
    seed: int = 0,
    gold_version: int = 0,
    content_hash: str = "0" * 32,
) -> registry.Registered:
    """Register a tiny classifier for the words of `texts`; each seed gives a different model."""
    encoder = tiny_encoder.build(directory / f"encoder-{seed}", texts)
    model, tokenizer = load_for_training(encoder, seed)
    saved = directory / str(seed) / "model"
    classifier.save(saved, model, tokenizer, classifier.Policy(max_tokens=16))
    with runs.tracked(client, store.config, "tests", {}, {}):
        registered = registry.register(
            client, NAME, saved, {"delta.version": str(gold_version)}, "A card."
        )
    store.merge(OPS_MODELS, model_row(store, registered, gold_version, content_hash))
    return registered
