"""Silver rows become gold rows in one split each, or rejects. Needs Spark."""

import hashlib
import logging
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import curate as job
from pipelines.clean import normalised
from pipelines.curate import (
    STATES_SCORE,
    assign,
    check_splits,
    gold_rejects,
    rows_by_split,
    share_of,
    token_counter,
)
from pipelines.errors import InputError, IntegrityError
from pipelines.lake.tables import TableStore
from schemas import GOLD_REJECTS, GOLD_REVIEWS, OPS_RUNS, SILVER_REVIEWS, SPLITS
from tests.support import tiny_encoder

Row = tuple[str, int | None, str, str | None]  # text, label, source, source split


def silver_of(spark: SparkSession, rows: list[Row]) -> DataFrame:
    reviews = []
    for row_number, (text, label, source, split) in enumerate(rows, start=1):
        review_id = hashlib.sha256(text.encode()).hexdigest()
        origins = [("a" * 64, row_number, "x.csv")]
        reviews.append((review_id, text, label, False, source, split, origins, None))
    silver = spark.createDataFrame(reviews, SILVER_REVIEWS.schema)
    return silver.withColumn("normal_hash", F.sha2(normalised(F.col("text")), 256))


def placed(assigned: DataFrame) -> dict[str, str]:
    """Return the split of each text, or the reason why gold leaves it out."""
    rows = assigned.select("text", "split", "reason").collect()
    return {row.text: row.reason or row.split for row in rows}


@pytest.mark.parametrize(
    ("text", "states_score"),
    [
        ("I give it 8/10.", True),
        ("8.5 / 10", True),
        ("a solid 7 out of 10!", True),
        ("Ten out of ten", True),
        ("9 stars out of 10", True),
        ("10/10", True),
        ("10 out of 10 people left", True),  # a false alarm; it costs one row of one slice
        ("on 8/10/2003", False),
        ("on 2003/8/10", False),
        ("1/2 of it", False),
        ("24/7", False),
        ("8/100", False),
        ("8/10,000 of it", False),
        ("3 out of 5", False),
        ("ten of ten", False),
        ("", False),
    ],
)
def test_a_review_that_states_its_score_is_marked(
    spark: SparkSession, text: str, states_score: bool
) -> None:
    matches = F.rlike(F.lit(text), F.lit(STATES_SCORE)).alias("states_score")
    assert spark.range(1).select(matches).collect() == [(states_score,)]


def test_the_share_is_the_first_32_bits_of_the_hash(spark: SparkSession) -> None:
    share = share_of(F.sha2(F.lit("abc"), 256)).alias("share")
    assert spark.range(1).select(share).collect() == [(0xBA7816BF / 2**32,)]


def test_the_hash_split_is_about_80_10_10_and_does_not_change_when_the_table_grows(
    spark: SparkSession,
) -> None:
    rows: list[Row] = [(f"review {n}", n % 2, "imdb", None) for n in range(5_000)]
    grown = placed(assign(silver_of(spark, rows), "hash", ()))
    counts = {split: list(grown.values()).count(split) for split in SPLITS}
    assert sum(counts.values()) == 5_000
    assert counts["train"] == pytest.approx(4_000, abs=120)
    assert counts["validation"] == pytest.approx(500, abs=90)
    assert counts["test"] == pytest.approx(500, abs=90)
    small = placed(assign(silver_of(spark, rows[:300]), "hash", ()))
    assert small == {text: grown[text] for text in small}


def test_texts_that_differ_in_case_and_punctuation_share_a_split(spark: SparkSession) -> None:
    pairs = [(f"Film number {n}", f"film, NUMBER {n}!") for n in range(60)]
    rows: list[Row] = [(text, 1, "imdb", None) for pair in pairs for text in pair]
    splits = placed(assign(silver_of(spark, rows), "hash", ()))
    assert [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]] == []
    assert set(splits.values()) == set(SPLITS)


CASES: list[Row] = [
    ("held out", 1, "imdb", "test"),
    ("Held out!", 1, "imdb", "train"),
    ("chosen by", 0, "imdb", "validation"),
    ("Chosen by", 0, "imdb", "train"),
    ("no label", None, "imdb", "train"),
    ("NO LABEL", 1, "imdb", "train"),  # the other copy is left out because it has no label
    ("no split", 1, "imdb", None),
    ("elsewhere", 1, "shop", "train"),
    ("left out", None, "imdb", "test"),
    ("Left out", 1, "imdb", "train"),  # the other copy is left out, so it is in no split
    ("!!!", 1, "imdb", "train"),
    ("???", 1, "imdb", "test"),
]
PLACED = {
    "held out": "test",
    "Held out!": "text_in_two_splits",
    "chosen by": "validation",
    "Chosen by": "text_in_two_splits",
    "no label": "unlabelled",
    "NO LABEL": "train",
    "no split": "no_official_split",
    "elsewhere": "source_not_chosen",
    "left out": "unlabelled",
    "Left out": "train",
    "!!!": "train",
    "???": "test",
}


def test_the_seed_split_is_that_of_the_files_and_a_text_in_two_splits_stays_held_out(
    spark: SparkSession,
) -> None:
    assigned = assign(silver_of(spark, CASES), "seed", ("imdb",))
    assert placed(assigned) == PLACED
    reasons = gold_rejects(assigned).groupBy("reason").count().collect()
    assert {row["reason"]: row["count"] for row in reasons} == {
        "text_in_two_splits": 2,
        "unlabelled": 2,
        "no_official_split": 1,
        "source_not_chosen": 1,
    }
    # Texts of punctuation alone are not equal: !!! is in train and ??? in test.
    check_splits(assigned, is_whole=True)
    gold = assigned.where("reason IS NULL")
    assert rows_by_split(gold) == {"train": 3, "validation": 1, "test": 2}


def test_the_official_split_takes_validation_from_train_and_keeps_test(
    spark: SparkSession,
) -> None:
    rows: list[Row] = [
        (f"review {n}", 1, "imdb", "train" if n < 400 else "test") for n in range(500)
    ]
    splits = placed(assign(silver_of(spark, rows), "official", ()))
    of_train = [splits[f"review {n}"] for n in range(400)]
    assert set(of_train) == {"train", "validation"}
    assert of_train.count("validation") == pytest.approx(40, abs=20)
    assert {splits[f"review {n}"] for n in range(400, 500)} == {"test"}


def test_a_text_in_two_splits_is_an_integrity_error(spark: SparkSession) -> None:
    rows = [
        ("1", "train", None),
        ("1", "test", None),
        ("2", "test", None),
        ("2", "train", "text_in_two_splits"),
    ]
    assigned = spark.createDataFrame(rows, "normal_hash string, split string, reason string")
    with pytest.raises(
        IntegrityError,
        match=r"^gold\.reviews: 1 texts are in more than one split\. Nothing was written",
    ):
        check_splits(assigned, is_whole=True)
    check_splits(assigned.where("split = 'train' OR normal_hash = '2'"), is_whole=True)
    check_splits(assigned.limit(0), is_whole=False)
    with pytest.raises(
        InputError, match=r"^gold\.reviews: there are no labelled reviews with a split\. Nothing"
    ):
        check_splits(assigned.limit(0), is_whole=True)


def test_all_tokens_but_special_ones_are_counted(spark: SparkSession) -> None:
    # As stored, this tokenizer cuts at 16 tokens and pads.
    tokenizer = tiny_encoder.tokenizer_of([*tiny_encoder.SPECIAL_TOKENS, "good", "film"])
    texts = spark.createDataFrame(
        [("good film", 2), ("good " * 40, 40), ("unheard", 1), ("", 0)],
        "text string, expected int",
    )
    n_tokens = token_counter(tokenizer.to_str(), F.col("text")).alias("n_tokens")
    rows = texts.select("expected", n_tokens).collect()
    assert [(row.expected, row.n_tokens) for row in rows] == [(n, n) for n in (2, 40, 1, 0)]


def test_the_job_writes_gold_and_rejects_and_a_second_run_writes_nothing(
    store: TableStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    encoder = tiny_encoder.build(tmp_path / "encoder", [text for text, *_ in CASES])
    argv = ["--split-policy", "seed", "--sources", "imdb,", "--backbone", str(encoder)]
    argv += ["--lake", store.config.lake]
    store.append(
        SILVER_REVIEWS, silver_of(store.spark, [*CASES, ("A film: 8/10", 1, "imdb", "train")])
    )
    job.main(argv)
    gold = {row.text: row for row in store.read(GOLD_REVIEWS).collect()}
    assert {text: row.split for text, row in gold.items()} == {
        text: split for text, split in PLACED.items() if split in SPLITS
    } | {"A film: 8/10": "train"}
    film = gold["A film: 8/10"]
    assert (film.label, film.source) == (1, "imdb")
    assert (film.n_characters, film.n_tokens, film.states_score) == (12, 6, True)
    assert not gold["held out"].states_score
    rejects = {row.review_id: row.reason for row in store.read(GOLD_REJECTS).collect()}
    assert sorted(rejects.values()) == [
        "no_official_split",
        "source_not_chosen",
        "text_in_two_splits",
        "text_in_two_splits",
        "unlabelled",
        "unlabelled",
    ]
    run = store.read(OPS_RUNS).collect()[0]
    assert run.rows == {"in": 13, "kept": 7, "rejected": 6, "train": 4, "validation": 1, "test": 2}
    before = [store.version(table) for table in (GOLD_REVIEWS, GOLD_REJECTS, OPS_RUNS)]
    job.main(argv)
    assert [store.version(table) for table in (GOLD_REVIEWS, GOLD_REJECTS, OPS_RUNS)] == before
    assert caplog.messages[-1].startswith("curate: nothing to do")
