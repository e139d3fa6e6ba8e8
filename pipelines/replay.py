"""The doing of a reproduction: the version read again, trained on again, and the verdict noted."""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from pipelines import reproduce
from pipelines.lake import ledger
from pipelines.lake.snapshot import snapshot_of
from pipelines.lake.tables import TableStore
from pipelines.tracking import runs
from pipelines.tracking.model_table import ModelRecord
from pipelines.train.loop import TrainSettings
from pipelines.train.training import learn


def trained_again(
    store: TableStore,
    client: MlflowClient,
    model: ModelRecord,
    first: runs.PastRun,
    settings: TrainSettings,
    backbone: Path | None,
) -> reproduce.Comparison | None:
    """Read the version again and train the backbone on it; None where only the data is asked for, by no backbone.

    Raises IntegrityError where the data are not those that the run read.
    """
    with snapshot_of(store, model.gold_version) as (snapshot, content_hash):
        reproduce.require_same_data(model, content_hash)
        if backbone is None:
            return None
        predictions = runs.predictions_of(client, model.run_id)
        learned = learn(snapshot, backbone, settings)
    again = reproduce.evidence_of(learned, weights_sha256(learned.model))
    return reproduce.compare(reproduce.evidence_logged(first, predictions, model.weights_sha256), again)


def note(
    store: TableStore, run: ledger.Run, verdict: str, differing: Sequence[str], found: reproduce.Comparison | None
) -> None:
    """The verdict into the running MLflow run and into the ledger."""
    runs.log_verdict(verdict, differing, reproduce.figures_of(found))
    state = "refused" if verdict == reproduce.DIFFERENT else "done"
    rows = {"test": found.n_rows, "called_otherwise": found.n_flipped} if found else {}
    ledger.finish(store, replace(run, config={**run.config, "verdict": verdict}), [], rows, state=state)


def weights_sha256(model: Any) -> str:
    """SHA-256 of the model.safetensors that `classifier.save` would write."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory, safe_serialization=True)
        return hashlib.sha256(Path(directory, "model.safetensors").read_bytes()).hexdigest()
