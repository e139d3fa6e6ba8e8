"""Evaluation of a trained model on held-out rows: metrics, slices, predictions, model card."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.model.metrics import (
    LENGTH_QUARTILE,
    by_slice,
    confusion_of,
    expected_calibration_error,
    point_metrics,
    roc_auc,
    with_intervals,
    with_length_quartile,
)
from pipelines.train.loop import EpochRow
from pipelines.train.training import TrainedModel

EPOCH_METRICS = tuple(field.name for field in dataclasses.fields(EpochRow) if field.name != "epoch")
SLICES = (LENGTH_QUARTILE, "states_score", "source")


def held_out_metrics(
    label: NDArray[np.int64], probability: NDArray[np.float64], threshold: float
) -> dict[str, float]:
    """Return test_accuracy, test_accuracy_low, test_accuracy_high and so on, as logged.

    Undefined metrics are left out.
    """
    confusion = confusion_of(label, (probability >= threshold).astype(np.int64))
    metrics: dict[str, float | None] = {**point_metrics(confusion)}
    for name, interval in with_intervals(confusion).items():
        if interval is not None:
            metrics[f"{name}_low"] = interval.low
            metrics[f"{name}_high"] = interval.high
    metrics |= dataclasses.asdict(confusion)
    metrics["roc_auc"] = roc_auc(probability, label)
    metrics["calibration_error"] = expected_calibration_error(probability, label)
    metrics["rows"] = len(label)
    return {f"test_{name}": float(value) for name, value in metrics.items() if value is not None}


def slices_of(
    rows: pa.Table, label: NDArray[np.int64], prediction: NDArray[np.int64]
) -> pd.DataFrame:
    """Return the accuracy by length quartile, by source, and for texts that state their score."""
    frame = rows.select(["n_tokens", "states_score", "source"]).to_pandas()
    return by_slice(with_length_quartile(frame.assign(label=label, prediction=prediction)), SLICES)


def prediction_table(trained: TrainedModel) -> pa.Table:
    """Return label, probability and prediction of each held-out row, for later reproductions."""
    return pa.table(
        {
            "review_id": trained.test_rows["review_id"],
            "label": pa.array(trained.test_labels),
            "probability": pa.array(trained.test_probability),
            "prediction": pa.array(trained.test_predictions),
        }
    )


def slice_metrics(slices: pd.DataFrame) -> dict[str, float]:
    """Return the accuracies as metrics, named like slice.source.imdb.accuracy."""
    rows = zip(slices["slice"], slices["value"], slices["accuracy"], strict=True)
    return {f"slice.{name}.{value}.accuracy": float(accuracy) for name, value, accuracy in rows}


def epoch_metrics(row: EpochRow) -> dict[str, float]:
    """Return the metrics of one epoch that are defined, without its number."""
    metrics = {name: getattr(row, name) for name in EPOCH_METRICS}
    return {name: value for name, value in metrics.items() if value is not None}


def model_card(
    name: str,
    *,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    slices: pd.DataFrame,
    history: Sequence[EpochRow],
) -> str:
    """Write the model version's card in Markdown: intended use, training data, metrics, limits."""
    accuracy = metrics["test_accuracy"]
    limits = f"{metrics['test_accuracy_low']:.4f}-{metrics['test_accuracy_high']:.4f}"
    lines = [
        f"# {name}",
        "",
        "Classifies an English film review as positive (1) or negative (0).",
        "",
        f"- Trained on `gold.reviews` version {tags['delta.version']} "
        f"(content hash `{tags['content_hash']}`), backbone `{tags['backbone']}`, "
        f"code `{tags['git.commit'][:12]}`, {len(history)} epoch(s).",
        f"- On {metrics['test_rows']:,.0f} held-out rows: accuracy {accuracy:.4f} "
        f"(95 % {limits}), calibration error {metrics['test_calibration_error']:.4f}.",
        "- Do not use for decisions about people, for other languages or for other subjects. "
        "It is least reliable on short and on ironic texts.",
        "",
        "| slice | value | rows | accuracy | 95 % |",
        "|---|---|---:|---:|---|",
    ]
    row = "| {r.slice} | {r.value} | {r.n:,} | {r.accuracy:.4f} | {r.low:.4f}-{r.high:.4f} |"
    rows = [row.format(r=r) for r in slices.itertuples()]
    return "\n".join([*lines, *rows, ""])
