"""Pictures of a training run and of its test figures, as matplotlib figures that need no display."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from pipelines.model.classifier import LABELS
from pipelines.model.metrics import Confusion, calibration_bins, expected_calibration_error, roc_auc
from pipelines.train.loop import EpochRow

BLUE, ORANGE, GREY = "#1f5fa8", "#d9730d", "#8a8a8a"


def learning_curves(history: Sequence[EpochRow]) -> Figure:
    """Loss of both splits, and the validation figures, by epoch."""
    figure, (left, right) = _figure(2)
    epochs = [row.epoch for row in history]
    _line(left, epochs, [row.train_loss for row in history], "train", BLUE)
    _line(left, epochs, [row.valid_loss for row in history], "validation", ORANGE)
    _label(left, "Loss", "epoch", "cross entropy, nats")
    _line(right, epochs, _or_gap([row.valid_accuracy for row in history]), "accuracy", BLUE)
    _line(right, epochs, _or_gap([row.valid_f1 for row in history]), "F1", ORANGE)
    _label(right, "Validation figures", "epoch", "share of reviews")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    return figure


def confusion_matrix(confusion: Confusion) -> Figure:
    """Labels against predictions: reviews, and share of the label's reviews."""
    figure, (axes,) = _figure(1)
    counts = np.array([[confusion.tn, confusion.fp], [confusion.fn, confusion.tp]])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        text = f"{count:,}\n{share:.1%}"
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            color="white" if share > 0.6 else "black",
            fontsize=13,
        )
    axes.set_xticks([0, 1], LABELS)
    axes.set_yticks([0, 1], LABELS, rotation=90, va="center")
    _label(
        axes,
        f"Confusion matrix, {counts.sum():,} reviews",
        "predicted",
        "labelled (shares add up by row)",
    )
    return figure


def roc(probability: NDArray[np.float64], label: NDArray[np.int64]) -> Figure:
    """True against false positives over all thresholds; no curve where one class is absent."""
    figure, (axes,) = _figure(1)
    area = roc_auc(probability, label)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
    if area is not None:
        false_positives, true_positives, _ = roc_curve(label, probability)
        axes.plot(false_positives, true_positives, color=BLUE, linewidth=2, label="model")
    title = "ROC curve: one class is absent" if area is None else f"ROC curve, area {area:.4f}"
    _label(axes, title, "false positive rate", "true positive rate (recall)")
    _unit_square(axes)
    axes.legend(frameon=False, loc="lower right")
    return figure


def calibration(probability: NDArray[np.float64], label: NDArray[np.int64]) -> Figure:
    """Share of positive labels against predicted probability, and how many reviews stand behind each point."""
    figure, (axes,) = _figure(1)
    bins = calibration_bins(probability, label)
    error = expected_calibration_error(probability, label)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    axes.plot(
        bins["mean_probability"], bins["positive_share"], color=BLUE, linewidth=1.5, label="model"
    )
    axes.scatter(
        bins["mean_probability"], bins["positive_share"], s=20 + 280 * bins["n"] / bins["n"].max(),
        color=BLUE, alpha=0.6, linewidths=0, label="area = reviews",
    )  # fmt: skip
    _label(
        axes,
        f"Calibration, expected error {error:.4f}",
        "P(positive), mean of the bin",
        "share of positive labels",
    )
    _unit_square(axes)
    axes.legend(frameon=False, loc="upper left", markerscale=0.5)
    return figure


def _figure(n_axes: int) -> tuple[Figure, list[Axes]]:
    """A figure outside of pyplot, so that no global state and no display are touched."""
    figure = Figure(figsize=(5.2 * n_axes, 4.4), dpi=120, layout="constrained")
    return figure, [figure.add_subplot(1, n_axes, number + 1) for number in range(n_axes)]


def _line(axes: Axes, x: Sequence[int], y: Sequence[float], name: str, colour: str) -> None:
    axes.plot(x, y, color=colour, marker="o", linewidth=2, label=name)
    axes.grid(visible=True, color="#e3e3e3")


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(visible=True, color="#e3e3e3")


def _or_gap(values: Sequence[float | None]) -> list[Any]:
    return [np.nan if value is None else value for value in values]
