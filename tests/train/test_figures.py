import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.model.metrics import Confusion
from pipelines.train import figures
from pipelines.train.loop import EpochRow

HISTORY = [EpochRow(1, 0.6, 0.5, 0.7, None, 0.0, None), EpochRow(2, 0.4, 0.45, 0.8, 0.8, 0.7, 0.75)]
RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 2_000)
PROBABILITY = np.clip(RNG.normal(0.3 + 0.4 * LABEL, 0.2), 0.0, 1.0)


def words_of(figure: Figure) -> str:
    texts = [[axes.get_title(), axes.get_xlabel(), axes.get_ylabel()] for axes in figure.axes]
    notes = [[note.get_text() for note in axes.texts] for axes in figure.axes]
    return " | ".join(word for group in (*texts, *notes) for word in group)


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (
            figures.learning_curves(HISTORY),
            ["Loss", "epoch", "cross entropy, nats", "share of reviews"],
        ),
        (figures.learning_curves([]), ["Loss"]),
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
def test_a_figure_says_what_it_shows_and_renders(figure: Figure, words: list[str]) -> None:
    for word in words:
        assert word in words_of(figure)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    assert image.getvalue().startswith(b"\x89PNG")


def test_learning_curves_leave_a_gap_where_a_figure_is_undefined() -> None:
    f1 = figures.learning_curves(HISTORY).axes[1].lines[1].get_ydata()
    assert np.isnan(np.asarray(f1, dtype=float)).tolist() == [True, False]


def test_the_roc_curve_runs_from_corner_to_corner() -> None:
    curve = figures.roc(PROBABILITY, LABEL).axes[0].lines[1].get_xydata()
    assert np.asarray(curve)[[0, -1]].tolist() == [[0.0, 0.0], [1.0, 1.0]]
