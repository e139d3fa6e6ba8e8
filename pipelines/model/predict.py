"""Score texts: one row per text, with a score or the reason why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipelines.errors import IntegrityError

SCORE_COLUMNS = ("probability", "prediction", "is_truncated", "score_error")

# Returns the columns probability, prediction and is_truncated, one row per text, in order.
Predict = Callable[[list[str]], pd.DataFrame]
Score = tuple[float | None, int | None, bool, str | None]  # the values of SCORE_COLUMNS


@dataclass(frozen=True)
class VerifiedModel:
    """A version of a registered model whose files are those of its manifest."""

    run_id: str  # of its training, in MLflow
    manifest_sha256: str
    load: Callable[[], Predict]  # in a worker


# Errors that one bad text can cause in the tokenizer or in torch. Others are not the text's fault.
TEXT_FAULTS = (RuntimeError, ValueError, TypeError, KeyError, IndexError)


def score_texts(texts: pd.Series, predict: Predict) -> pd.DataFrame:
    """Score one batch. A row without a score has the reason in `score_error`, never its text."""
    faults = [_fault_of_text(text) for text in texts]
    sound = [text for text, fault in zip(texts, faults, strict=True) if fault is None]
    predicted = iter(_predict_or_halve(sound, predict))
    rows = [next(predicted) if fault is None else _no_score(fault) for fault in faults]
    scored = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return scored.astype(
        {
            "probability": "Float64",
            "prediction": "Int32",
            "is_truncated": "bool",
            "score_error": "object",
        }
    )


def _predict_or_halve(texts: list[str], predict: Predict) -> list[Score]:
    """Predict all texts at once; if that fails, halve them until the bad text is alone."""
    if not texts:
        return []
    try:
        predicted = predict(texts)
    except TEXT_FAULTS as error:
        if len(texts) == 1:
            return [_no_score(type(error).__name__)]  # the message may quote the review
        middle = len(texts) // 2
        first = _predict_or_halve(texts[:middle], predict)
        return first + _predict_or_halve(texts[middle:], predict)
    missing = sorted(set(SCORE_COLUMNS[:3]) - set(predicted.columns))
    if missing:
        names = ", ".join(missing)
        raise IntegrityError(
            f"predict: expected a column {names}, found none. Fix the model's code."
        )
    if len(predicted) != len(texts):
        raise IntegrityError(
            f"predict: expected {len(texts):,} rows, found {len(predicted):,}. "
            "Fix the model's code."
        )
    columns = (predicted["probability"], predicted["prediction"], predicted["is_truncated"])
    return [_checked(*row) for row in zip(*columns, strict=True)]


def _checked(probability: Any, prediction: Any, is_truncated: Any) -> Score:
    """Return a valid score, or the reason why it is invalid: Spark turns NaN into NULL silently."""
    if pd.isna(probability):
        return _no_score("probability is NaN")
    if not 0 <= probability <= 1:
        return _no_score("probability is outside 0-1")
    if pd.isna(prediction) or prediction not in (0, 1):
        return _no_score("prediction is neither 0 nor 1")
    return float(probability), int(prediction), bool(is_truncated), None


def _no_score(reason: str) -> Score:
    return None, None, False, reason


def _fault_of_text(text: object) -> str | None:
    if not isinstance(text, str):
        return "text is null"
    return None if text.strip() else "text is blank"
