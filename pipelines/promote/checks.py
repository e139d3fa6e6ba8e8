"""The promotion gate: may a challenger become the champion? Pure figures in, a verdict out; what is missing fails."""

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.model.metrics import confusion_of, expected_calibration_error, mcnemar, point_metrics
from pipelines.tracking.names import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION

# Unambiguous to any reader: a model that gets one wrong has learned something else than sentiment. From the seed.
EXAMPLES = (
    ("The worst movie in the history of cinema.", 0),
    ("Turgid dialogue, feeble characterization - Harvey Keitel a judge?", 0),
    ("Best movie I have seen.", 1),
)


@dataclass(frozen=True)
class Limits:
    """What a challenger must keep to."""

    worse_p_value: float = (
        0.05  # below it, chance does not explain that the challenger is worse than the champion
    )
    recall_gap: float = 0.05  # between the recalls of the two classes
    calibration_error: float = 0.05
    threshold: float = 0.5  # P(positive) from which an example sentence counts as positive


@dataclass(frozen=True)
class Predictions:
    """What one model says of the held-out rows, in the rows' order; the baseline has no probability."""

    prediction: ArrayLike
    probability: ArrayLike | None = None


@dataclass(frozen=True)
class Check:
    """One condition of the gate, its figures by name, its limit where it has one, and both in words."""

    name: str
    passed: bool
    figures: dict[str, float]
    limit: float | None
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {'passed' if self.passed else 'failed'}, {self.sentence}"


@dataclass(frozen=True)
class Verdict:
    """Every check of one decision."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed; a verdict without checks is a refusal."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def judge(
    labels: ArrayLike,
    challenger: Predictions,
    baseline: Predictions,
    champion: Predictions | None,
    examples: ArrayLike,
    limits: Limits | None = None,
) -> Verdict:
    """Judge a challenger on held-out rows that all three predicted, and on its P(positive) of EXAMPLES."""
    limits = limits or Limits()
    return Verdict(
        (
            beats_baseline(labels, challenger, baseline),
            not_worse_than_champion(labels, challenger, champion, limits),
            example_sentences(examples, limits),
            recall_gap(labels, challenger, limits),
            calibration(labels, challenger, limits),
        )
    )


def beats_baseline(labels: ArrayLike, challenger: Predictions, baseline: Predictions) -> Check:
    """Whether the challenger is right more often than the baseline; the test's p is told, not judged by."""
    name = "beats_baseline"
    fault = _fault(labels, {"challenger": challenger.prediction, "baseline": baseline.prediction})
    if fault:
        return _failed(name, fault)
    right, baseline_right = _right(labels, challenger), _right(labels, baseline)
    p_value = mcnemar(right, baseline_right).p_value
    accuracy, baseline_accuracy = float(right.mean()), float(baseline_right.mean())
    return Check(
        name,
        int(right.sum()) > int(baseline_right.sum()),
        {"accuracy": accuracy, "p_value": p_value},
        baseline_accuracy,
        f"accuracy {_share(accuracy)} against {_share(baseline_accuracy)} "
        f"({len(right):,} rows, McNemar {_p_value(p_value)})",
    )


def not_worse_than_champion(
    labels: ArrayLike, challenger: Predictions, champion: Predictions | None, limits: Limits
) -> Check:
    """Whether the same rows leave it open that the challenger is as good as the champion: exact McNemar, one-sided."""
    name = "not_worse_than_champion"
    given = {"challenger": challenger.prediction} | (
        {"champion": champion.prediction} if champion else {}
    )
    fault = _fault(labels, given)
    if fault:
        return _failed(name, fault, limits.worse_p_value)
    if champion is None:
        return Check(name, True, {}, limits.worse_p_value, "no champion yet")
    found = mcnemar(_right(labels, challenger), _right(labels, champion))
    return Check(
        name,
        found.p_a_worse >= limits.worse_p_value,
        {
            "only_challenger": found.only_a,
            "only_champion": found.only_b,
            "p_value": found.p_a_worse,
        },
        limits.worse_p_value,
        f"{found.only_a:,} rows right that the champion has wrong, {found.only_b:,} the other way round "
        f"(one-sided McNemar {_p_value(found.p_a_worse)}, limit {_short(limits.worse_p_value)})",
    )


def example_sentences(examples: ArrayLike, limits: Limits) -> Check:
    """Whether the challenger has every sentence of EXAMPLES right."""
    name = "example_sentences"
    probability = _numbers(examples)
    fault = _fault_of_shares("example", probability, len(EXAMPLES))
    if fault:
        return _failed(name, fault)
    wrong = [
        f'"{text}" got {_share(p)}'
        for (text, label), p in zip(EXAMPLES, probability.tolist(), strict=True)
        if (p >= limits.threshold) != (label == 1)
    ]
    n_right = len(EXAMPLES) - len(wrong)
    sentence = "; ".join([f"{n_right} of {len(EXAMPLES)} right", *wrong])
    return Check(name, not wrong, {"right": n_right}, len(EXAMPLES), sentence)


def recall_gap(labels: ArrayLike, challenger: Predictions, limits: Limits) -> Check:
    """Whether the challenger finds positive and negative reviews about equally well."""
    name = "recall_gap"
    fault = _fault(labels, {"challenger": challenger.prediction})
    if fault:
        return _failed(name, fault, limits.recall_gap)
    truth, predicted = (
        _numbers(labels).astype(np.int64),
        _numbers(challenger.prediction).astype(np.int64),
    )
    gap = point_metrics(confusion_of(truth, predicted))["recall_gap"]
    return _at_most(
        name, "recall gap", math.nan if gap is None else gap, limits.recall_gap, len(truth)
    )


def calibration(labels: ArrayLike, challenger: Predictions, limits: Limits) -> Check:
    """Whether the challenger's probabilities are about as often right as they say."""
    name = "calibration"
    probability = _numbers([] if challenger.probability is None else challenger.probability)
    fault = _fault(labels, {}) or _fault_of_shares("challenger", probability, len(_numbers(labels)))
    if fault:
        return _failed(name, fault, limits.calibration_error)
    error = expected_calibration_error(probability, _numbers(labels).astype(np.int64))
    return _at_most(
        name, "expected calibration error", error, limits.calibration_error, len(probability)
    )


def as_json(verdict: Verdict) -> str:
    """The checks as JSON for ops.promotions.reasons."""
    return json.dumps([dataclasses.asdict(check) for check in verdict.checks], allow_nan=False)


def moves(
    decision: str,
    champion: int | None,
    previous_champion: int | None,
    challenger: int | None = None,
) -> dict[str, int | None]:
    """Aliases to set after a decision of ops.promotions, only those that change; None = remove the alias."""
    if decision == "refused":
        return {}
    if decision == "rolled_back":
        if previous_champion in (None, champion):
            found = f"expected an alias previous_champion, found {previous_champion or 'none'}"
            raise InputError(
                f"--rollback: {found}. Only a champion that replaced another can be rolled back."
            )
        wanted = {CHAMPION: previous_champion, PREVIOUS_CHAMPION: champion}
        if challenger == champion:  # or the next run of the gate would promote it again
            wanted[CHALLENGER] = None
    elif decision == "promoted":
        if challenger is None:
            raise InputError(
                "promote: expected an alias challenger, found none. Run jobs/train.py first."
            )
        if challenger == champion:
            return {}
        wanted = {PREVIOUS_CHAMPION: champion, CHAMPION: challenger}
    else:
        raise ValueError(f"decision must be promoted, refused or rolled_back, got {decision!r}")
    now = {PREVIOUS_CHAMPION: previous_champion, CHAMPION: champion, CHALLENGER: challenger}
    return {alias: version for alias, version in wanted.items() if version != now[alias]}


def _at_most(name: str, figure: str, value: float, limit: float, n_rows: int) -> Check:
    if math.isnan(value):
        return _failed(name, f"{figure} is NaN", limit)
    sentence = f"{figure} {_share(value)}, limit {_short(limit)} ({n_rows:,} rows)"
    return Check(name, value <= limit, {name: value}, limit, sentence)


def _failed(name: str, reason: str, limit: float | None = None) -> Check:
    return Check(name, False, {}, limit, reason)


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    """Floats, so that a missing value is a NaN to be found and not a 0."""
    return np.asarray(values, dtype=np.float64)


def _right(labels: ArrayLike, predictions: Predictions) -> NDArray[np.bool_]:
    return np.equal(_numbers(predictions.prediction), _numbers(labels))


def _fault(labels: ArrayLike, predictions: dict[str, ArrayLike]) -> str | None:
    """Why these rows cannot be judged by; None where they can."""
    truth = _numbers(labels)
    if len(truth) == 0:
        return "no held-out rows"
    for who, values in {"labels": truth, **predictions}.items():
        found = _numbers(values)
        if len(found) != len(truth):
            return f"{who}: expected {len(truth):,} predictions, found {len(found):,}"
        n_other = int((~np.isin(found, (0.0, 1.0))).sum())
        if n_other:
            return (
                f"{who}: expected 0 or 1 in every row, found {n_other:,} with NaN or another value"
            )
    absent = [word for value, word in ((1, "positive"), (0, "negative")) if value not in truth]
    return f"no {absent[0]} row held out" if absent else None


def _fault_of_shares(who: str, probability: NDArray[np.float64], n_expected: int) -> str | None:
    if len(probability) != n_expected:
        return f"{who}: expected {n_expected:,} probabilities, found {len(probability):,}"
    n_other = int((~((probability >= 0) & (probability <= 1))).sum())
    return (
        f"{who}: expected a probability of 0-1 in every row, found {n_other:,} NaN or outside"
        if n_other
        else None
    )


def _share(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _short(value: float) -> str:
    return f"{value:g}".removeprefix("0")


def _p_value(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("= 0", "= ")
