"""Reproduce a training run: compare the two trainings, decide the verdict, report, record."""

import hashlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray

from pipelines import cli
from pipelines.errors import IntegrityError
from pipelines.lake import ledger
from pipelines.lake.snapshot import snapshot_of
from pipelines.lake.tables import TableStore
from pipelines.tracking import runs
from pipelines.tracking.model_table import ModelRecord
from pipelines.tracking.runs import PastRun
from pipelines.train.evaluation import epoch_metrics, held_out_metrics, prediction_table
from pipelines.train.settings import DEVICES, TrainSettings
from pipelines.train.training import TrainedModel, train_model

# The verdicts.
IDENTICAL = "bit-identical"
WITHIN = "equal within tolerance"
DIFFERENT = "not reproduced"
DATA_IDENTICAL = "data identical"  # of --data-only

# Values of settings that older runs did not record, as they were fixed in the code then.
LATER = {"processes": "1", "pairs": "0", "device": "auto"}
NOTHING_DIFFERS = "Nothing recorded differs: check the machine."

# Tags of a run, each with the kind of cause that it stands for.
CAUSES = {
    "git.commit": "code",
    "git.dirty": "code",
    "lock.sha256": "environment",
    "python": "environment",
    "torch.build": "environment",
    "platform": "hardware",
    "device": "hardware",
    "cpu.flags": "hardware",
    "torch.threads": "hardware",
    "precision.auto": "hardware",
    "backbone.sha256": "backbone",
}

# Without the counts: one tolerance cannot fit both shares and counts.
TEST_METRICS = tuple(
    f"test_{name}" for name in ("accuracy", "precision", "recall", "f1", "roc_auc")
)


@dataclass(frozen=True)
class Evidence:
    """The results of a training that are compared."""

    weights_sha256: str
    metrics: Mapping[str, float]  # of each epoch and of the test rows
    predictions: pa.Table  # review_id and probability of each test row


@dataclass(frozen=True)
class Comparison:
    """Differences between two trainings; all 0 if they are equal."""

    is_same_weights: bool
    metric: str  # the metric that differs most; empty if all are equal
    metric_difference: float
    probability_difference: float  # maximum over the test rows
    mean_difference: float  # average over the test rows
    n_flipped: int  # test rows whose prediction differs
    n_rows: int

    def __str__(self) -> str:
        metric = ""
        if self.metric:
            metric = f"; metric {self.metric} differs by {self.metric_difference:.2g}"
        return (
            f"weights {'equal' if self.is_same_weights else 'differ'}{metric}; "
            f"{self.n_flipped:,} of {self.n_rows:,} predictions differ; "
            f"probability differs by at most {self.probability_difference:.2g}, "
            f"on average {self.mean_difference:.2g}"
        )


def settings_of(first: PastRun, device: str) -> TrainSettings:
    """Return the settings of a past run, with the threads that it had.

    device  as --device of jobs/reproduce.py; `recorded` stands for the run's own, which is a tag
    """
    settings = cli.from_params(TrainSettings, {**LATER, **first.params})
    if device == "recorded":
        kind = first.tags["device"].partition(":")[0]
        device = kind if kind in DEVICES else "auto"
    return replace(settings, threads=int(first.tags["torch.threads"]), device=device)


def evidence_logged(first: PastRun, predictions: pa.Table, weights_sha256: str) -> Evidence:
    """Return the evidence of the past run, from MLflow and ops.models."""
    tested = {name: first.metrics[name] for name in TEST_METRICS if name in first.metrics}
    return Evidence(
        weights_sha256=weights_sha256,
        metrics={_of_epoch(*key): value for key, value in first.epochs.items()} | tested,
        predictions=predictions,
    )


def evidence_of(learned: TrainedModel, weights_sha256: str) -> Evidence:
    """Return the evidence of the repeated training."""
    tested = held_out_metrics(
        learned.test_labels, learned.test_probability, learned.policy.threshold
    )
    metrics = {name: tested[name] for name in TEST_METRICS if name in tested}
    for row in learned.fitted.history:
        metrics |= {_of_epoch(name, row.epoch): value for name, value in epoch_metrics(row).items()}
    return Evidence(
        weights_sha256=weights_sha256, metrics=metrics, predictions=prediction_table(learned)
    )


def require_same_data(model: ModelRecord, content_hash: str) -> None:
    """Raise IntegrityError unless the table version has the content hash that the run read."""
    if content_hash != model.content_hash:
        raise IntegrityError(
            f"{DIFFERENT}: gold.reviews version {model.gold_version}: "
            f"expected content hash {model.content_hash}, as {model} read, found {content_hash}. "
            "The table was rewritten; restore the lake from a backup."
        )


def surroundings_that_differ(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Return one line per recorded tag that differs now: the kind of cause, then both values."""
    return [
        f"{cause}: {name} was {recorded.get(name, 'not recorded')}, "
        f"is {current.get(name, 'unknown')}"
        for name, cause in CAUSES.items()
        if recorded.get(name) != current.get(name)
    ]


def compare(first: Evidence, again: Evidence) -> Comparison:
    """Compare the weights by hash, the metrics one by one, the predictions row by row.

    Raises IntegrityError if the two did not predict the same rows.
    """
    names = sorted(set(first.metrics) | set(again.metrics))
    differences = {
        name: _difference(first.metrics.get(name), again.metrics.get(name)) for name in names
    }
    worst = max(differences, key=lambda name: differences[name], default="")
    metric_difference = differences.get(worst, 0.0)
    left = first.predictions.sort_by("review_id")
    right = again.predictions.sort_by("review_id")
    if left["review_id"] != right["review_id"]:
        raise IntegrityError(
            f"test rows: expected the {left.num_rows:,} that the run logged, "
            f"found {right.num_rows:,} of other ids. Restore test_predictions.parquet of the run."
        )
    distances: NDArray[np.float64]  # (test rows,) between the two probabilities
    distances = np.abs(left["probability"].to_numpy() - right["probability"].to_numpy())
    is_flipped = left["prediction"].to_numpy() != right["prediction"].to_numpy()  # (test rows,)
    return Comparison(
        is_same_weights=first.weights_sha256 == again.weights_sha256,
        metric=worst if metric_difference > 0 else "",
        metric_difference=metric_difference,
        probability_difference=float(distances.max(initial=0.0)),
        mean_difference=float(distances.mean()) if len(distances) else 0.0,
        n_flipped=int(is_flipped.sum()),
        n_rows=left.num_rows,
    )


def verdict_of(comparison: Comparison, tolerance: float) -> str:
    """Return the verdict. The tolerance applies to metrics and to the mean probability."""
    distance = max(comparison.metric_difference, comparison.mean_difference)
    has_same_numbers = distance == 0 and comparison.probability_difference == 0
    if comparison.is_same_weights and has_same_numbers:
        return IDENTICAL
    return WITHIN if distance <= tolerance else DIFFERENT


def figures_of(comparison: Comparison | None) -> dict[str, float]:
    """Return a comparison's numbers to log as metrics; empty if there is none."""
    if comparison is None:
        return {}
    return {
        "largest_metric_difference": comparison.metric_difference,
        "largest_probability_difference": comparison.probability_difference,
        "mean_probability_difference": comparison.mean_difference,
        "rows_called_otherwise": comparison.n_flipped,
    }


def report(
    model: ModelRecord,
    first: PastRun,
    verdict: str,
    comparison: Comparison | None,
    differing: Sequence[str],
) -> list[str]:
    """Return the lines of the report, verdict last."""
    commit = first.tags.get("git.commit", "unknown")
    lines = [
        f"run      {first.run_id}, {model}",
        f"data     identical: gold.reviews version {model.gold_version}, "
        f"content hash {model.content_hash}",
        *(f"differs  {line}" for line in differing),
    ]
    if any(line.startswith("code: git.commit") for line in differing) and commit != "unknown":
        lines.append(
            f"         to restore that code: git worktree add ../reviewlake-{commit[:8]} {commit}"
        )
    if first.tags.get("git.dirty") == "true":
        lines.append(
            "warning  the run's code had changes that were not committed: "
            "its commit does not contain them"
        )
    if comparison:
        lines.append(f"result   {comparison}")
    if verdict == WITHIN:
        lines.append(
            f"warning  not bit-identical. Differs: {'; '.join(differing) or NOTHING_DIFFERS}"
        )
    return [*lines, f"verdict  {verdict}"]


def trained_again(
    store: TableStore,
    client: MlflowClient,
    model: ModelRecord,
    first: PastRun,
    settings: TrainSettings,
    backbone: Path | None,
) -> Comparison | None:
    """Read the run's table version, train again on it and compare; None without a backbone.

    Without a backbone only the data is checked. Raises IntegrityError if the data differs.
    """
    with snapshot_of(store, model.gold_version) as (snapshot, content_hash):
        require_same_data(model, content_hash)
        if backbone is None:
            return None
        predictions = runs.predictions_of(client, model.run_id)
        learned = train_model(snapshot, backbone, settings)
    again = evidence_of(learned, weights_sha256(learned.model))
    return compare(evidence_logged(first, predictions, model.weights_sha256), again)


def record_verdict(
    store: TableStore,
    run: ledger.Run,
    verdict: str,
    differing: Sequence[str],
    comparison: Comparison | None,
) -> None:
    """Write the verdict to the active MLflow run and to the ledger."""
    runs.log_verdict(verdict, differing, figures_of(comparison))
    state = "refused" if verdict == DIFFERENT else "done"
    counts = {}
    if comparison:
        counts = {"test": comparison.n_rows, "called_otherwise": comparison.n_flipped}
    judged = replace(run, config={**run.config, "verdict": verdict})
    ledger.finish(store, judged, [], counts, state=state)


def weights_sha256(model: Any) -> str:
    """Return the SHA-256 of the model.safetensors that `classifier.save` would write."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory, safe_serialization=True)
        return hashlib.sha256(Path(directory, "model.safetensors").read_bytes()).hexdigest()


def _of_epoch(name: str, epoch: int) -> str:
    return f"{name} of epoch {epoch}"


def _difference(first: float | None, again: float | None) -> float:
    """Return the absolute difference; infinite if a value is missing or NaN."""
    if first is None or again is None:
        return float("inf")
    difference = abs(first - again)
    return float("inf") if math.isnan(difference) else difference
