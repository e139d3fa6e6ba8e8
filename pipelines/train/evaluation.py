"""What a trained model is worth on held-out rows: its figures, its slices, its pictures, its card."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.model.metrics import (
    LENGTH_QUARTILE,
    Interval,
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
    found: dict[str, float | None] = {
        f"test_{name}": value for name, value in point_metrics(confusion).items()
    }
    for name, interval in with_intervals(confusion).items():
        if interval is not None:
            found |= {f"test_{name}_low": interval.low, f"test_{name}_high": interval.high}
    found |= {f"test_{name}": count for name, count in dataclasses.asdict(confusion).items()}
    found["test_roc_auc"] = roc_auc(probability, label)
    found["test_calibration_error"] = expected_calibration_error(probability, label)
    found["test_rows"] = len(label)
    return {name: float(value) for name, value in found.items() if value is not None}


def slices_of(
    rows: pa.Table, label: NDArray[np.int64], prediction: NDArray[np.int64]
) -> pd.DataFrame:
    """Accuracy with limits by length quartile, by whether the text states its score, and by source."""
    frame = rows.select(["n_tokens", "states_score", "source"]).to_pandas()
    return by_slice(with_length_quartile(frame.assign(label=label, prediction=prediction)), SLICES)


def prediction_table(learned: TrainedModel) -> pa.Table:
    """The held-out rows by id with label, probability and prediction: what a reproduction is compared with."""
    return pa.table(
        {
            "review_id": learned.test_rows["review_id"],
            "label": pa.array(learned.test_labels),
            "probability": pa.array(learned.test_probability),
            "prediction": pa.array(learned.test_predictions),
        }
    )


def slice_metrics(slices: pd.DataFrame) -> dict[str, float]:
    """The same as metrics: slice.source.imdb.accuracy."""
    columns = ("slice", "value", "accuracy")
    return {
        f"slice.{s}.{v}.accuracy": float(a)
        for s, v, a in zip(*(slices[c] for c in columns), strict=True)
    }


def epoch_metrics(row: EpochRow) -> dict[str, float]:
    """One epoch's figures as metrics, its number left out."""
    found = {name: getattr(row, name) for name in EPOCH_METRICS}
    return {name: value for name, value in found.items() if value is not None}


def model_card(
    name: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    slices: pd.DataFrame,
    history: Sequence[EpochRow],
) -> str:
    """Markdown that stands with the model version: what it is for, learned from, worth, and not to be used for."""
    accuracy = Interval(
        metrics["test_accuracy"], metrics["test_accuracy_low"], metrics["test_accuracy_high"]
    )
    lines = [
        f"# {name}",
        "",
        "Tells whether an English film review is positive (1) or negative (0).",
        "",
        f"- TrainedModel from `gold.reviews` version {tags['delta.version']} (content hash `{tags['content_hash']}`), "
        f"backbone `{tags['backbone']}`, code `{tags['git.commit'][:12]}`, {len(history)} epoch(s).",
        f"- On {metrics['test_rows']:,.0f} held-out rows: accuracy {accuracy.value:.4f} "
        f"(95 % {accuracy.low:.4f}-{accuracy.high:.4f}), calibration error {metrics['test_calibration_error']:.4f}.",
        "- Not for other languages, other subjects, or a person's fate; short and ironic texts are its weak side.",
        "",
        "| slice | value | rows | accuracy | 95 % |",
        "|---|---|---:|---:|---|",
    ]
    row = "| {r.slice} | {r.value} | {r.n:,} | {r.accuracy:.4f} | {r.low:.4f}-{r.high:.4f} |"
    rows = [row.format(r=r) for r in slices.itertuples()]
    return "\n".join([*lines, *rows, ""])
