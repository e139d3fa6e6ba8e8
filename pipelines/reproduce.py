"""Whether a training run again gave the same: what is compared, how far apart it is, the verdict and why."""

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

from pipelines.errors import IntegrityError
from pipelines.lake import ledger
from pipelines.lake.snapshot import snapshot_of
from pipelines.lake.tables import TableStore
from pipelines.tracking import runs
from pipelines.tracking.model_table import ModelRecord
from pipelines.tracking.runs import PastRun
from pipelines.train.evaluation import epoch_metrics, held_out_metrics, prediction_table
from pipelines.train.settings import TrainSettings
from pipelines.train.training import TrainedModel, train_model

IDENTICAL, WITHIN, DIFFERENT = "bit-identical", "equal within tolerance", "not reproduced"
DATA_IDENTICAL = "data identical"  # the verdict of --data-only

# What settings that came later stood at before they could be set: a run of then is reproduced with these.
LATER = {"processes": "1", "pairs": "0"}
NOTHING_DIFFERS = "Nothing recorded differs: look at the machine."

# What a run is tagged with, by the kind of cause that a difference in it is.
CAUSES = {
    "git.commit": "code", "git.dirty": "code", "lock.sha256": "environment", "python": "environment",
    "torch.build": "environment", "platform": "hardware", "device": "hardware", "cpu.flags": "hardware",
    "torch.threads": "hardware", "precision.auto": "hardware", "backbone.sha256": "backbone",
}  # fmt: skip

# Shares and losses only: a tolerance for them means nothing for counts.
TEST_METRICS = tuple(
    f"test_{name}" for name in ("accuracy", "precision", "recall", "f1", "roc_auc")
)


@dataclass(frozen=True)
class Evidence:
    """What a training leaves that another can be compared with."""

    weights_sha256: str
    metrics: Mapping[str, float]  # per epoch and on the test rows, by a name that says which
    predictions: pa.Table  # review_id and probability of each test row


@dataclass(frozen=True)
class Comparison:
    """How far apart two trainings are; all 0 where they are equal."""

    is_same_weights: bool
    metric: str  # the one that differs most
    metric_difference: float
    probability_difference: float  # largest of any test row
    mean_difference: float  # of all test rows
    n_flipped: int  # test rows called otherwise
    n_rows: int

    def __str__(self) -> str:
        metric = (
            f", largest difference of a metric {self.metric_difference:.2g} ({self.metric})"
            if self.metric
            else ""
        )
        return (
            f"weights {'equal' if self.is_same_weights else 'differ'}{metric}; of {self.n_rows:,} test rows "
            f"{self.n_flipped:,} called otherwise, probability apart by at most {self.probability_difference:.2g}, "
            f"on average {self.mean_difference:.2g}"
        )


def evidence_logged(first: PastRun, predictions: pa.Table, weights_sha256: str) -> Evidence:
    """What the past run left in MLflow and in ops.models."""
    tested = {name: first.metrics[name] for name in TEST_METRICS if name in first.metrics}
    return Evidence(
        weights_sha256=weights_sha256,
        metrics={_of_epoch(*key): value for key, value in first.epochs.items()} | tested,
        predictions=predictions,
    )


def evidence_of(learned: TrainedModel, weights_sha256: str) -> Evidence:
    """What training again gave."""
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
    """Raise IntegrityError unless the version holds what the run read."""
    if content_hash != model.content_hash:
        raise IntegrityError(
            f"{DIFFERENT}: gold.reviews version {model.gold_version}: expected content hash {model.content_hash}, as "
            f"{model} read, found {content_hash}. The table was rewritten; restore the lake from a backup."
        )


def surroundings_that_differ(recorded: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """One sentence for each part of the surroundings that is not as the run recorded it, its kind of cause first."""
    return [
        f"{cause}: {name} was {recorded.get(name, 'not recorded')}, "
        f"is {current.get(name, 'unknown')}"
        for name, cause in CAUSES.items()
        if recorded.get(name) != current.get(name)
    ]


def compare(first: Evidence, again: Evidence) -> Comparison:
    """Weights by hash, metrics one by one, predictions row by row.

    Raises IntegrityError where the two did not predict the same rows: then they did not read the same data.
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
            f"test rows: expected the {left.num_rows:,} that the run logged, found {right.num_rows:,} of other ids. "
            "Restore test_predictions.parquet of the run."
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
    """Bit-identical, equal within the tolerance (in metrics and in mean probability), or not reproduced."""
    distance = max(comparison.metric_difference, comparison.mean_difference)
    has_same_numbers = distance == 0 and comparison.probability_difference == 0
    if comparison.is_same_weights and has_same_numbers:
        return IDENTICAL
    return WITHIN if distance <= tolerance else DIFFERENT


def figures_of(comparison: Comparison | None) -> dict[str, float]:
    """What is logged of a comparison; nothing without one."""
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
    """What a user reads, verdict last."""
    commit = first.tags.get("git.commit", "unknown")
    lines = [
        f"run      {first.run_id}, {model}",
        f"data     identical: gold.reviews version {model.gold_version}, content hash {model.content_hash}",
        *(f"differs  {line}" for line in differing),
    ]
    if any(line.startswith("code: git.commit") for line in differing) and commit != "unknown":
        lines.append(
            f"         for the code of then: git worktree add ../reviewlake-{commit[:8]} {commit}"
        )
    if first.tags.get("git.dirty") == "true":
        lines.append(
            "warning  the run's code had changes that were not committed: its commit does not hold them"
        )
    if comparison:
        lines.append(f"result   {comparison}")
    if verdict == WITHIN:
        lines.append(
            f"warning  not the same bits; what differs: {'; '.join(differing) or NOTHING_DIFFERS}"
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
    """Read the version again and train the backbone on it; None where only the data is asked for, by no backbone.

    Raises IntegrityError where the data are not those that the run read.
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
    """The verdict into the running MLflow run and into the ledger."""
    runs.log_verdict(verdict, differing, figures_of(comparison))
    state = "refused" if verdict == DIFFERENT else "done"
    counts = {}
    if comparison:
        counts = {"test": comparison.n_rows, "called_otherwise": comparison.n_flipped}
    judged = replace(run, config={**run.config, "verdict": verdict})
    ledger.finish(store, judged, [], counts, state=state)


def weights_sha256(model: Any) -> str:
    """SHA-256 of the model.safetensors that `classifier.save` would write."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory, safe_serialization=True)
        return hashlib.sha256(Path(directory, "model.safetensors").read_bytes()).hexdigest()


def _of_epoch(name: str, epoch: int) -> str:
    return f"{name} of epoch {epoch}"


def _difference(first: float | None, again: float | None) -> float:
    """Absolute difference; infinite where one of them was not logged, or is no number."""
    if first is None or again is None:
        return float("inf")
    difference = abs(first - again)
    return float("inf") if math.isnan(difference) else difference
