"""Checks of the promotion gate: pure functions of figures. A missing figure fails its check."""

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.errors import InputError
from pipelines.model.metrics import confusion_of, expected_calibration_error, mcnemar, point_metrics
from pipelines.tracking.names import CHALLENGER, CHAMPION, PREVIOUS_CHAMPION

# Sentences from the seed that no reader misunderstands: a model that gets one wrong has learned
# something other than the sentiment.
EXAMPLES = (
    ("The worst movie in the history of cinema.", 0),
    ("Turgid dialogue, feeble characterization - Harvey Keitel a judge?", 0),
    ("Best movie I have seen.", 1),
)


@dataclass(frozen=True)
class Limits:
    """Limits that a challenger must meet."""

    # below this p-value the challenger is significantly worse than the champion
    worse_p_value: float = 0.05
    recall_gap: float = 0.05  # maximum difference between the recalls of the two classes
    calibration_error: float = 0.05
    threshold: float = 0.5  # minimum P(positive) of an example that counts as positive


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model for the held-out rows, in their order."""

    prediction: ArrayLike  # (n_rows,) 0 or 1
    probability: ArrayLike | None = None  # (n_rows,) P(positive); the baseline has none


@dataclass(frozen=True)
class Check:
    """Result of one condition of the gate: figures by name, limit if any, and a sentence."""

    name: str
    passed: bool
    figures: dict[str, float]
    limit: float | None
    sentence: str

    def __str__(self) -> str:
        return f"{self.name}: {'passed' if self.passed else 'failed'}, {self.sentence}"


@dataclass(frozen=True)
class Verdict:
    """All checks of one decision."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Return True if all checks passed; a verdict without checks is a refusal."""
        return bool(self.checks) and all(check.passed for check in self.checks)


def judge(
    labels: ArrayLike,
    challenger: Predictions,
    *,
    baseline: Predictions,
    champion: Predictions | None,
    examples: ArrayLike,
    limits: Limits | None = None,
) -> Verdict:
    """Judge a challenger on held-out rows that all three models predicted, and on EXAMPLES.

    labels    (n_rows,) 0 or 1
    examples  (len(EXAMPLES),) the challenger's P(positive)
    """
    limits = limits or Limits()
    checks = (
        beats_baseline(labels, challenger, baseline),
        not_worse_than_champion(labels, challenger, champion=champion, limits=limits),
        example_sentences(examples, limits),
        recall_gap(labels, challenger, limits),
        calibration(labels, challenger, limits),
    )
    return Verdict(checks)


def beats_baseline(labels: ArrayLike, challenger: Predictions, baseline: Predictions) -> Check:
    """Check that the challenger is right more often than the baseline; p is only reported."""
    name = "beats_baseline"
    fault = _fault(labels, {"challenger": challenger.prediction, "baseline": baseline.prediction})
    if fault:
        return _failed(name, fault)
    right = _right(labels, challenger)
    baseline_right = _right(labels, baseline)
    p_value = mcnemar(right, baseline_right).p_value
    accuracy = float(right.mean())
    baseline_accuracy = float(baseline_right.mean())
    return Check(
        name=name,
        passed=int(right.sum()) > int(baseline_right.sum()),
        figures={"accuracy": accuracy, "p_value": p_value},
        limit=baseline_accuracy,
        sentence=f"accuracy {_share(accuracy)} against {_share(baseline_accuracy)} "
        f"({len(right):,} rows, McNemar {_p_value(p_value)})",
    )


def not_worse_than_champion(
    labels: ArrayLike, challenger: Predictions, *, champion: Predictions | None, limits: Limits
) -> Check:
    """Check that the challenger is not significantly worse: exact one-sided McNemar test."""
    name = "not_worse_than_champion"
    limit = limits.worse_p_value
    predictions = {"challenger": challenger.prediction}
    if champion is not None:
        predictions["champion"] = champion.prediction
    fault = _fault(labels, predictions)
    if fault:
        return _failed(name, fault, limit)
    if champion is None:
        return Check(name=name, passed=True, figures={}, limit=limit, sentence="no champion yet")
    paired = mcnemar(_right(labels, challenger), _right(labels, champion))
    return Check(
        name=name,
        passed=paired.p_a_worse >= limit,
        figures={
            "only_challenger": paired.only_a,
            "only_champion": paired.only_b,
            "p_value": paired.p_a_worse,
        },
        limit=limit,
        sentence=f"{paired.only_a:,} rows right that the champion has wrong, "
        f"{paired.only_b:,} the other way round "
        f"(one-sided McNemar {_p_value(paired.p_a_worse)}, limit {_short(limit)})",
    )


def example_sentences(examples: ArrayLike, limits: Limits) -> Check:
    """Check that the challenger predicts every sentence of EXAMPLES correctly."""
    name = "example_sentences"
    probabilities = _numbers(examples)
    fault = _fault_of_probabilities("example", probabilities, len(EXAMPLES))
    if fault:
        return _failed(name, fault)
    wrong = []
    for (text, label), probability in zip(EXAMPLES, probabilities.tolist(), strict=True):
        if (probability >= limits.threshold) != (label == 1):
            wrong.append(f'"{text}" got {_share(probability)}')
    n_right = len(EXAMPLES) - len(wrong)
    return Check(
        name=name,
        passed=not wrong,
        figures={"right": n_right},
        limit=len(EXAMPLES),
        sentence="; ".join([f"{n_right} of {len(EXAMPLES)} right", *wrong]),
    )


def recall_gap(labels: ArrayLike, challenger: Predictions, limits: Limits) -> Check:
    """Check that the recalls of positive and negative reviews are about equal."""
    name = "recall_gap"
    fault = _fault(labels, {"challenger": challenger.prediction})
    if fault:
        return _failed(name, fault, limits.recall_gap)
    truth = _numbers(labels).astype(np.int64)
    predicted = _numbers(challenger.prediction).astype(np.int64)
    gap = point_metrics(confusion_of(truth, predicted))["recall_gap"]
    value = math.nan if gap is None else gap
    return _at_most(name, "recall gap", value=value, limit=limits.recall_gap, n_rows=len(truth))


def calibration(labels: ArrayLike, challenger: Predictions, limits: Limits) -> Check:
    """Check that the challenger's probabilities agree with how often it is right."""
    name = "calibration"
    limit = limits.calibration_error
    truth = _numbers(labels)
    probabilities = _numbers([] if challenger.probability is None else challenger.probability)
    fault = _fault(labels, {}) or _fault_of_probabilities("challenger", probabilities, len(truth))
    if fault:
        return _failed(name, fault, limit)
    value = expected_calibration_error(probabilities, truth.astype(np.int64))
    figure = "expected calibration error"
    return _at_most(name, figure, value=value, limit=limit, n_rows=len(truth))


def as_json(verdict: Verdict) -> str:
    """Return the checks as JSON for ops.promotions.reasons."""
    return json.dumps([dataclasses.asdict(check) for check in verdict.checks], allow_nan=False)


def moves(
    decision: str,
    champion: int | None,
    previous_champion: int | None,
    challenger: int | None = None,
) -> dict[str, int | None]:
    """Return the aliases that a decision changes, with the new version; None = remove it."""
    if decision == "refused":
        return {}
    if decision == "rolled_back":
        if previous_champion in (None, champion):
            raise InputError(
                "--rollback: expected an alias previous_champion, "
                f"found {previous_champion or 'none'}. "
                "Only a champion that replaced another can be rolled back."
            )
        wanted = {CHAMPION: previous_champion, PREVIOUS_CHAMPION: champion}
        if challenger == champion:  # else the next run of the gate would promote it again
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
    current = {PREVIOUS_CHAMPION: previous_champion, CHAMPION: champion, CHALLENGER: challenger}
    return {alias: version for alias, version in wanted.items() if version != current[alias]}


def _at_most(name: str, figure: str, *, value: float, limit: float, n_rows: int) -> Check:
    if math.isnan(value):
        return _failed(name, f"{figure} is NaN", limit)
    return Check(
        name=name,
        passed=value <= limit,
        figures={name: value},
        limit=limit,
        sentence=f"{figure} {_share(value)}, limit {_short(limit)} ({n_rows:,} rows)",
    )


def _failed(name: str, reason: str, limit: float | None = None) -> Check:
    return Check(name=name, passed=False, figures={}, limit=limit, sentence=reason)


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    """Return floats, so that a missing value becomes NaN, not 0."""
    return np.asarray(values, dtype=np.float64)


def _right(labels: ArrayLike, predictions: Predictions) -> NDArray[np.bool_]:
    return np.equal(_numbers(predictions.prediction), _numbers(labels))


def _fault(labels: ArrayLike, predictions: dict[str, ArrayLike]) -> str | None:
    """Return the reason why these rows cannot be judged; None if they can."""
    truth = _numbers(labels)
    if len(truth) == 0:
        return "no held-out rows"
    for source, predicted in {"labels": truth, **predictions}.items():
        values = _numbers(predicted)
        if len(values) != len(truth):
            return f"{source}: expected {len(truth):,} predictions, found {len(values):,}"
        n_other = int((~np.isin(values, (0.0, 1.0))).sum())
        if n_other:
            return (
                f"{source}: expected 0 or 1 in every row, "
                f"found {n_other:,} with NaN or another value"
            )
    for label, word in ((1, "positive"), (0, "negative")):
        if label not in truth:
            return f"no {word} held-out row"
    return None


def _fault_of_probabilities(source: str, values: NDArray[np.float64], n_rows: int) -> str | None:
    """Return the reason why these values, (n_rows,), are no probabilities; None if they are."""
    if len(values) != n_rows:
        return f"{source}: expected {n_rows:,} probabilities, found {len(values):,}"
    is_probability = (values >= 0) & (values <= 1)  # False for NaN
    n_other = int((~is_probability).sum())
    if n_other:
        return (
            f"{source}: expected a probability from 0 to 1 in every row, "
            f"found {n_other:,} with NaN or a value outside"
        )
    return None


def _share(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _short(value: float) -> str:
    return f"{value:g}".removeprefix("0")


def _p_value(value: float) -> str:
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("= 0", "= ")
