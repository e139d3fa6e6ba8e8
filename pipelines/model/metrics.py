"""Metrics of a classifier on held-out rows.

A metric whose denominator is 0 is None, never 0 and never NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import binomtest

CONFIDENCE = 0.95
TEMPERATURES = (0.05, 20.0)  # beyond these a model is broken, not badly calibrated
MAX_SHARE = 20.0  # of the lexical margin, and of the bias; about 1 if both parts are useful
LENGTH_QUARTILE = "length_quartile"


@dataclass(frozen=True)
class Confusion:
    """Counts of true and false positives, and of false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class Interval:
    """A metric with its 95 % confidence limits."""

    value: float
    low: float
    high: float


class McNemar(NamedTuple):
    """Paired comparison of the classifiers a and b on the same rows."""

    only_a: int  # rows that only a predicts correctly
    only_b: int  # rows that only b predicts correctly
    p_value: float  # exact p-value of "a and b are equally good"
    p_a_worse: float  # exact p-value of "a is not worse than b"


def confusion_of(label: NDArray[np.int64], prediction: NDArray[np.int64]) -> Confusion:
    """Count labels against predictions, both 0 or 1."""
    counts = np.bincount(2 * label + prediction, minlength=4)  # (4,) tn, fp, fn, tp
    return Confusion(tp=int(counts[3]), fp=int(counts[1]), fn=int(counts[2]), tn=int(counts[0]))


def point_metrics(confusion: Confusion) -> dict[str, float | None]:
    """Return accuracy, precision, recall and f1 of class 1, and recall_gap.

    recall_gap is |recall of class 1 - recall of class 0|.
    """
    c = confusion
    recall = _ratio(c.tp, c.tp + c.fn)
    recall_negative = _ratio(c.tn, c.tn + c.fp)
    recall_gap = None
    if recall is not None and recall_negative is not None:
        recall_gap = abs(recall - recall_negative)
    return {
        "accuracy": _ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn),
        "precision": _ratio(c.tp, c.tp + c.fp),
        "recall": recall,
        "f1": _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn),
        "recall_gap": recall_gap,
    }


def with_intervals(
    confusion: Confusion, seed: int = 0, n_resamples: int = 2_000
) -> dict[str, Interval | None]:
    """Return accuracy, precision and recall with Wilson limits, and f1 with bootstrap limits.

    The bootstrap resamples rows with a seed; its limits are percentiles.
    """
    c = confusion
    return {
        "accuracy": wilson(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn),
        "precision": wilson(c.tp, c.tp + c.fp),
        "recall": wilson(c.tp, c.tp + c.fn),
        "f1": _bootstrap_f1(c, seed, n_resamples),
    }


def wilson(n_right: int, n: int) -> Interval | None:
    """Return a share with its Wilson limits, or None if there are no rows."""
    if n == 0:
        return None
    limits = binomtest(n_right, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(value=n_right / n, low=float(limits.low), high=float(limits.high))


def calibration_bins(
    probability: NDArray[np.float64], label: NDArray[np.int64], bins: int = 15
) -> pd.DataFrame:
    """Bin P(positive) by equal width: n, mean_probability and positive_share of each bin.

    Empty bins are left out.
    """
    number = np.minimum((probability * bins).astype(np.int64), bins - 1)  # (N,) bin of each row
    rows = pd.DataFrame({"bin": number, "probability": probability, "label": label})
    return rows.groupby("bin").agg(
        n=("label", "size"),
        mean_probability=("probability", "mean"),
        positive_share=("label", "mean"),
    )


def expected_calibration_error(
    probability: NDArray[np.float64], label: NDArray[np.int64], bins: int = 15
) -> float:
    """Average |mean P(positive) - share of positives| of each row's bin; 0 = calibrated."""
    by_bin = calibration_bins(probability, label, bins)
    gaps = (by_bin["mean_probability"] - by_bin["positive_share"]).abs()
    return float(np.average(gaps, weights=by_bin["n"]))


def roc_auc(probability: NDArray[np.float64], label: NDArray[np.int64]) -> float | None:
    """Return the area under the ROC curve, or None if one class is absent."""
    from sklearn.metrics import roc_auc_score  # it takes a second that the gate can do without

    has_both_classes = 0 < label.sum() < len(label)
    return float(roc_auc_score(label, probability)) if has_both_classes else None


def with_length_quartile(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `length_quartile`, from 1 (shortest) to 4 (longest), by n_tokens.

    Equal lengths are in the same quartile.
    """
    n_tokens = frame["n_tokens"]
    limits = n_tokens.quantile([0.25, 0.5, 0.75]).to_numpy()
    quartile = np.searchsorted(limits, n_tokens.to_numpy(), side="left") + 1
    return frame.assign(**{LENGTH_QUARTILE: quartile})


def by_slice(frame: pd.DataFrame, slices: Sequence[str]) -> pd.DataFrame:
    """Return the accuracy for each value of the given columns.

    frame    has the columns label and prediction, and those of `slices`
    returns  columns slice, value, n, accuracy, low, high
    """
    rows = []
    for name in slices:
        for value, part in frame.groupby(name, sort=True):
            n_right = int((part["label"] == part["prediction"]).sum())
            accuracy = wilson(n_right, len(part))
            if accuracy is not None:  # groupby gives no empty group
                limits = (accuracy.value, accuracy.low, accuracy.high)
                rows.append((name, str(value), len(part), *limits))
    return pd.DataFrame(rows, columns=["slice", "value", "n", "accuracy", "low", "high"])


def mcnemar(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_]) -> McNemar:
    """Compare two classifiers on the same rows by the exact McNemar test.

    A small p_a_worse means that a is worse than b.
    """
    if len(correct_a) != len(correct_b):
        raise ValueError(
            f"expected the same rows for both, found {len(correct_a)} and {len(correct_b)}"
        )
    only_a = int((correct_a & ~correct_b).sum())
    only_b = int((~correct_a & correct_b).sum())
    n_apart = only_a + only_b
    if n_apart == 0:
        return McNemar(only_a=0, only_b=0, p_value=1.0, p_a_worse=1.0)
    return McNemar(
        only_a=only_a,
        only_b=only_b,
        p_value=float(binomtest(only_a, n_apart, 0.5).pvalue),
        p_a_worse=float(binomtest(only_a, n_apart, 0.5, "less").pvalue),
    )


def cross_entropy(
    logits: NDArray[np.float32], label: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Return the mean negative log-likelihood in nats."""
    margin = np.diff(logits.astype(np.float64), axis=1)[:, 0] / temperature  # (N,)
    wrong = np.where(label == 1, -margin, margin)  # (N,) log-odds of the wrong label
    return float(np.mean(np.logaddexp(0.0, wrong)))


def fit_blend(
    logits: NDArray[np.float32], lexical_margin: NDArray[np.float64], label: NDArray[np.int64]
) -> dict[str, float]:
    """Fit temperature, lexical_weight and bias to the lowest cross entropy on validation rows.

    P(positive) = sigmoid((margin of the logits + weight x lexical margin + bias) / temperature).
    A lexical margin of 0 everywhere gets weight 0. Without the bias a model may favour one class.
    Source: Platt 1999, "Probabilistic Outputs", with a second margin.
    """
    encoder = np.diff(logits.astype(np.float64), axis=1)[:, 0]  # (N,)
    margins = np.stack([encoder, lexical_margin, np.ones_like(encoder)], axis=1)  # (N, 3)
    sign = np.where(label == 1, -1.0, 1.0)  # (N,)

    def loss(shares: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        wrong = sign * (margins @ shares)  # (N,)
        slope = sign / (1.0 + np.exp(-np.clip(wrong, -700, 700)))  # (N,)
        return float(np.logaddexp(0.0, wrong).mean()), slope @ margins / len(label)

    limits = [
        (1 / TEMPERATURES[1], 1 / TEMPERATURES[0]),
        (0.0, MAX_SHARE),
        (-MAX_SHARE, MAX_SHARE),
    ]
    start = np.array([1.0, 0.0, 0.0])
    fitted = minimize(loss, x0=start, jac=True, bounds=limits, method="L-BFGS-B")
    share, lexical, bias = fitted.x.tolist()
    return {"temperature": 1 / share, "lexical_weight": lexical / share, "bias": bias / share}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _bootstrap_f1(confusion: Confusion, seed: int, n_resamples: int) -> Interval | None:
    """Bootstrap rows by drawing the four counts from a multinomial: equivalent."""
    counts = np.array([confusion.tp, confusion.fp, confusion.fn, confusion.tn])
    value = point_metrics(confusion)["f1"]
    if value is None:
        return None
    n_rows = counts.sum()
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_rows, counts / n_rows, size=n_resamples)  # (n_resamples, 4)
    wrong = drawn[:, 1] + drawn[:, 2]
    scores = 2 * drawn[:, 0] / np.maximum(2 * drawn[:, 0] + wrong, 1)  # (n_resamples,)
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(low), high=float(high))
