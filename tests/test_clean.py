"""Bronze rows become plain texts in silver, or rejects. Only `clean_text` needs no Spark."""

import logging
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs import clean as job
from pipelines.clean import (
    clean_reviews,
    clean_text,
    group_by_text,
    label_meanings,
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

CLEANED = {
    "Good.<br /><br />Very.": "Good. Very.",
    "  two \t blanks\n": "two blanks",
    "3 < 4 and 5 > 4": "3 < 4 and 5 > 4",
    "<3 it, <- that, a<b": "<3 it, <- that, a<b",
    "<p class='x'>In <i>Alien</i></p><!-- <b> -->": "In Alien",
    "if a<b and c>d then I laughed": "if a<b and c>d then I laughed",
    "<I loved this> and <so did she>": "<I loved this> and <so did she>",
    "I am <3 years old, </3, a->b, x<=y, 1<<2": "I am <3 years old, </3, a->b, x<=y, 1<<2",
    "<a good film>, a <b movie>, <sigh>, <i.e.>": "<a good film>, a <b movie>, <sigh>, <i.e.>",
    "5<q>3, good<B>bad</B >": "5 3, good bad",  # a parser cannot tell these from markup either
    "<a href='?a>b' title = \"x\"id=1>l</a>\n<IMG\nsrc=a.png />": "l",
    "<input disabled/><td nowrap><font color=#fff size=+1>x<h1>y": "x y",
    "<b x\">, < br >, <b=c>, <a href='x": "<b x\">, < br >, <b=c>, <a href='x",
    "<!DOCTYPE html><script>if (a<b) c>d</script>x<style a=b>p{}</style>": "x",
    "<script>a, <style>b": "a, b",
    "<!-->a<!--->b<!-- c --!>d<!-- e": "a b d<!-- e",
    "&lt;br&gt;, &lt;sigh&gt;": ", <sigh>",
    "Tom &amp; Jerry &lt;3": "Tom & Jerry <3",
    "a&amp;lt;br&amp;gt;b": "a b",  # unescaping reveals more markup
    "&amp;amp;amp;": "&",
    "1939\x961945 \x85": "1939\u20131945 …",
    "caf\u0065\u0301": "café",
    "zero\u200bwidth\ufeff \u202eturned": "zerowidth turned",
    "\U0001f468\u200d\U0001f469": "\U0001f468\u200d\U0001f469",
    "\u0645\u06cc\u200c\u0631": "\u0645\u06cc\u200c\u0631",
    "a\x00b\x08c": "abc",
    "no\xa0break\u2028line\x1cfield": "no break line field",
    "\u304c\u093c lone \ud800 surrogate": "\u304c\u093c lone surrogate",
    "<br />": "",
    "": "",
}
MASKED = {
    "write to jane.doe+x@mail.example.co.uk!": "write to [EMAIL]!",
    "see http://example.com/a?b=c#d, or www.example.org.": "see [URL], or [URL].",
    "HTTPS://EXAMPLE.COM": "[URL]",
    "from 192.168.0.1:": "from [IP]:",
    "card 4111 1111 1111 1111.": "card [CARD].",
    "card 4111-1111-1111-1111": "card [CARD]",
    "call 555-123-4567 or (555) 123-4567": "call [PHONE] or [PHONE]",
    "call +49 30 123 4567": "call [PHONE]",
    "card 4111 1111 1111 1112": None,  # the check digit is wrong
    "0000 0000 0000 0000": None,
    "1939-1945, 2001-2002": None,
    "cost $10,000,000 or 12.000.000": None,
    "8/10, 9.5 of 10, 24/7": None,
    "version 1.2.3, rated 300.1.1.1": None,
    "it's @home, http:// or www.": None,
    "[EMAIL] [URL]": None,
}


@pytest.mark.parametrize(("raw", "expected"), CLEANED.items())
def test_cleaning_keeps_the_words(raw: str, expected: str) -> None:
    assert clean_text(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), MASKED.items())
def test_personal_data_is_masked_and_other_numbers_are_kept(raw: str, expected: str | None) -> None:
    assert clean_text(raw) == (raw if expected is None else expected)


TAGS = (
    "<",
    ">",
    "<br />",
    "</",
    "<b",
    "b>",
    "<!--",
    "-->",
    "&",
    "amp;",
    "&amp;",
    "lt;",
    "&lt;",
    "&gt;",
    "#60;",
    "&#x3c;",
)
DATA = (
    "&nbsp",
    "&#150;",
    "&nvlt;",
    "@",
    "a@b.co",
    "www.",
    "http://",
    ".",
    "1",
    "4111",
    "-",
    "1.2.3.4",
    "555-123-4567",
)
SIGNS = (
    "+49",
    "[EMAIL]",
    "]",
    "(",
    "e",
    " ",
    "\x96",
    "\x85",
    "\x00",
    "\x1c",
    "\u0301",
    "\u037e",
    "\u0338",
    "\u200b",
)
FRAGMENTS = st.sampled_from((*TAGS, *DATA, *SIGNS, "\ufeff", "\u2028", "\ud800"))


@settings(max_examples=500, deadline=None)
@given(st.text() | st.lists(FRAGMENTS, max_size=14).map("".join))
def test_cleaning_a_cleaned_text_changes_nothing(raw: str) -> None:
    plain = clean_text(raw)
    assert clean_text(plain) == plain
    assert plain == " ".join(plain.split())
    plain.encode()  # no lone surrogate is left: Spark could not store it


NO_MARKUP = (
    *(
        "<",
        ">",
        "<3",
        "</3",
        "->",
        "<-",
        "<->",
        "<=",
        ">=",
        "<<",
        ">>",
        "<>",
        "\u2665",
        "\u2264",
        "=",
    ),
    *("a<b and c>d", "i<j", "x<y>z", "<I loved this>", "</so did she>", "<sigh>", "<b movie>"),
    *("<joe>", "'", '"', "<a href", "(5>3)", "</", "<!", "-->", "<?xml?>", "<title of film>"),
)


@given(st.lists(st.sampled_from(NO_MARKUP)).map(" ".join))
def test_text_in_angle_brackets_that_is_no_markup_loses_nothing(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "part",
    [
        "amp;",
        "<!--",
        "<a ",
        "<",
        "<a x='",
        "<script>",
        "x=1 ",
        "1.1.",
        "1234 ",
        "a@",
        "www.",
        "+1",
        "#38;",
    ],
)
def test_cleaning_is_fast_for_hostile_texts(part: str) -> None:
    plain = clean_text("&" + part * 25_000)
    assert clean_text(plain) == plain


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
        f"silver.reviews v{first[0] + 1}: 0 rows added, 1 changed, 0 removed",
        f"silver.rejects v{first[1] + 1}: 1 rows added, 0 changed, 0 removed",
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
