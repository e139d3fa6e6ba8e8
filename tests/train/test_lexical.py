"""The linear part of the model: tf-idf as in scikit-learn, pairs, blending. Needs no Spark."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfTransformer

from pipelines.errors import InputError
from pipelines.model.classifier import Lexical, Policy, blended, tf_idf
from pipelines.train.lexical import fit_lexical

N_TOKENS, N_PAIRS = 50, 2**12


def bodies(*rows: list[int]) -> list[NDArray[np.int32]]:
    return [np.array(row, dtype=np.int32) for row in rows]


def drawn(n_rows: int, seed: int) -> tuple[list[NDArray[np.int32]], NDArray[np.int64]]:
    """Draw rows of random tokens; positive rows also contain token 1, negative rows token 2."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n_rows)
    others = [rng.integers(3, N_TOKENS, rng.integers(0, 40)).tolist() for _ in labels]
    rows = [[*row, 1 if label else 2] for row, label in zip(others, labels, strict=True)]
    return bodies(*rows), labels


def accuracy(lexical: Lexical, rows: list[NDArray[np.int32]], labels: NDArray[np.int64]) -> float:
    """Return the share of rows whose margin has the label's sign."""
    return float(np.mean((lexical.margin(rows) > 0) == labels))


def test_values_equal_those_of_scikit_learns_sublinear_tf_idf() -> None:
    rows, _ = drawn(200, 0)
    counts = csr_matrix(np.array([np.bincount(row, minlength=N_TOKENS) for row in rows]))
    oracle = TfidfTransformer(sublinear_tf=True)
    expected = oracle.fit_transform(counts).toarray()
    terms = tf_idf(rows, oracle.idf_.astype(np.float32), N_TOKENS)
    values = np.zeros_like(expected)
    values[terms.rows, terms.ids] = terms.values
    np.testing.assert_allclose(values, expected, atol=1e-6)
    fitted = fit_lexical(rows, np.arange(200) % 2, n_tokens=N_TOKENS, n_pairs=0)
    np.testing.assert_allclose(fitted.idf, oracle.idf_, rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([], -0.5),
        ([0], 1.5),
        ([0, 0, 0], 1.5),
        ([1], -4.5),
        ([0, 1], (2 * 1 - 4 * 2) / 5**0.5 - 0.5),
    ],
)
def test_the_margin_is_the_weighted_sum_of_unit_length_values(
    row: list[int], expected: float
) -> None:
    lexical = Lexical(np.array([1, 2], np.float32), np.array([2, -4], np.float32), -0.5, n_tokens=2)
    assert lexical.margin(bodies(row, [0]))[0] == pytest.approx(expected)
    assert len(lexical.margin([])) == 0


def test_it_learns_the_labels_and_equal_rows_give_equal_bits() -> None:
    rows, labels = drawn(400, 1)
    first = fit_lexical(rows, labels, n_tokens=N_TOKENS, n_pairs=N_PAIRS)
    again = fit_lexical(rows, labels, n_tokens=N_TOKENS, n_pairs=N_PAIRS)
    unseen, truth = drawn(400, 2)
    assert accuracy(first, unseen, truth) > 0.95
    assert first.weight[1] > 1
    assert first.weight[2] < -1
    assert first.weight.tobytes() == again.weight.tobytes()
    with_other_labels = fit_lexical(rows, labels[::-1], n_tokens=N_TOKENS, n_pairs=N_PAIRS)
    assert accuracy(with_other_labels, unseen, truth) < 0.65


def test_pairs_of_tokens_separate_rows_that_single_tokens_do_not() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    ends = [(1, 2) if label else (2, 1) for label in labels]
    rows = bodies(*[[*rng.integers(5, N_TOKENS, 10).tolist(), *end] for end in ends])
    train, train_labels = rows[:200], labels[:200]
    unseen, truth = rows[200:], labels[200:]
    without_pairs = fit_lexical(train, train_labels, n_tokens=N_TOKENS, n_pairs=0)
    with_pairs = fit_lexical(train, train_labels, n_tokens=N_TOKENS, n_pairs=N_PAIRS)
    assert accuracy(without_pairs, unseen, truth) < 0.65
    assert accuracy(with_pairs, unseen, truth) > 0.95


def test_a_single_class_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"^train split: expected labels 0 and 1, found \[1\]\. Ingest both\.$"
    ):
        fit_lexical(bodies([1], [2]), np.array([1, 1]), n_tokens=N_TOKENS, n_pairs=N_PAIRS)


def test_the_blend_changes_the_positive_logit_only_and_keeps_nan() -> None:
    logits = np.array([[1.0, 2.0], [0.0, np.nan]], np.float32)
    moved = blended(logits, np.array([0.5, 1.0]), Policy(lexical_weight=2.0, bias=-0.25))
    np.testing.assert_array_equal(moved, np.array([[1.0, 2.75], [0.0, np.nan]], np.float32))
    assert blended(logits, np.array([0.5, 1.0]), Policy()).tobytes() == logits.tobytes()
    assert blended(logits, 0.0, Policy(bias=1.0))[0].tolist() == [1.0, 3.0]
