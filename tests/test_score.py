"""Scoring: one row per review, with a score or an error. Needs Spark."""

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipelines.errors import IntegrityError
from pipelines.lake.frames import conform
from pipelines.model.predict import Predict, score_texts
from pipelines.score import check_scores, load_once, score_rows, scorer, unscored
from schemas import GOLD_SCORES, SILVER_REVIEWS

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
ORIGINS = [("a" * 64, 1, "file.csv")]
POISON = "\x00poison"


def with_origins(reviews: DataFrame) -> DataFrame:
    """Add the columns of silver.reviews that scoring reads."""
    origin = (
        "array(named_struct('source_sha256', repeat('a', 64), 'row_number', 1L, "
        "'source_file', 'file.csv'))"
    )
    return reviews.withColumn("source", F.lit("imdb")).withColumn("origins", F.expr(origin))


def by_length(texts: list[str]) -> pd.DataFrame:
    """Predict as a stub: P(positive) is a hundredth of the text's length; POISON raises."""
    if POISON in texts:
        raise ValueError(f"cannot read {POISON}")
    probability = [len(text) / 100 for text in texts]
    return pd.DataFrame(
        {
            "probability": probability,
            "prediction": [int(share >= 0.5) for share in probability],
            "is_truncated": [len(text) > 50 for text in texts],
        }
    )


def loader_of(directory: Path, **columns: Any) -> Callable[[], Predict]:
    """Return a loader that Spark can pickle, of a model with P(positive) = length / 100.

    It writes a file for each load and for each text.
    """

    def load() -> Predict:
        (directory / f"load-{os.getpid()}-{uuid.uuid4().hex}").touch()

        def predict(texts: list[str]) -> pd.DataFrame:
            for _ in texts:
                (directory / f"text-{uuid.uuid4().hex}").touch()
            lengths = [len(text) for text in texts]
            usual = {
                "probability": [n / 100 for n in lengths],
                "prediction": [int(n >= 50) for n in lengths],
            }
            return pd.DataFrame({**usual, "is_truncated": False, **columns})

        return predict

    return load


def rows_of(reviews: DataFrame, load: Callable[[], Predict]) -> DataFrame:
    return score_rows(
        reviews,
        scorer(load),
        model_name="m",
        model_version=3,
        run_id="r",
        silver_version=7,
        scored_at=NOW,
    )


def test_every_text_gets_a_score_or_an_error_in_its_own_row() -> None:
    cases = [
        ("a" * 10, (0.1, 0, False, None)),
        (None, (None, None, False, "text is null")),
        ("", (None, None, False, "text is blank")),
        (" \t\n", (None, None, False, "text is blank")),
        ("b" * 60, (0.6, 1, True, None)),
        (POISON, (None, None, False, "ValueError")),
        ("c" * 101, (None, None, False, "probability is outside 0-1")),
        ("d" * 100, (1.0, 1, True, None)),
    ]
    scored = score_texts(pd.Series([text for text, _ in cases], dtype=object), by_length)
    rows = [
        tuple(None if pd.isna(cell) else cell for cell in row)
        for row in scored.itertuples(index=False, name=None)
    ]
    assert rows == [expected for _, expected in cases]


@pytest.mark.parametrize(
    ("probability", "prediction", "expected"),
    [
        (float("nan"), 1, "probability is NaN"),
        (None, 1, "probability is NaN"),
        (float("inf"), 1, "probability is outside 0-1"),
        (-0.1, 0, "probability is outside 0-1"),
        (0.5, 2, "prediction is neither 0 nor 1"),
        (0.5, float("nan"), "prediction is neither 0 nor 1"),
        (0.5, pd.NA, "prediction is neither 0 nor 1"),
    ],
)
def test_an_invalid_score_is_replaced_by_its_reason(
    probability: Any, prediction: Any, expected: str
) -> None:
    answer = pd.DataFrame(
        {"probability": [probability], "prediction": [prediction], "is_truncated": [True]}
    )
    scored = score_texts(pd.Series(["text"]), lambda _: answer)
    assert scored["score_error"].tolist() == [expected]
    assert scored[["probability", "prediction"]].isna().all(axis=None)


@given(st.lists(st.sampled_from(["good", POISON, None, " ", "x" * 70]), max_size=40))
def test_texts_that_the_model_cannot_read_fail_only_their_own_rows(texts: list[str | None]) -> None:
    scored = score_texts(pd.Series(texts, dtype=object), by_length)
    reasons = {
        "good": None,
        "x" * 70: None,
        POISON: "ValueError",
        None: "text is null",
        " ": "text is blank",
    }
    assert scored["score_error"].tolist() == [reasons[text] for text in texts]


def test_a_text_that_the_model_cannot_read_is_found_by_halving() -> None:
    sizes: list[int] = []

    def counted(texts: list[str]) -> pd.DataFrame:
        sizes.append(len(texts))
        return by_length(texts)

    score_texts(pd.Series(["good"] * 1023 + [POISON]), counted)
    assert len(sizes) == 21  # once whole, then two halves for each of 10 levels


@pytest.mark.parametrize("fault", [MemoryError, OSError, IntegrityError])
def test_a_fault_of_the_machine_ends_the_task(fault: type[Exception]) -> None:
    def broken(_: list[str]) -> pd.DataFrame:
        raise fault("the machine")

    with pytest.raises(fault, match="the machine"):
        score_texts(pd.Series(["good"]), broken)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (by_length(["a"]), "predict: expected 2 rows, found 1"),
        (
            by_length(["a", "b"]).drop(columns="prediction"),
            "predict: expected a column prediction, found none",
        ),
    ],
)
def test_predictions_of_the_wrong_shape_are_refused(answer: pd.DataFrame, words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        score_texts(pd.Series(["good", "bad"]), lambda _: answer)


def test_a_model_is_loaded_once_per_key_and_replaced_by_the_next() -> None:
    loads: list[str] = []

    def loader(name: str) -> Predict:
        loads.append(name)
        return by_length

    for key in ("a", "a", "b", "b", "a"):
        assert load_once(f"test-{key}", partial(loader, key)) is by_length
    assert loads == ["a", "b", "a"]


def test_a_model_that_failed_to_load_is_loaded_again() -> None:
    def absent() -> Predict:
        raise IntegrityError("no such model")

    with pytest.raises(IntegrityError, match="no such model"):
        load_once("test-absent", absent)
    assert load_once("test-absent", lambda: by_length) is by_length


def test_score_rows_match_the_contract_one_for_each_review(
    spark: SparkSession, tmp_path: Path
) -> None:
    texts = {"short": "a" * 10, "long": "b" * 60, "null": None, "blank": " ", "outside": "c" * 101}
    reviews = with_origins(
        spark.createDataFrame(list(texts.items()), "review_id string, text string")
    ).repartition(3)
    scored = conform(rows_of(reviews, loader_of(tmp_path)), GOLD_SCORES)
    assert tuple(scored.columns) == GOLD_SCORES.column_names
    origin = Row(source_sha256="a" * 64, row_number=1, source_file="file.csv")
    same = {
        "model_name": "m",
        "model_version": 3,
        "run_id": "r",
        "silver_version": 7,
        "is_truncated": False,
        "source": "imdb",
        "origins": [origin],
    }
    scores = {
        "short": (0.1, 0, None),
        "long": (0.6, 1, None),
        "null": (None, None, "text is null"),
        "blank": (None, None, "text is blank"),
        "outside": (None, None, "probability is outside 0-1"),
    }
    expected = {
        name: {
            **same,
            "review_id": name,
            "probability": probability,
            "prediction": prediction,
            "score_error": error,
        }
        for name, (probability, prediction, error) in scores.items()
    }
    rows = {row.review_id: row.asDict() for row in scored.drop("scored_at").collect()}
    assert rows == expected
    hour = F.date_format("scored_at", "yyyy-MM-dd HH").alias("hour")
    assert [row.hour for row in scored.select(hour).distinct().collect()] == ["2026-05-01 12"]


def test_a_nan_of_the_model_becomes_a_null_with_an_error(
    spark: SparkSession, tmp_path: Path
) -> None:
    reviews = with_origins(spark.createDataFrame([("1", "text")], "review_id string, text string"))
    row = rows_of(reviews, loader_of(tmp_path, probability=float("nan"))).collect()[0]
    assert (row.probability, row.prediction, row.score_error) == (None, None, "probability is NaN")


def test_workers_load_a_model_once_per_process_and_predict_each_text_once(
    spark: SparkSession, tmp_path: Path
) -> None:
    n_texts, n_partitions = 40, 8
    ids = spark.range(n_texts).select(
        F.col("id").cast("string").alias("review_id"), F.lit("text").alias("text")
    )
    reviews = with_origins(ids)
    load = partial(load_once, str(tmp_path), loader_of(tmp_path))
    rows = rows_of(reviews.repartition(n_partitions), load)
    assert rows.where("probability = 0.04 AND prediction = 0").count() == n_texts
    loads = [file.name.split("-")[1] for file in tmp_path.glob("load-*")]
    assert len(loads) == len(set(loads)) < n_partitions
    assert len(list(tmp_path.glob("text-*"))) == n_texts


def test_no_reviews_give_no_rows(spark: SparkSession, tmp_path: Path) -> None:
    reviews = with_origins(spark.createDataFrame([], "review_id string, text string"))
    assert rows_of(reviews, loader_of(tmp_path)).collect() == []


def test_unscored_leaves_out_reviews_with_a_row_of_this_model_version(spark: SparkSession) -> None:
    silver: list[tuple[Any, ...]] = [
        (name, name, None, False, "imdb", None, [], None)
        for name in ("scored", "failed", "other", "older", "never")
    ]
    reviews = spark.createDataFrame(silver, SILVER_REVIEWS.schema)
    scored = [
        ("scored", "m", 3, 0.5, 1, False, None, "r", 7, "imdb", ORIGINS, NOW),
        ("failed", "m", 3, None, None, False, "ValueError", "r", 7, "imdb", ORIGINS, NOW),
        ("other", "another", 3, 0.5, 1, False, None, "r", 7, "imdb", ORIGINS, NOW),
        ("older", "m", 2, 0.5, 1, False, None, "r", 7, "imdb", ORIGINS, NOW),
    ]
    scores = spark.createDataFrame(scored, GOLD_SCORES.schema)
    waiting = unscored(reviews, scores, "m", 3)
    assert sorted(row.review_id for row in waiting.collect()) == ["never", "older", "other"]
    assert waiting.columns == reviews.columns


@pytest.mark.parametrize(
    ("n_in", "n_out", "n_errors", "expected"),
    [
        (100, 99, 0, r"expected a row for each of 100 reviews, found 99"),
        (100, 100, 51, r"found a score_error in 51 of 100 rows: the model fails"),
        (100, 100, 50, None),
        (9, 9, 9, None),
        (0, 0, 0, None),
    ],
)
def test_lost_rows_and_a_model_that_fails_on_most_rows_are_refused(
    n_in: int, n_out: int, n_errors: int, expected: str | None
) -> None:
    if expected is None:
        check_scores(n_in, n_out, n_errors)
        return
    with pytest.raises(IntegrityError, match=expected):
        check_scores(n_in, n_out, n_errors)
