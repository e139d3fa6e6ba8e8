"""What a trained model is worth on held-out rows: its figures, its slices, its pictures, its card."""

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
    """test_accuracy, test_accuracy_low, test_accuracy_high … as logged; a figure that is undefined is left out."""
    confusion = confusion_of(label, (probability >= threshold).astype(np.int64))
    figures: dict[str, float | None] = {**point_metrics(confusion)}
    for name, interval in with_intervals(confusion).items():
        if interval is not None:
            figures[f"{name}_low"] = interval.low
            figures[f"{name}_high"] = interval.high
    figures |= dataclasses.asdict(confusion)
    figures["roc_auc"] = roc_auc(probability, label)
    figures["calibration_error"] = expected_calibration_error(probability, label)
    figures["rows"] = len(label)
    return {f"test_{name}": float(value) for name, value in figures.items() if value is not None}


def slices_of(
    rows: pa.Table, label: NDArray[np.int64], prediction: NDArray[np.int64]
) -> pd.DataFrame:
    """Accuracy with limits by length quartile, by whether the text states its score, and by source."""
    frame = rows.select(["n_tokens", "states_score", "source"]).to_pandas()
    return by_slice(with_length_quartile(frame.assign(label=label, prediction=prediction)), SLICES)


def prediction_table(trained: TrainedModel) -> pa.Table:
    """The held-out rows by id with label, probability and prediction: what a reproduction is compared with."""
    return pa.table(
        {
            "review_id": trained.test_rows["review_id"],
            "label": pa.array(trained.test_labels),
            "probability": pa.array(trained.test_probability),
            "prediction": pa.array(trained.test_predictions),
        }
    )


def slice_metrics(slices: pd.DataFrame) -> dict[str, float]:
    """The same as metrics: slice.source.imdb.accuracy."""
    rows = zip(slices["slice"], slices["value"], slices["accuracy"], strict=True)
    return {f"slice.{name}.{value}.accuracy": float(accuracy) for name, value, accuracy in rows}


def epoch_metrics(row: EpochRow) -> dict[str, float]:
    """One epoch's figures as metrics, its number left out."""
    figures = {name: getattr(row, name) for name in EPOCH_METRICS}
    return {name: value for name, value in figures.items() if value is not None}


def model_card(
    name: str,
    *,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    slices: pd.DataFrame,
    history: Sequence[EpochRow],
) -> str:
    """Markdown that stands with the model version: what it is for, learned from, worth, and not to be used for."""
    accuracy = metrics["test_accuracy"]
    limits = f"{metrics['test_accuracy_low']:.4f}-{metrics['test_accuracy_high']:.4f}"
    lines = [
        f"# {name}",
        "",
        "Tells whether an English film review is positive (1) or negative (0).",
        "",
        f"- TrainedModel from `gold.reviews` version {tags['delta.version']} "
        f"(content hash `{tags['content_hash']}`), backbone `{tags['backbone']}`, "
        f"code `{tags['git.commit'][:12]}`, {len(history)} epoch(s).",
        f"- On {metrics['test_rows']:,.0f} held-out rows: accuracy {accuracy:.4f} "
        f"(95 % {limits}), calibration error {metrics['test_calibration_error']:.4f}.",
        "- Not for other languages, other subjects, or a person's fate; short and ironic texts are its weak side.",
        "",
        "| slice | value | rows | accuracy | 95 % |",
        "|---|---|---:|---:|---|",
    ]
    row = "| {r.slice} | {r.value} | {r.n:,} | {r.accuracy:.4f} | {r.low:.4f}-{r.high:.4f} |"
    rows = [row.format(r=r) for r in slices.itertuples()]
    return "\n".join([*lines, *rows, ""])
