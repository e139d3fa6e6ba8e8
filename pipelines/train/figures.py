"""Figures of a training run and of its test metrics, drawn by matplotlib without a display."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from pipelines.model.classifier import LABELS
from pipelines.model.metrics import Confusion, calibration_bins, expected_calibration_error, roc_auc
from pipelines.train.loop import EpochRow

BLUE, ORANGE, GREY, GRID = "#1f5fa8", "#d9730d", "#8a8a8a", "#e3e3e3"
MEAN_WINDOWS = 20  # the running mean covers a 20th of all steps
LEGEND_ROOM = 1.3  # the loss axis is extended by this factor, so that the legend hides no point


def learning_curves(history: Sequence[EpochRow], step_losses: Sequence[float]) -> Figure:
    """Draw the losses by step, and the validation metrics by epoch.

    step_losses  (n_steps,) training loss of each step of all epochs in `history`
    """
    figure, (left, right) = _figure(2)
    _losses_by_step(left, history, step_losses)
    if len(history) == 1:
        _metrics_of_epoch(right, history[0])
    else:
        _metrics_by_epoch(right, history)
    return figure


def _losses_by_step(axes: Axes, history: Sequence[EpochRow], step_losses: Sequence[float]) -> None:
    """Draw each step's training loss, its running mean, and each epoch's validation loss."""
    losses = np.asarray(step_losses, dtype=np.float64)  # (n_steps,)
    steps = np.arange(1, len(losses) + 1)
    window = len(losses) // MEAN_WINDOWS
    axes.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=0.8, label="training, each step")
    if window > 1:
        mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
        name = f"training, mean of {window} steps"
        axes.plot(steps[window - 1 :], mean, color=BLUE, linewidth=2, label=name)
    ends = [len(losses) * (number + 1) / len(history) for number in range(len(history))]
    valid_losses = [row.valid_loss for row in history]
    line = "-" if len(history) > 1 else "none"
    axes.plot(ends, valid_losses, color=ORANGE, marker="o", linestyle=line, label="validation")
    for end in ends[:-1]:
        axes.axvline(end, color=GREY, linestyle=":", linewidth=1)
    name = "step (dotted: end of an epoch)" if len(history) > 1 else "step"
    _label(axes, "Loss", x=name, y="cross entropy, nats")
    axes.grid(visible=True, axis="y", color=GRID)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(0.0, LEGEND_ROOM * axes.get_ylim()[1])
    axes.legend(loc="upper right", facecolor="white", edgecolor="none", framealpha=0.85)


def _metrics_of_epoch(axes: Axes, row: EpochRow) -> None:
    """Draw the validation metrics of a single epoch as bars, each with its value."""
    values = {
        "accuracy": row.valid_accuracy,
        "precision": row.valid_precision,
        "recall": row.valid_recall,
        "F1": row.valid_f1,
    }
    bars = axes.bar(list(values), [value or 0.0 for value in values.values()], 0.6, color=BLUE)
    texts = ["undefined" if value is None else f"{value:.1%}" for value in values.values()]
    axes.bar_label(bars, texts, padding=3)
    _label(axes, f"Validation metrics after epoch {row.epoch}", x="", y="share of reviews")
    axes.set_ylim(0.0, 1.08)
    axes.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _metrics_by_epoch(axes: Axes, history: Sequence[EpochRow]) -> None:
    """Draw validation accuracy and F1 over the epochs, with a gap where one is undefined."""
    epochs = [row.epoch for row in history]
    accuracies = [row.valid_accuracy for row in history]
    _line(axes, epochs, accuracies, name="accuracy", colour=BLUE)
    _line(axes, epochs, [row.valid_f1 for row in history], name="F1", colour=ORANGE)
    _label(axes, "Validation metrics", x="epoch", y="share of reviews")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def confusion_matrix(confusion: Confusion) -> Figure:
    """Draw labels against predictions: number of reviews, and their share of the label."""
    figure, (axes,) = _figure(1)
    counts = np.array([[confusion.tn, confusion.fp], [confusion.fn, confusion.tp]])  # (2, 2)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        text = f"{count:,}\n{share:.1%}"
        colour = "white" if share > 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=13)
    axes.set_xticks([0, 1], LABELS)
    axes.set_yticks([0, 1], LABELS, rotation=90, va="center")
    title = f"Confusion matrix, {counts.sum():,} reviews"
    _label(axes, title, x="predicted", y="label (each row adds up to 100 %)")
    return figure


def roc(probability: NDArray[np.float64], label: NDArray[np.int64]) -> Figure:
    """Draw the ROC curve; only the diagonal if one class is absent."""
    figure, (axes,) = _figure(1)
    area = roc_auc(probability, label)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
    if area is not None:
        false_positives, true_positives, _ = roc_curve(label, probability)
        axes.plot(false_positives, true_positives, color=BLUE, linewidth=2, label="model")
    title = "ROC curve: one class is absent" if area is None else f"ROC curve, area {area:.4f}"
    _label(axes, title, x="false positive rate", y="true positive rate (recall)")
    _unit_square(axes)
    axes.legend(frameon=False, loc="lower right")
    return figure


def calibration(probability: NDArray[np.float64], label: NDArray[np.int64]) -> Figure:
    """Draw the share of positive labels against the predicted probability of each bin.

    The area of a point is the number of its reviews.
    """
    figure, (axes,) = _figure(1)
    bins = calibration_bins(probability, label)
    error = expected_calibration_error(probability, label)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    mean = bins["mean_probability"]
    share = bins["positive_share"]
    area = 20 + 280 * bins["n"] / bins["n"].max()
    axes.plot(mean, share, color=BLUE, linewidth=1.5, label="model")
    axes.scatter(
        mean,
        share,
        s=area,
        color=BLUE,
        alpha=0.6,
        linewidths=0,
        label="area = reviews",
    )
    title = f"Calibration, expected error {error:.4f}"
    _label(axes, title, x="P(positive), mean of the bin", y="share of positive labels")
    _unit_square(axes)
    axes.legend(frameon=False, loc="upper left", markerscale=0.5)
    return figure


def _figure(n_axes: int) -> tuple[Figure, list[Axes]]:
    """Create a figure without pyplot, which would use global state and a display."""
    figure = Figure(figsize=(5.2 * n_axes, 4.4), dpi=120, layout="constrained")
    return figure, [figure.add_subplot(1, n_axes, number + 1) for number in range(n_axes)]


def _line(
    axes: Axes, x: Sequence[int], y: Sequence[float | None], *, name: str, colour: str
) -> None:
    with_gaps = [np.nan if value is None else value for value in y]
    axes.plot(x, with_gaps, color=colour, marker="o", linewidth=2, label=name)
    axes.grid(visible=True, color=GRID)


def _label(axes: Axes, title: str, *, x: str, y: str) -> None:
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def _unit_square(axes: Axes) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(visible=True, color=GRID)
