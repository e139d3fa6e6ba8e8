"""Logging a training run to MLflow: steps, epochs, metrics, figures, model card."""

import logging
import time
from collections.abc import Mapping

import mlflow
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from pipelines.model.classifier import probability_of
from pipelines.model.metrics import confusion_of, expected_calibration_error
from pipelines.tracking import runs
from pipelines.train import evaluation, figures
from pipelines.train.loop import EpochRow
from pipelines.train.training import TrainedModel

log = logging.getLogger("reviewlake")


class TrainingLog:
    """Collects a run's steps and logs them once per epoch: a request per step would be slow."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self.metrics: list[Metric] = []
        self.step_losses: list[float] = []

    def step(self, step: int, loss: float, rate: float) -> None:
        """Collect the loss and the learning rate of one step."""
        self.step_losses.append(loss)
        self._add({"step_loss": loss, "step_learning_rate": rate}, step)

    def epoch(self, row: EpochRow) -> None:
        """Log the metrics of one epoch and of its steps."""
        self._add(evaluation.epoch_metrics(row), row.epoch)
        runs.log_steps(self.client, self.run_id, self.metrics)
        self.metrics = []
        accuracy = "undefined" if row.valid_accuracy is None else f"{row.valid_accuracy:.4f}"
        log.info(
            "epoch %d: train loss %.4f, validation loss %.4f, validation accuracy %s",
            row.epoch,
            row.train_loss,
            row.valid_loss,
            accuracy,
        )

    def test(self, name: str, trained: TrainedModel, tags: Mapping[str, str]) -> str:
        """Log test metrics, predictions and figures; returns the model card."""
        label = trained.test_labels
        probability = trained.test_probability
        prediction = trained.test_predictions
        self._calibration(trained)
        metrics = evaluation.held_out_metrics(label, probability, trained.policy.threshold)
        for part, part_prediction in trained.test_parts.items():
            metrics[f"test_accuracy_{part}"] = float((part_prediction == label).mean())
        slices = evaluation.slices_of(trained.test_rows, label, prediction)
        mlflow.log_metrics(metrics | evaluation.slice_metrics(slices))
        mlflow.log_table(slices, "test_slices.json")
        runs.log_predictions(evaluation.prediction_table(trained))
        pictures = {
            "learning_curves": figures.learning_curves(trained.fitted.history, self.step_losses),
            "confusion_matrix": figures.confusion_matrix(confusion_of(label, prediction)),
            "roc": figures.roc(probability, label),
            "calibration": figures.calibration(probability, label),
        }
        for title, picture in pictures.items():
            mlflow.log_figure(picture, f"figures/{title}.png")
        card = evaluation.model_card(
            name,
            tags=tags,
            metrics=metrics,
            slices=slices,
            history=trained.fitted.history,
        )
        mlflow.log_text(card, "model_card.md")
        log.info(
            "test: accuracy %.4f (95 %% %.4f-%.4f) on %s rows",
            metrics["test_accuracy"],
            metrics["test_accuracy_low"],
            metrics["test_accuracy_high"],
            f"{len(label):,}",
        )
        return card

    def _calibration(self, trained: TrainedModel) -> None:
        fitted = trained.fitted
        policy = trained.policy
        label = trained.valid_labels
        probability_before = probability_of(fitted.valid_logits, 1.0)
        before = expected_calibration_error(probability_before, label)
        after = expected_calibration_error(trained.valid_probability, label)
        accuracy = float(((trained.valid_probability >= policy.threshold) == label).mean())
        mlflow.log_metrics(
            {
                "temperature": policy.temperature,
                "lexical_weight": policy.lexical_weight,
                "bias": policy.bias,
                "blended_valid_accuracy": accuracy,
                "best_epoch": fitted.best_epoch,
                "n_steps": fitted.n_steps,
            }
        )
        log.info(
            "temperature %.3f, lexical weight %.3f: validation accuracy %.4f, "
            "calibration error %.4f (before: %.4f)",
            policy.temperature,
            policy.lexical_weight,
            accuracy,
            after,
            before,
        )

    def _add(self, values: Mapping[str, float], step: int) -> None:
        timestamp_ms = int(time.time() * 1_000)
        for name, value in values.items():
            self.metrics.append(Metric(key=name, value=value, timestamp=timestamp_ms, step=step))
