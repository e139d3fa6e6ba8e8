"""Metrics against hand-counted, published and limiting values. Needs no Spark."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.model.metrics import (
    Confusion,
    by_slice,
    confusion_of,
    cross_entropy,
    expected_calibration_error,
    fit_blend,
    mcnemar,
    point_metrics,
    roc_auc,
    wilson,
    with_intervals,
    with_length_quartile,
)

# The confusion matrix that the project this one started from has published.
SEED_RESULT = Confusion(tp=902, fp=131, fn=360, tn=1107)


def test_the_seeds_counts_give_the_seeds_metrics() -> None:
    figures = point_metrics(SEED_RESULT)
    rounded = {name: round(value, 4) for name, value in figures.items() if value is not None}
    assert rounded == {
        "accuracy": 0.8036,
        "precision": 0.8732,
        "recall": 0.7147,
        "f1": 0.7861,
        "recall_gap": 0.1794,
    }


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        (Confusion(0, 0, 0, 0), (None, None, None, None, None)),
        (Confusion(0, 0, 0, 5), (1.0, None, None, None, None)),
        (Confusion(0, 0, 2, 2), (0.5, None, 0.0, 0.0, 1.0)),
        (Confusion(3, 0, 0, 0), (1.0, 1.0, 1.0, 1.0, None)),
    ],
)
def test_a_metric_without_rows_is_none(
    confusion: Confusion, expected: tuple[float | None, ...]
) -> None:
    assert tuple(point_metrics(confusion).values()) == expected


def test_confusion_counts_each_pair_of_label_and_prediction() -> None:
    label = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    prediction = np.array([1, 1, 1, 1, 1, 0, 0, 0])
    assert confusion_of(label, prediction) == Confusion(tp=3, fp=2, fn=1, tn=2)
    assert confusion_of(label[:0], prediction[:0]) == Confusion(0, 0, 0, 0)


def test_intervals_enclose_their_value_and_repeat_with_the_seed() -> None:
    intervals = with_intervals(SEED_RESULT, seed=7)
    assert intervals == with_intervals(SEED_RESULT, seed=7)
    assert intervals["f1"] != with_intervals(SEED_RESULT, seed=8)["f1"]
    for name, interval in intervals.items():
        assert interval is not None
        value = interval.value
        assert value == point_metrics(SEED_RESULT)[name]
        assert value - 0.03 < interval.low < value < interval.high < value + 0.03


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals", table I
    [(81, 263, 0.2553, 0.3662), (0, 29, 0.0, 0.1170)],
)
def test_wilson_limits_equal_published_ones(n_right: int, n: int, low: float, high: float) -> None:
    interval = wilson(n_right, n)
    assert interval is not None
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_limits_without_rows_are_none() -> None:
    assert wilson(0, 0) is None
    assert with_intervals(Confusion(0, 0, 0, 4))["f1"] is None


@pytest.mark.parametrize(
    ("probability", "label", "expected"),
    [
        ([0.5] * 4, [0, 1, 0, 1], 0.0),
        ([0.9] * 4, [0, 0, 0, 0], 0.9),
        ([0.9] * 5 + [0.1] * 5, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], 0.1),
        ([0.0, 1.0], [0, 1], 0.0),
    ],
)
def test_calibration_error_is_the_mean_gap(
    probability: list[float], label: list[int], expected: float
) -> None:
    error = expected_calibration_error(np.array(probability), np.array(label))
    assert error == pytest.approx(expected)


@pytest.mark.parametrize(
    ("label", "expected"),
    [([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0), ([0, 1, 0, 1], 0.75), ([1, 1, 1, 1], None)],
)
def test_roc_auc_ranks_the_reviews(label: list[int], expected: float | None) -> None:
    assert roc_auc(np.array([0.1, 0.2, 0.3, 0.4]), np.array(label)) == expected


def test_slices_count_their_own_rows() -> None:
    frame = pd.DataFrame(
        {
            "label": [1, 0, 1, 0],
            "prediction": [1, 1, 1, 0],
            "source": ["imdb", "imdb", "rt", "imdb"],
        }
    )
    slices = by_slice(frame, ["source"])
    counts = slices[["slice", "value", "n"]].to_numpy().tolist()
    assert counts == [["source", "imdb", 3], ["source", "rt", 1]]
    assert slices["accuracy"].tolist() == pytest.approx([2 / 3, 1.0])
    assert (slices["low"] < slices["accuracy"]).all()
    assert (slices["accuracy"] <= slices["high"]).all()
    assert by_slice(frame[:0], ["source"]).empty


@pytest.mark.parametrize(
    ("n_tokens", "expected"),
    [
        ([10, 20, 30, 40], [1, 2, 3, 4]),
        ([40, 10, 30, 20], [4, 1, 3, 2]),
        ([5, 5, 5, 5], [1, 1, 1, 1]),
    ],
)
def test_length_quartile_1_is_the_shortest(n_tokens: list[int], expected: list[int]) -> None:
    frame = with_length_quartile(pd.DataFrame({"n_tokens": n_tokens}))
    assert frame["length_quartile"].tolist() == expected


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value", "p_a_worse"),
    [
        (0, 0, 1.0, 1.0),
        (1, 9, 22 / 1024, 11 / 1024),
        (9, 1, 22 / 1024, 1023 / 1024),
        (3, 3, 1.0, 42 / 64),
    ],
)
def test_mcnemar_is_exact(only_a: int, only_b: int, p_value: float, p_a_worse: float) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True, False])
    b = np.array([False] * only_a + [True] * only_b + [True, False])
    comparison = mcnemar(a, b)
    assert (comparison.only_a, comparison.only_b) == (only_a, only_b)
    assert comparison.p_value == pytest.approx(p_value)
    assert comparison.p_a_worse == pytest.approx(p_a_worse)


def test_mcnemar_rejects_different_rows() -> None:
    with pytest.raises(ValueError, match="expected the same rows for both, found 2 and 3"):
        mcnemar(np.array([True] * 2), np.array([True] * 3))


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_cancels_a_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0.0, 2.0, 20_000)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-margin))).astype(np.int64)
    logits = np.stack([np.zeros_like(margin), margin * scale], axis=1).astype(np.float32)
    blend = fit_blend(logits, np.zeros(len(label)), label)
    temperature = blend["temperature"]
    assert temperature == pytest.approx(scale, rel=0.05)
    assert blend["lexical_weight"] == 0.0
    assert blend["bias"] == pytest.approx(0.0, abs=0.1 * scale)
    assert cross_entropy(logits, label, temperature) <= cross_entropy(logits, label)


@pytest.mark.parametrize(
    ("encoder", "lexical", "bias"), [(1.0, 0.5, 0.0), (0.5, 2.0, 1.0), (1.0, 0.0, -2.0)]
)
def test_the_blend_recovers_the_weights_and_the_bias(
    encoder: float, lexical: float, bias: float
) -> None:
    rng = np.random.default_rng(0)
    deep, wide = rng.normal(0.0, 2.0, (2, 40_000))
    probability = 1 / (1 + np.exp(-encoder * deep - lexical * wide - bias))
    label = (rng.random(40_000) < probability).astype(np.int64)
    logits = np.stack([np.zeros_like(deep), deep], axis=1).astype(np.float32)
    blend = fit_blend(logits, wide, label)
    temperature = blend["temperature"]
    assert 1 / temperature == pytest.approx(encoder, abs=0.07)
    assert blend["lexical_weight"] / temperature == pytest.approx(lexical, abs=0.07)
    assert blend["bias"] / temperature == pytest.approx(bias, abs=0.07)


def test_a_part_that_predicts_the_opposite_gets_no_negative_weight() -> None:
    margin = np.linspace(-3.0, 3.0, 1_001)
    label = (margin > 0).astype(np.int64)
    logits = np.stack([np.zeros_like(margin), margin], axis=1).astype(np.float32)
    assert fit_blend(logits, -margin, label)["lexical_weight"] == 0.0
    temperature = fit_blend(-logits, margin, label)["temperature"]
    assert temperature == pytest.approx(20)  # the encoder's smallest share


@given(
    st.lists(st.tuples(st.floats(-900, 900, width=32), st.integers(0, 1)), min_size=1, max_size=30)
)
def test_cross_entropy_is_finite_for_any_margin(rows: list[tuple[float, int]]) -> None:
    logits = np.array([[0.0, margin] for margin, _ in rows], dtype=np.float32)
    loss = cross_entropy(logits, np.array([label for _, label in rows]))
    assert np.isfinite(loss)
    assert loss >= 0


def test_cross_entropy_of_equal_logits_is_log_2() -> None:
    loss = cross_entropy(np.zeros((3, 2), np.float32), np.array([0, 1, 1]))
    assert loss == pytest.approx(np.log(2))
