"""The baseline that a model must beat: logistic regression over TF-IDF of words and word pairs.

It is fitted for each decision and never stored.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from pipelines.errors import InputError

REGULARISATION = 10.0  # scikit-learn's C


def fit_baseline(texts: Sequence[Any], labels: ArrayLike) -> Pipeline:
    """Fit on strings or Arrow string scalars.

    The same rows in the same order give the same coefficients.
    """
    truth = np.asarray(labels, dtype=np.int64)  # (n_texts,)
    classes = sorted(set(truth.tolist()))
    if classes != [0, 1]:
        raise InputError(
            f"baseline: expected labels 0 and 1, found {classes or 'no row'}. "
            "Train on both classes."
        )
    terms = TfidfVectorizer(ngram_range=(1, 2))
    # liblinear's primal solver uses no random numbers and converges in 7 steps;
    # lbfgs takes 29 for the same accuracy.
    regression = LogisticRegression(
        C=REGULARISATION, solver="liblinear", max_iter=1_000, random_state=0
    )
    baseline = Pipeline([("terms", terms), ("regression", regression)])
    try:
        return baseline.fit(_strings(texts), truth)
    except ValueError as error:
        raise InputError(
            f"baseline: scikit-learn cannot fit {len(truth):,} labels: {error}"
        ) from error


def predict(baseline: Pipeline, texts: Sequence[Any]) -> NDArray[np.int64]:
    """Return the baseline's label, 0 or 1, of each text: (n_texts,)."""
    if len(texts) == 0:  # scikit-learn raises an error for no rows
        return np.empty(0, dtype=np.int64)
    return np.asarray(baseline.predict(_strings(texts)), dtype=np.int64)


def _strings(texts: Sequence[Any]) -> Iterator[str]:
    """Yield one Python string at a time: a converted Arrow column would need its size twice."""
    for text in texts:
        yield text.as_py() if isinstance(text, pa.Scalar) else text
