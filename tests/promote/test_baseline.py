"""The TF-IDF baseline learns words and word pairs, and refuses invalid input. Needs no Spark."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import InputError
from pipelines.promote.baseline import fit_baseline, predict

TEXTS = [
    "a good film",
    "good fun",
    "a bad film",
    "bad and dull",
    "good good",
    "so bad",
    "good film",
    "bad film",
]
LABELS = [1, 1, 0, 0, 1, 0, 1, 0]


def test_the_baseline_learns_the_words_of_each_label() -> None:
    baseline = fit_baseline(TEXTS, LABELS)
    cases = [("good", 1), ("bad", 0), ("a good film indeed", 1), ("a bad film indeed", 0)]
    assert predict(baseline, [text for text, _ in cases]).tolist() == [label for _, label in cases]


def test_word_pairs_count_too() -> None:
    texts = ["not good", "good", "not bad", "bad"] * 3
    baseline = fit_baseline(texts, [0, 1, 1, 0] * 3)
    assert predict(baseline, ["not good", "not bad"]).tolist() == [0, 1]


@pytest.mark.parametrize(
    "column", [pa.array(TEXTS), pa.chunked_array([TEXTS[:3], TEXTS[3:]])], ids=["array", "chunks"]
)
def test_arrow_columns_give_the_coefficients_that_lists_give(column: pa.Array) -> None:
    from_lists = fit_baseline(TEXTS, LABELS)
    from_arrow = fit_baseline(column, pa.array(LABELS))
    assert np.array_equal(from_lists["regression"].coef_, from_arrow["regression"].coef_)
    assert predict(from_arrow, column).tolist() == predict(from_lists, TEXTS).tolist()


@pytest.mark.parametrize(
    ("labels", "classes"), [([1, 1], r"\[1\]"), ([0], r"\[0\]"), ([], "no row"), ([0, 1, 2], "2")]
)
def test_labels_other_than_both_classes_are_refused_and_listed(
    labels: list[int], classes: str
) -> None:
    with pytest.raises(InputError, match=rf"baseline: expected labels 0 and 1, found .*{classes}"):
        fit_baseline(["x"] * len(labels), labels)


def test_fewer_texts_than_labels_are_refused() -> None:
    words = r"cannot fit 2 labels: .*inconsistent numbers of samples: \[3, 2\]"
    with pytest.raises(InputError, match=words):
        fit_baseline(["good film"] * 3, [0, 1])


def test_texts_without_a_word_are_refused() -> None:
    with pytest.raises(InputError, match="empty vocabulary"):
        fit_baseline(["!", "?"], [0, 1])


def test_no_text_gives_no_prediction() -> None:
    assert predict(fit_baseline(TEXTS, LABELS), []).tolist() == []
