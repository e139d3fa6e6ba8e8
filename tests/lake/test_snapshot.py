from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ContractError, IntegrityError
from pipelines.lake.snapshot import SCHEMA, labels_of, open_snapshot, rows_of, write_snapshot
from pipelines.model.classifier import Policy
from pipelines.train.tokens import tokenise_rows
from tests.support.tiny_encoder import SPECIAL_TOKENS, tokenizer_of

Row = tuple[str, str, int, str]
ROWS: list[Row] = [
    ("a1", "good film", 1, "train"),
    ("a2", "bad", 0, "test"),
    ("b1", "bad film", 0, "train"),
    ("b2", "ça va", 1, "validation"),
    ("c1", "good", 1, "train"),
]


def parquet(file: Path, rows: list[Row]) -> Path:
    columns = {
        "review_id": [row[0] for row in rows],
        "text": [row[1] for row in rows],
        "label": [row[2] for row in rows],
        "split": [row[3] for row in rows],
        "source": ["imdb"] * len(rows),
        "n_characters": [len(row[1]) for row in rows],
        "n_tokens": [len(row[1].split()) for row in rows],
        "states_score": [False] * len(rows),
    }
    pq.write_table(pa.table(columns, schema=SCHEMA), file)  # type: ignore[no-untyped-call]
    return file


def snapshot_from(directory: Path, *parts: list[Row]) -> pa.Table:
    files = [
        parquet(directory / f"part-{number}.parquet", rows) for number, rows in enumerate(parts)
    ]
    write_snapshot(files, directory / "gold.arrow")
    return open_snapshot(directory / "gold.arrow")


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
    assert (rows["review_id"].to_pylist(), labels_of(rows).tolist()) == (ids, labels)
    assert labels_of(rows).dtype == np.int64


def test_the_snapshot_holds_every_column_of_the_contract_as_written(tmp_path: Path) -> None:
    found = snapshot_from(tmp_path, ROWS)
    assert found.schema == SCHEMA
    assert found.sort_by("review_id")["text"].to_pylist() == [row[1] for row in ROWS]


def test_no_text_is_copied_into_memory(tmp_path: Path) -> None:
    long = [(f"{number:06d}", "word " * 200, 1, "train") for number in range(5_000)]
    snapshot_from(tmp_path, long)
    before = pa.total_allocated_bytes()
    rows = rows_of(open_snapshot(tmp_path / "gold.arrow"), "train")
    assert rows.nbytes > 5_000_000
    assert pa.total_allocated_bytes() - before < 100_000


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            [("a0", "x", 1, "train")],
            r"part-1\.parquet: expected review_id in ascending order .*, found a0 after a2",
        ),
        ([("a2", "x", 1, "train")], r"part-1\.parquet: .* without repeats, found a2 after a2"),
    ],
)
def test_rows_out_of_order_are_refused_and_leave_the_old_snapshot(
    tmp_path: Path, second: list[Row], words: str
) -> None:
    snapshot_from(tmp_path, ROWS[2:])
    with pytest.raises(IntegrityError, match=words):
        snapshot_from(tmp_path, ROWS[:2], second)
    assert open_snapshot(tmp_path / "gold.arrow").num_rows == len(ROWS) - 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("split", None),
            r"gold\.reviews\.split: expected string, found no such column\. Columns given: review_id, ",
        ),
        (
            ("label", pa.array([1] * 5, pa.int64())),
            r"gold\.reviews\.label: expected int32, found int64",
        ),
    ],
)
def test_columns_off_the_contract_are_named(
    tmp_path: Path, change: tuple[str, pa.Array | None], words: str
) -> None:
    name, column = change
    table = pq.read_table(parquet(tmp_path / "part.parquet", ROWS))  # type: ignore[no-untyped-call]
    number = table.schema.get_field_index(name)
    table = (
        table.remove_column(number) if column is None else table.set_column(number, name, column)
    )
    pq.write_table(table, tmp_path / "part.parquet")  # type: ignore[no-untyped-call]
    with pytest.raises(ContractError, match=words):
        write_snapshot([tmp_path / "part.parquet"], tmp_path / "gold.arrow")
    assert not (tmp_path / "gold.arrow").exists()


def test_tokens_stand_in_one_flat_array_and_read_back_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.lake.snapshot.CHUNK_ROWS", 2)  # three rows, two chunks
    rows = rows_of(snapshot_from(tmp_path, ROWS), "train")
    good, bad, film = (len(SPECIAL_TOKENS) + number for number in range(3))
    tokens, whole = tokenise_rows(
        rows, tokenizer_of([*SPECIAL_TOKENS, "good", "bad", "film"]), Policy(max_tokens=8)
    )
    assert [tokens[row].tolist() for row in range(len(tokens))] == [
        [2, good, film, 3],
        [2, bad, film, 3],
        [2, good, 3],
    ]
    assert tokens.flat.dtype == np.int32
    assert tokens.lengths.tolist() == [4, 4, 3]
    assert [whole[row].tolist() for row in range(len(whole))] == [
        [good, film],
        [bad, film],
        [good],
    ]  # none added


def test_no_rows_give_no_tokens(tmp_path: Path) -> None:
    tokens, whole = tokenise_rows(
        rows_of(snapshot_from(tmp_path, ROWS), "none"), tokenizer_of(SPECIAL_TOKENS), Policy()
    )
    assert (len(tokens), tokens.flat.size, tokens.lengths.tolist(), len(whole)) == (0, 0, [], 0)
