"""The figures of a training draw every point and label it. Needs no Spark."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipelines.model.metrics import Confusion
from pipelines.train import figures
from pipelines.train.loop import EpochRow

HISTORY = [EpochRow(1, 0.6, 0.5, 0.7, None, 0.0, None), EpochRow(2, 0.4, 0.45, 0.8, 0.8, 0.7, 0.75)]
RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 2_000)
LOSSES = [0.7, 0.6, 0.5, 0.45, 0.4, 0.35]  # of six steps in two epochs
PROBABILITY = np.clip(RNG.normal(0.3 + 0.4 * LABEL, 0.2), 0.0, 1.0)


def words_of(figure: Figure) -> str:
    texts = [[axes.get_title(), axes.get_xlabel(), axes.get_ylabel()] for axes in figure.axes]
    notes = [[note.get_text() for note in axes.texts] for axes in figure.axes]
    return " | ".join(word for group in (*texts, *notes) for word in group)


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (
            figures.learning_curves(HISTORY, LOSSES),
            [
                "Loss",
                "step",
                "dotted: end of an epoch",
                "cross entropy, nats",
                "epoch",
                "share of reviews",
            ],
        ),
        (
            figures.learning_curves(HISTORY[:1], LOSSES),
            ["Loss", "step", "Validation metrics after epoch 1", "70.0%", "undefined", "0.0%"],
        ),
        (figures.learning_curves([], []), ["Loss"]),
        (
            figures.confusion_matrix(Confusion(tp=902, fp=131, fn=360, tn=1107)),
            [
                "2,500 reviews",
                "predicted",
                "902\n71.5%",
                "131\n10.6%",
                "360\n28.5%",
                "1,107\n89.4%",
            ],
        ),
        (figures.confusion_matrix(Confusion(0, 0, 0, 0)), ["0 reviews", "0\n0.0%"]),
        (
            figures.roc(PROBABILITY, LABEL),
            ["ROC curve, area 0.9", "false positive rate", "true positive rate"],
        ),
        (figures.roc(PROBABILITY, np.ones_like(LABEL)), ["one class is absent"]),
        (
            figures.calibration(PROBABILITY, LABEL),
            ["expected error 0.", "P(positive)", "share of positive labels"],
        ),
    ],
)
def test_a_figure_has_its_labels_and_renders(figure: Figure, words: list[str]) -> None:
    for word in words:
        assert word in words_of(figure)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    assert image.getvalue().startswith(b"\x89PNG")


def test_learning_curves_have_a_gap_for_an_undefined_metric() -> None:
    f1 = figures.learning_curves(HISTORY, LOSSES).axes[1].lines[1].get_ydata()
    assert np.isnan(np.asarray(f1, dtype=float)).tolist() == [True, False]


def points(figure: Figure, label: str) -> list[list[float]]:
    """Return [x, y] of every point of a line of the first axes, by its name in the legend."""
    [line] = [line for line in figure.axes[0].lines if str(line.get_label()) == label]
    return [[float(x), float(y)] for x, y in np.asarray(line.get_xydata())]


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_the_training_loss_has_a_point_for_each_step_and_a_running_mean(n_epochs: int) -> None:
    losses = RNG.random(600)
    history = [EpochRow(epoch + 1, 0.4, 0.5, 0.8, 0.8, 0.7, 0.75) for epoch in range(n_epochs)]
    figure = figures.learning_curves(history, losses.tolist())
    drawn = points(figure, "training, each step")
    assert drawn == [[step + 1, loss] for step, loss in enumerate(losses)]
    mean = points(figure, "training, mean of 30 steps")
    assert [mean[0][0], mean[-1][0], len(mean)] == [30, 600, 571]
    assert mean[0][1] == pytest.approx(losses[:30].mean())
    assert mean[-1][1] == pytest.approx(losses[-30:].mean())


def test_the_validation_loss_is_drawn_at_the_last_step_of_each_epoch() -> None:
    figure = figures.learning_curves(HISTORY, LOSSES)
    assert points(figure, "validation") == [[3, 0.5], [6, 0.45]]
    boundaries = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
    assert [np.asarray(line.get_xdata()).tolist() for line in boundaries] == [[3, 3]]
    [at] = points(figures.learning_curves(HISTORY[:1], LOSSES), "validation")
    assert at == [6, 0.5]


def test_a_single_epoch_has_a_bar_for_each_metric_and_no_line() -> None:
    row = EpochRow(1, 0.4, 0.5, 0.8, None, 0.7, 0.75)
    axes = figures.learning_curves([row], LOSSES).axes[1]
    bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
    assert [bar.get_height() for bar in bars] == [0.8, 0.0, 0.7, 0.75]
    assert [note.get_text() for note in axes.texts] == ["80.0%", "undefined", "70.0%", "75.0%"]
    assert len(axes.lines) == 0


def test_the_roc_curve_runs_from_corner_to_corner() -> None:
    curve = figures.roc(PROBABILITY, LABEL).axes[0].lines[1].get_xydata()
    assert np.asarray(curve)[[0, -1]].tolist() == [[0.0, 0.0], [1.0, 1.0]]
