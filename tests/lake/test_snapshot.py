"""A table version is one Arrow file; its reviews become tokens. Needs no Spark."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ContractError, IntegrityError
from pipelines.lake.snapshot import SCHEMA, labels_of, open_snapshot, rows_of, write_snapshot

Row = tuple[str, str, int, str]  # review_id, text, label, split
ROWS: list[Row] = [
    ("a1", "good film", 1, "train"),
    ("a2", "bad", 0, "test"),
    ("b1", "bad film", 0, "train"),
    ("b2", "ça va", 1, "validation"),
    ("c1", "good", 1, "train"),
]


def parquet(file: Path, rows: list[Row]) -> Path:
    records = [
        {
            "review_id": review_id,
            "text": text,
            "label": label,
            "split": split,
            "source": "imdb",
            "n_characters": len(text),
            "n_tokens": len(text.split()),
            "states_score": False,
        }
        for review_id, text, label, split in rows
    ]
    write_parquet(pa.Table.from_pylist(records, schema=SCHEMA), file)
    return file


def write_parquet(table: pa.Table, file: Path) -> None:
    pq.write_table(table, file)  # type: ignore[no-untyped-call]  # pyarrow has no stubs for it


def snapshot_from(directory: Path, *parts: list[Row]) -> pa.Table:
    files = [
        parquet(directory / f"part-{number}.parquet", rows) for number, rows in enumerate(parts)
    ]
    snapshot = directory / "gold.arrow"
    write_snapshot(files, snapshot)
    return open_snapshot(snapshot)


@pytest.mark.parametrize(
    ("split", "ids", "labels"),
    [
        ("train", ["a1", "b1", "c1"], [1, 0, 1]),
        ("validation", ["b2"], [1]),
        ("test", ["a2"], [0]),
        ("none", [], []),
    ],
)
def test_a_split_holds_its_rows_in_order_of_review_id(
    tmp_path: Path, split: str, ids: list[str], labels: list[int]
) -> None:
    rows = rows_of(snapshot_from(tmp_path, ROWS[:3], ROWS[3:]), split)
    assert rows["review_id"].to_pylist() == ids
    assert labels_of(rows).tolist() == labels
    assert labels_of(rows).dtype == np.int64


def test_the_snapshot_holds_every_column_of_the_contract_unchanged(tmp_path: Path) -> None:
    snapshot = snapshot_from(tmp_path, ROWS)
    assert snapshot.schema == SCHEMA
    assert snapshot.sort_by("review_id")["text"].to_pylist() == [row[1] for row in ROWS]


def test_no_text_is_copied_into_memory(tmp_path: Path) -> None:
    long_reviews = [(f"{number:06d}", "word " * 200, 1, "train") for number in range(5_000)]
    snapshot_from(tmp_path, long_reviews)
    bytes_before = pa.total_allocated_bytes()
    rows = rows_of(open_snapshot(tmp_path / "gold.arrow"), "train")
    assert rows.nbytes > 5_000_000
    assert pa.total_allocated_bytes() - bytes_before < 100_000


@pytest.mark.parametrize(
    ("review_id", "words"),
    [
        ("a0", "expected review_id in ascending order .*, found a0 after a2"),
        ("a2", ".* without repeats, found a2 after a2"),
    ],
)
def test_rows_out_of_order_are_refused_and_leave_the_old_snapshot(
    tmp_path: Path, review_id: str, words: str
) -> None:
    snapshot_from(tmp_path, ROWS[2:])
    second_part: list[Row] = [(review_id, "x", 1, "train")]
    with pytest.raises(IntegrityError, match=rf"part-1\.parquet: {words}"):
        snapshot_from(tmp_path, ROWS[:2], second_part)
    assert open_snapshot(tmp_path / "gold.arrow").num_rows == len(ROWS) - 2


def without_split(table: pa.Table) -> pa.Table:
    return table.drop_columns(["split"])


def with_long_labels(table: pa.Table) -> pa.Table:
    labels = table["label"].cast(pa.int64())
    return table.set_column(table.schema.get_field_index("label"), "label", labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            without_split,
            r"split: expected string, found no such column\. Columns given: review_id, ",
        ),
        (with_long_labels, "label: expected int32, found int64"),
    ],
)
def test_the_error_names_a_column_that_differs_from_the_contract(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    file = parquet(tmp_path / "part.parquet", ROWS)
    table = pq.read_table(file)  # type: ignore[no-untyped-call]  # pyarrow has no stubs for it
    write_parquet(change(table), file)
    with pytest.raises(ContractError, match=rf"gold\.reviews\.{words}"):
        write_snapshot([file], tmp_path / "gold.arrow")
    assert not (tmp_path / "gold.arrow").exists()
