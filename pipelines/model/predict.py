"""Texts to scores: one row per text, a score or the reason why there is none."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from pipelines.errors import IntegrityError

SCORE_COLUMNS = ("probability", "prediction", "is_truncated", "score_error")

# Columns probability, prediction, is_truncated; a row a text, in order.
Predict = Callable[[list[str]], pd.DataFrame]
Score = tuple[float | None, int | None, bool, str | None]  # the values of SCORE_COLUMNS
# What a tokenizer or torch raises for one bad text; anything else is a fault of the machine or the code.
TEXT_FAULTS = (RuntimeError, ValueError, TypeError, KeyError, IndexError)


def score_texts(texts: pd.Series, predict: Predict) -> pd.DataFrame:
    """Score one batch; a row that has no score says why in `score_error`, never by its text."""
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
    """Predict all at once; where that raises, halve until the poisonous text stands alone."""
    if not texts:
        return []
    try:
        predicted = predict(texts)
    except TEXT_FAULTS as error:
        if len(texts) == 1:
            return [_no_score(type(error).__name__)]  # its message may quote the review
        middle = len(texts) // 2
        first = _predict_or_halve(texts[:middle], predict)
        return first + _predict_or_halve(texts[middle:], predict)
    missing = set(SCORE_COLUMNS[:3]) - set(predicted.columns)
    if missing:
        raise IntegrityError(
            f"predict: expected a column {', '.join(sorted(missing))}, found none. Fix the model's code."
        )
    if len(predicted) != len(texts):
        raise IntegrityError(
            f"predict: expected {len(texts):,} rows, found {len(predicted):,}. Fix the model's code."
        )
    columns = (predicted["probability"], predicted["prediction"], predicted["is_truncated"])
    return [_checked(*row) for row in zip(*columns, strict=True)]


def _checked(probability: Any, prediction: Any, is_truncated: Any) -> Score:
    """One score, or why it is none: Spark would turn a NaN into NULL without a word."""
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
