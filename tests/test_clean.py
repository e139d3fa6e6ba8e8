"""Bronze rows become plain texts in silver, or rejects. Needs Spark."""

import logging
import random
from datetime import UTC, datetime

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import clean as job
from pipelines.clean import (
    clean_reviews,
    group_by_text,
    label_meanings,
    normalised,
    plain_text,
    silver_rejects,
    silver_reviews,
)
from pipelines.errors import IntegrityError
from pipelines.lake.frames import content_hash
from pipelines.lake.tables import TableStore
from pipelines.provenance import package_sha256
from schemas import (
    BRONZE_REVIEWS,
    LABEL_SPELLINGS,
    NEGATIVE,
    NEUTRAL,
    OPS_RUNS,
    POSITIVE,
    SILVER_REJECTS,
    SILVER_REVIEWS,
    UNKNOWN,
    UNLABELLED,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FIRST, SECOND = "a" * 64, "b" * 64


def test_plain_text_leaves_a_null_null(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(1, "<b>a"), (2, None)], "n int, raw string").select(
        "n", plain_text("raw")
    )
    assert sorted(tuple(row) for row in rows.collect()) == [(1, "a"), (2, None)]


def test_the_recorded_meaning_of_a_label_counts_before_its_spelling(spark: SparkSession) -> None:
    by_spelling = [*LABEL_SPELLINGS.items(), (" Positive ", POSITIVE), ("NEG", NEGATIVE)]
    cases = [
        *[(spelling, None, meaning) for spelling, meaning in by_spelling],  # of an older ingest
        ("2", None, UNKNOWN),
        (" ", None, UNLABELLED),
        (None, None, UNLABELLED),
        ("1", NEGATIVE, NEGATIVE),  # one star
        ("0", NEUTRAL, NEUTRAL),
        ("10", POSITIVE, POSITIVE),
    ]
    rows = spark.createDataFrame(cases, "raw_label string, label_meaning string, expected string")
    wrong = rows.where(~label_meanings(rows).eqNullSafe(F.col("expected")))
    assert wrong.collect() == []


def test_normalised_texts_ignore_case_punctuation_and_blanks(spark: SparkSession) -> None:
    cases = [
        ("Good film!", "goodfilm"),
        ("GOOD -- film", "goodfilm"),
        ("Ça 2", "ça2"),
        ("!!!", "!!!"),
        (None, None),
    ]
    rows = spark.createDataFrame(cases, "text string, expected string")
    assert rows.where(~normalised(F.col("text")).eqNullSafe(F.col("expected"))).collect() == []


Row = tuple[str, int, str | None, str | None, str | None, str | None]
# sha256, row number, text, label, split, read fault; of an older ingest, without a meaning
ROWS: list[Row] = [
    (FIRST, 1, "Good <b>film</b>", "pos", "train", None),
    (SECOND, 1, "Good  film", "1", "test", None),
    (SECOND, 2, "Good film", "1.0", "train", None),
    (FIRST, 2, "Mixed", "1", "train", None),
    (FIRST, 3, "Mixed<br>", "0", "train", None),
    (FIRST, 4, "Not sure", "maybe", None, None),
    (FIRST, 5, "nul\0byte", "1", None, None),
    (FIRST, 6, " <br> ", "", None, None),
    (FIRST, 7, None, None, None, "row 7: not UTF-8"),
    (FIRST, 8, "&nbsp;", "so so", None, None),
    (FIRST, 12, "So so", "0", None, None),
    (FIRST, 9, "New one by me@example.com", "  ", None, None),
    (FIRST, 10, "Half labelled", None, None, None),
    (FIRST, 11, "Half labelled", "0", None, None),
]
SILVER = {
    "Good film": (1, False, "test", [(SECOND, 1), (FIRST, 1), (SECOND, 2)]),
    "New one by [EMAIL]": (None, True, None, [(FIRST, 9)]),
    "Half labelled": (0, False, None, [(FIRST, 10), (FIRST, 11)]),
}
REJECTS = {
    2: ["labels_agree"],
    3: ["labels_agree"],
    4: ["label_is_known"],
    5: ["text_has_no_nul"],
    6: ["text_is_not_blank"],
    7: ["record_is_readable"],
    8: ["label_is_known", "text_is_not_blank"],
    12: ["label_is_polar"],
}


MEANINGS = {12: NEUTRAL}  # of a row of a newer ingest, by its number


def bronze_of(spark: SparkSession, rows: list[Row]) -> DataFrame:
    full = [
        ("imdb", "x.csv", sha, n, text, label, MEANINGS.get(n), split, fault, "k", NOW)
        for sha, n, text, label, split, fault in rows
    ]
    return spark.createDataFrame(full, BRONZE_REVIEWS.schema)


def silver_of(store: TableStore) -> dict[str, tuple[object, ...]]:
    reviews: dict[str, tuple[object, ...]] = {}
    for row in store.read(SILVER_REVIEWS).collect():
        origins = [(origin.source_sha256, origin.row_number) for origin in row.origins]
        reviews[row.text] = (row.label, row.has_pii, row.source_split, origins)
    return reviews


def versions(store: TableStore) -> tuple[int, ...]:
    return tuple(store.version(table) for table in (SILVER_REVIEWS, SILVER_REJECTS, OPS_RUNS))


def test_the_job_keeps_each_text_once_rejects_with_reasons_and_writes_only_changes(
    store: TableStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    argv = ["--lake", store.config.lake]
    store.append(BRONZE_REVIEWS, bronze_of(store.spark, ROWS))
    job.main(argv)
    assert silver_of(store) == SILVER
    rejects = store.read(SILVER_REJECTS).where(F.col("source_sha256") == FIRST).collect()
    assert {row.row_number: row.failed_rules for row in rejects} == REJECTS
    run = store.read(OPS_RUNS).collect()[0]
    assert (run.stage, run.state) == ("clean", "done")
    assert run.rows == {"in": 14, "kept": 3, "rejected": 8, "duplicates": 3}
    first = versions(store)

    job.main(argv)
    assert versions(store) == first
    assert caplog.messages[-1].startswith("clean: nothing to do, done at ")

    later: list[Row] = [
        (SECOND, 3, "Mixed", "1", None, None),
        (SECOND, 4, "Half labelled", "0", "test", None),
    ]
    store.append(BRONZE_REVIEWS, bronze_of(store.spark, later))
    job.main(argv)
    assert caplog.messages[-3:] == [
        f"silver.rejects v{first[1] + 1}: 1 rows added, 0 changed, 0 removed",
        f"silver.reviews v{first[0] + 1}: 0 rows added, 1 changed, 0 removed",
        f"clean: the workers ran this code, {package_sha256()[:12]}",
    ]
    origins = [(SECOND, 4), (FIRST, 10), (FIRST, 11)]
    assert silver_of(store)["Half labelled"] == (0, False, "test", origins)


def test_a_bronze_table_of_an_older_release_is_cleaned_by_the_spelling_of_its_labels(
    spark: SparkSession,
) -> None:
    older = bronze_of(spark, [row for row in ROWS if row[1] != 12]).drop("label_meaning")
    cleaned = clean_reviews(older).where("size(failed_rules) = 0").select("text", "label")
    expected = {("Good film", 1), ("New one by [EMAIL]", None), ("Half labelled", 0)}
    assert {tuple(row) for row in cleaned.collect()} >= expected


def test_silver_does_not_depend_on_the_order_and_partitions_of_bronze(
    spark: SparkSession,
) -> None:
    shuffled = random.Random(7).sample(ROWS, len(ROWS))
    hashes = set()
    for bronze in (bronze_of(spark, ROWS).coalesce(1), bronze_of(spark, shuffled).repartition(5)):
        cleaned = clean_reviews(bronze)
        grouped = group_by_text(cleaned)
        reviews = content_hash(silver_reviews(grouped))
        rejects = content_hash(silver_rejects(cleaned, grouped))
        hashes.add((reviews, rejects))
    assert len(hashes) == 1


def test_a_missing_row_fails_the_run_which_is_not_recorded_as_done(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(BRONZE_REVIEWS, bronze_of(store.spark, ROWS[:4]))

    def without_a_row(grouped: DataFrame) -> DataFrame:
        return silver_reviews(grouped).where("text <> 'Mixed'")

    monkeypatch.setattr("pipelines.clean.silver_reviews", without_a_row)
    words = (
        r"^silver\.reviews: expected 4 rows accounted for, "
        r"found 1 kept \+ 0 rejected \+ 2 duplicates = 3\."
    )
    with pytest.raises(IntegrityError, match=words) as caught:
        job.main(["--lake", store.config.lake])
    assert caught.value.exit_code == 3
    assert not store.exists(OPS_RUNS)
