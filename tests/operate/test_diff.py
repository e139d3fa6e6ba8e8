"""jobs/diff.py reports each difference between two table versions as one kind. Needs Spark."""

from collections.abc import Sequence
from typing import Any

import pytest
from pyspark.sql import DataFrame

from jobs import diff as job
from pipelines.errors import InputError
from pipelines.lake.tables import TableStore
from pipelines.operate.diff import counts, differences, examples
from schemas import GOLD_REJECTS, SILVER_REVIEWS

ORIGIN = [("f" * 64, 1, "f.csv")]
LONG = "words " * 20


def silver(*rows: tuple[str, str, int | None]) -> list[tuple[Any, ...]]:
    return [(id_, text, label, False, "imdb", None, ORIGIN, None) for id_, text, label in rows]


BEFORE = silver(
    ("a", "same", 1),
    ("b", "other label", 0),
    ("c", "no label yet", None),
    ("d", LONG, 1),
    ("e", "e", 1),
)
AFTER = silver(
    ("a", "same", 1),
    ("b", "other label", 1),
    ("c", "no label yet", 0),
    ("d", LONG + "!", 1),
    ("f", "f", 0),
)


def differing(store: TableStore, before: Sequence[Any], after: Sequence[Any]) -> DataFrame:
    left = store.spark.createDataFrame(list(before), SILVER_REVIEWS.schema)
    right = store.spark.createDataFrame(list(after), SILVER_REVIEWS.schema)
    return differences(left, right, SILVER_REVIEWS)


def test_each_row_that_differs_has_one_kind(store: TableStore) -> None:
    rows = differing(store, BEFORE, AFTER).select("review_id", "kind").collect()
    assert sorted(tuple(row) for row in rows) == [
        ("b", "relabelled"),
        ("c", "relabelled"),
        ("d", "changed"),
        ("e", "removed"),
        ("f", "added"),
    ]
    assert counts(differing(store, BEFORE, AFTER)) == {
        "added": 1,
        "removed": 1,
        "relabelled": 2,
        "changed": 1,
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (BEFORE, BEFORE, (0, 0, 0, 0)),
        ([], [], (0, 0, 0, 0)),
        ([], BEFORE, (5, 0, 0, 0)),
        (BEFORE, [], (0, 5, 0, 0)),
    ],
    ids=["equal", "both empty", "from nothing", "to nothing"],
)
def test_counts_of_equal_and_of_empty_versions(
    store: TableStore, before: Sequence[Any], after: Sequence[Any], expected: tuple[int, ...]
) -> None:
    assert tuple(counts(differing(store, before, after)).values()) == expected


def test_examples_show_changed_columns_and_cut_long_values(store: TableStore) -> None:
    lines = examples(differing(store, BEFORE, AFTER), SILVER_REVIEWS, 1)
    added = "added      f: text f; label 0; has_pii False; source imdb; source_split None; origins "
    assert lines[0].startswith(added)
    assert lines[1].startswith("removed    e: text e; label 1; ")
    assert lines[2] == "relabelled b: label 0 -> 1"
    assert lines[3] == f"changed    d: text {LONG[:39]}… -> {LONG[:39]}…"
    assert len(lines) == 4
    assert examples(differing(store, BEFORE, AFTER), SILVER_REVIEWS, 0) == []


def test_the_job_compares_two_versions_of_a_table(
    store: TableStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for rows in ([("a", "unlabelled")], [("a", "text_in_two_splits"), ("b", "unlabelled")]):
        store.synchronise(GOLD_REJECTS, store.spark.createDataFrame(rows, GOLD_REJECTS.schema))
    place = ["--lake", store.config.lake, "--table", "gold.rejects"]
    job.main([*place, "--before", "1"])
    assert capsys.readouterr().out.splitlines() == [
        "gold.rejects version 1 -> 2: 1 added, 0 removed, 0 relabelled, 1 changed",
        "added      b: reason unlabelled",
        "changed    a: reason unlabelled -> text_in_two_splits",
    ]
    job.main([*place, "--before", "-1"])
    nothing = "gold.rejects version 2 -> 2: 0 added, 0 removed, 0 relabelled, 0 changed\n"
    assert capsys.readouterr().out == nothing
    with pytest.raises(InputError, match=r"gold\.rejects has no version 7: its log holds 0-2"):
        job.main([*place, "--before", "7"])
