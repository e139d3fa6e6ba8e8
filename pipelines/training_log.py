"""What a training run leaves in MLflow and in ops.models: steps, epochs, figures, pictures, the card."""

import dataclasses
import logging
import time
from collections.abc import Mapping

import mlflow
import numpy as np
import pyarrow as pa
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from pipelines import evaluation, figures, ledger, registry
from pipelines.classifier import Policy, probability_of
from pipelines.content import one_row
from pipelines.errors import IntegrityError
from pipelines.metrics import confusion_of, expected_calibration_error, fit_temperature
from pipelines.provenance import git_commit
from pipelines.tables import Commit, TableStore
from pipelines.train import EpochRow, Fit
from schemas import OPS_MODELS

log = logging.getLogger("reviewlake")


class TrainingLog:
    """Collects one run's steps and epochs, and logs them together: a request a step would slow training down."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self.metrics: list[Metric] = []

    def step(self, step: int, loss: float, rate: float) -> None:
        """One optimiser step's loss and learning rate."""
        self._add({"step_loss": loss, "step_learning_rate": rate}, step)

    def epoch(self, row: EpochRow) -> None:
        """One epoch's figures; also the moment at which what was collected is sent."""
        self._add(evaluation.epoch_metrics(row), row.epoch)
        registry.log_steps(self.client, self.run_id, self.metrics)
        self.metrics = []
        accuracy = "undefined" if row.valid_accuracy is None else f"{row.valid_accuracy:.4f}"
        log.info(
            "epoch %d: train loss %.4f, validation loss %.4f, validation accuracy %s",
            row.epoch, row.train_loss, row.valid_loss, accuracy,
        )  # fmt: skip

    def calibrated(self, policy: Policy, fitted: Fit, label: NDArray[np.int64]) -> Policy:
        """The policy with the temperature that fits the validation rows best."""
        temperature = fit_temperature(fitted.valid_logits, label)
        before, after = (
            expected_calibration_error(probability_of(fitted.valid_logits, t), label) for t in (1.0, temperature)
        )
        mlflow.log_metrics({"temperature": temperature, "best_epoch": fitted.best_epoch, "n_steps": fitted.n_steps})
        log.info("temperature %.3f: validation calibration error %.4f, before %.4f", temperature, after, before)
        return dataclasses.replace(policy, temperature=temperature)

    def test(
        self,
        name: str,
        fitted: Fit,
        rows: pa.Table,
        label: NDArray[np.int64],
        logits: NDArray[np.float32],
        policy: Policy,
        tags: Mapping[str, str],
    ) -> str:
        """Log what the model is worth on the test rows; returns its card."""
        probability = probability_of(logits, policy.temperature)
        prediction = (probability >= policy.threshold).astype(np.int64)
        metrics = evaluation.test_metrics(label, probability, policy.threshold)
        slices = evaluation.slices_of(rows, label, prediction)
        mlflow.log_metrics(metrics | evaluation.slice_metrics(slices))
        mlflow.log_table(slices, "test_slices.json")
        pictures = {
            "learning_curves": figures.learning_curves(fitted.history),
            "confusion_matrix": figures.confusion_matrix(confusion_of(label, prediction)),
            "roc": figures.roc(probability, label),
            "calibration": figures.calibration(probability, label),
        }
        for title, picture in pictures.items():
            mlflow.log_figure(picture, f"figures/{title}.png")
        card = evaluation.model_card(name, tags, metrics, slices, fitted.history)
        mlflow.log_text(card, "model_card.md")
        log.info(
            "test: accuracy %.4f (95 %% %.4f-%.4f) on %s rows",
            metrics["test_accuracy"], metrics["test_accuracy_low"], metrics["test_accuracy_high"],
            f"{len(label):,}",
        )  # fmt: skip
        return card

    def _add(self, figures_by_name: Mapping[str, float], step: int) -> None:
        now_ms = int(time.time() * 1_000)
        self.metrics += [Metric(name, value, now_ms, step) for name, value in figures_by_name.items()]


def require_added(commit: Commit, registered: registry.Registered) -> Commit:
    """The commit, unless ops.models held that version already: then the registry counts from 1 again."""
    if commit.n_added != 1:
        raise IntegrityError(
            f"ops.models: expected no {registered.name} version {registered.version} yet, found one: the registry was "
            "emptied or restored. Restore <lake>/mlflow from a backup, or train under another --model-name."
        )
    return commit


def model_row(store: TableStore, registered: registry.Registered, gold_version: int, content_hash: str) -> DataFrame:
    """The row of ops.models: the link from the registry to the tables, and the manifest outside the registry."""
    silver_version = ledger.input_version(store, "curate", "gold.reviews", gold_version, "silver.reviews")
    bronze_version = ledger.input_version(store, "clean", "silver.reviews", silver_version, "bronze.reviews")
    row = (
        registered.name, registered.version, registered.run_id, gold_version, silver_version, bronze_version,
        content_hash, registered.weights_sha256, registered.manifest_sha256, registered.files, git_commit(),
    )  # fmt: skip
    return one_row(store.spark, OPS_MODELS, row)
