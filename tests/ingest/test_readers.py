"""CSV, JSON and Parquet files are read strictly and unchanged. Without Spark."""

import csv
import io
import json
import logging
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ContractError, InputError
from pipelines.ingest import json_reader
from pipelines.ingest.csv_reader import Dialect, read_csv
from pipelines.ingest.decoding import Source
from pipelines.ingest.json_reader import CHUNK_CHARACTERS, read_json
from pipelines.ingest.parquet_reader import read_parquet
from pipelines.ingest.records import SPLIT_SPELLINGS, Columns, Record
from schemas import SPLITS

REVIEWS = Columns("text", "label", "split")
TEXT = Columns("text")


def written(folder: Path, name: str, content: bytes) -> Source:
    (folder / name).write_bytes(content)
    return Source(folder / name, name)


def csv_texts(folder: Path, content: bytes) -> list[str | None]:
    return [record.text for record in read_csv(written(folder, "r.csv", content), TEXT)]


def row(
    number: int,
    text: str | None,
    label: str | None = None,
    split: str | None = None,
    fault: str = "",
) -> Record:
    return Record(
        row_number=number,
        member="",
        text=text,
        label=label,
        split=split,
        fault=fault or None,
    )


def test_csv_records_are_numbered_from_one_and_keep_their_label_and_split(tmp_path: Path) -> None:
    content = (
        b"text,label,split\r\nGood,pos,train\r\nBad,neg,valid\r\n\r\nSo so,,\r\nFine,1,TEST\r\n"
    )
    assert list(read_csv(written(tmp_path, "r.csv", content), REVIEWS)) == [
        row(1, "Good", "pos", "train"),
        row(2, "Bad", "neg", "validation"),
        row(3, "So so"),
        row(4, "Fine", "1", "test"),
    ]


def test_only_the_columns_in_use_must_have_a_name_of_their_own(tmp_path: Path) -> None:
    content = b",text,note,note,,\n0,Good,a,b,,\n1,Bad,a,b,c,d\n"
    assert csv_texts(tmp_path, content) == ["Good", "Bad"]


def test_each_spelling_of_a_split_means_a_split_of_the_tables() -> None:
    assert set(SPLIT_SPELLINGS.values()) == set(SPLITS) <= SPLIT_SPELLINGS.keys()


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (b'"a\r\nb"', "a\r\nb"),
        (b'"a\nb\rc"', "a\nb\rc"),
        (b'"say ""no"""', 'say "no"'),
        (b'5" reel', '5" reel'),
        (b"  padded  ", "  padded  "),
        (b'""', ""),
        (b"a\x00b", "a\x00b"),
        (b"a\\nb\\", "a\\nb\\"),
        ("\u00e9\u0085\u2028\U0001f600\ufeff".encode(), "\u00e9\u0085\u2028\U0001f600\ufeff"),
        (b"null", "null"),
    ],
)
def test_csv_text_is_kept_character_for_character(tmp_path: Path, cell: bytes, text: str) -> None:
    content = b"text,label\n" + cell + b",1\nnext,0\n"
    assert csv_texts(tmp_path, content) == [text, "next"]


KAGGLE = Dialect(delimiter="\t", escape="\\")


@pytest.mark.parametrize(
    ("dialect", "row_bytes", "cells"),
    [
        (Dialect(delimiter=";"), b'"a; ""b"", c";x', ('a; "b", c', "x")),
        (Dialect(quote="'"), b"'it''s, \"so\"',x", ('it\'s, "so"', "x")),
        (Dialect(quote=""), b'5" reel", he said,x', ('5" reel"', " he said", "x")),
        (Dialect(quote="", escape="\\"), b"a\\,b\\c,x", ("a,b\\c", "x")),
        (KAGGLE, b'"a \\"b\\",\tc"\tx', ('a "b",\tc', "x")),
        (KAGGLE, rb'"AC\DC \\ C:\new\""""' + b"\tx", ('AC\\DC \\ C:\\new""', "x")),
        (KAGGLE, b'"line\\\nbreak"\tx', ("line\\\nbreak", "x")),
    ],
)
def test_other_marks_than_those_of_rfc_4180_are_read_and_lose_nothing(
    tmp_path: Path, dialect: Dialect, row_bytes: bytes, cells: tuple[str, ...]
) -> None:
    names = ("text", "label", "more")[: len(cells)]
    header = dialect.delimiter.join(names).encode()
    source = written(tmp_path, "r.csv", header + b"\n" + row_bytes + b"\n")
    [record] = read_csv(
        source, Columns("text", names[-1] if len(cells) == 2 else ""), dialect=dialect
    )
    assert (record.text, record.fault) == (cells[0], None)
    assert record.label == (cells[1] if len(cells) == 2 else None)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_texts_with_escaped_quotes_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    content = "\n".join(["text\tn", *[f'"{text}"\t1' for text in escaped], ""])
    source = written(tmp_path_factory.mktemp("tsv"), "r.tsv", content.encode())
    assert [record.text for record in read_csv(source, TEXT, dialect=KAGGLE)] == texts


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_csv_texts_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(["text"])
    writer.writerows([text] for text in texts)
    content = file.getvalue().encode()
    assert csv_texts(tmp_path_factory.mktemp("csv"), content) == texts


def test_a_record_with_too_few_or_too_many_fields_is_a_fault_of_that_row(tmp_path: Path) -> None:
    content = b"text,label\nGood,1\nGood, but long,1\nalone\nBad,0\n"
    assert list(read_csv(written(tmp_path, "r.csv", content), Columns("text", "label"))) == [
        row(1, "Good", "1"),
        row(2, None, fault="3 fields, expected 2"),
        row(3, None, fault="1 fields, expected 2"),
        row(4, "Bad", "0"),
    ]


def test_only_keeps_the_rows_with_a_value_and_their_numbers(tmp_path: Path) -> None:
    source = written(tmp_path, "r.csv", b"text,source\na,imdb\nb,rt\nc,imdb\n")
    records = read_csv(source, TEXT, only=("source", "imdb"))
    assert [record.row_number for record in records] == [1, 3]


def test_a_long_or_unprintable_name_of_a_column_is_cut_and_escaped_in_the_message(
    tmp_path: Path,
) -> None:
    header = "\x1b[2J," + "x" * 60 + "\n"
    with pytest.raises(ContractError, match=r"present: \\x1b\[2J, x{15}…x{8}\. Name the columns"):
        csv_texts(tmp_path, header.encode() + b"a,b\n")


def test_extra_columns_are_ignored_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "reviewlake"):
        assert csv_texts(tmp_path, b"id,text,stars\n7,Good,9\n") == ["Good"]
    assert caplog.messages == ["r.csv: ignored columns id, stars"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.csv: the file is empty"),
        (b"\xef\xbb\xbf", "r.csv: the file is empty"),
        (b"\n\n", "r.csv: missing columns: text, label, split; present: none"),
        (b"text,label,split\n", "r.csv: the file has no rows"),
        (
            b"review,label,split\na,1,train\n",
            "r.csv: missing columns: text; present: review, label, split. Name",
        ),
        (
            b"text,text,label,split\na,b,1,train\n",
            "r.csv: duplicate columns: text. Rename",
        ),
        (
            b"Text ,label,splits\na,1,train\n",
            "r.csv: missing columns: text, split; present: 'Text ', label, splits. "
            "Did you mean 'Text ', splits\\? Name the columns with --text-column",
        ),
        (
            b"text;label;split\na;1;train\n",
            "r.csv: the header is one column that holds ';'. Pass --delimiter ';'.",
        ),
        (
            b"text\tlabel\tsplit\na\t1\ttrain\n",
            "r.csv: the header is one column that holds tab. Pass --delimiter tab.",
        ),
        (
            b"text,label,split\na,1,later\n",
            "r.csv row 1, column split: expected train, validation or test, found",
        ),
        (
            b'text,label,split\na,1,train\n"open,0,test\nb,1,test\n',
            "r.csv row 2: no closing quote before the end of the file. The record starts on line 3",
        ),
        (
            b'text,label,split\n"a\nb",1,train\nc,"1,test\nd,"0,test\n',
            "r.csv row 2: text after a closing quote. The record starts on line 4",
        ),
        (
            b'text,"label,split\na,1,train\n',
            "r.csv header: no closing quote before the end of the file",
        ),
        (
            b"text,label,split\na,1,train\nb,caf\xe9,test\n",
            "r.csv line 3: byte 0xe9 at offset 32 is not valid utf-8.",
        ),
        (
            b"text,label,split\na,1,train\nb\xff,0,test\n",
            "r.csv line 3: byte 0xff at offset 28 is not valid utf-8.",
        ),
        (
            b"text,l\xe9bel,split\na,1,train\n",
            "r.csv line 1: byte 0xe9 at offset 6 is not valid utf-8.",
        ),
        (
            b"text,label,split\na,1,train\nb,1,test\xe2\x82",
            "r.csv line 3: byte 0xe2 at offset 35 is not valid utf-8.",
        ),
        (
            "text\nGood".encode("utf-16"),
            "r.csv: expected utf-8, found a UTF-16 byte order mark. Convert the file, or",
        ),
        (
            b"text,label,split\n" + b"x" * (17 << 20) + b",1,test\n",
            "r.csv row 1: field larger than field limit",
        ),
    ],
)
def test_an_invalid_csv_file_is_refused_with_the_place_of_its_fault(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        list(read_csv(written(tmp_path, "r.csv", content), REVIEWS))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            {"text": "a\r\n\u2028b\0", "label": "pos", "split": "dev"},
            row(1, "a\r\n\u2028b\0", "pos", "validation"),
        ),
        ({"text": "a", "label": 1, "split": None, "id": 3}, row(1, "a", "1")),
        ({"text": "a", "label": True, "split": ""}, row(1, "a", "true")),
        ({"text": "a", "label": 0.5, "split": ""}, row(1, "a", "0.5")),
        ({"text": "", "label": "", "split": ""}, row(1, "")),
        ({"text": "a", "label": float("nan"), "split": None}, row(1, "a")),
        (
            {"text": float("nan"), "label": 1, "split": None},
            row(1, None, "1", fault="text is null"),
        ),
        ({"text": None, "label": 0, "split": "test"}, row(1, None, "0", "test", "text is null")),
    ],
)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_json_lines_keep_each_value(
    tmp_path: Path, value: dict[str, Any], expected: Record, is_ascii: bool
) -> None:
    line = json.dumps(value, ensure_ascii=is_ascii).encode()
    source = written(
        tmp_path, "r.jsonl", line + b"\r\n\n" + b'{"text": "end", "label": null, "split": null}'
    )
    assert list(read_json(source, REVIEWS)) == [expected, row(2, "end")]


def test_half_a_surrogate_pair_in_json_is_a_fault_of_that_row(tmp_path: Path) -> None:
    source = written(tmp_path, "r.jsonl", b'{"text": "a\\ud83d"}\n{"text": "b\\ud83d\\ude00"}\n')
    assert list(read_json(source, TEXT)) == [
        row(1, None, fault="text holds half a surrogate pair"),
        row(2, "b\U0001f600"),
    ]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (b'["a"]', "r.jsonl row 2: expected a JSON object, found a list. Write one"),
        (b'{"text": "a"', "r.jsonl row 2: invalid JSON: Expecting ',' delimiter"),
        (
            b'{"text": "a", "text": "b", "label": 1}',
            "r.jsonl row 2: invalid JSON: duplicate key",
        ),
        (b"[" * 100_000, "r.jsonl row 2: invalid JSON: maximum recursion depth"),
        (b'{"text": "a"}', "r.jsonl row 2: missing columns: label; present: text"),
        (b"{}", "r.jsonl row 2: missing columns: text, label; present: none"),
        (
            b'{"text": 5, "label": 1}',
            "r.jsonl row 2, column text: expected text or null, found int",
        ),
        (
            b'{"text": "a", "label": [1]}',
            "r.jsonl row 2, column label: "
            "expected text, a number or a boolean as label, found list",
        ),
        (
            b'{"text": "a", "label": "\\ud800"}',
            "r.jsonl row 2, column label: the label holds half a surrogate pair",
        ),
        (
            b'{"text": "a\xe9", "label": 1}',
            "r.jsonl line 2: byte 0xe9 at offset 40 is not valid utf-8.",
        ),
        (b'{"text": "a\xe9"', "r.jsonl line 2: byte 0xe9 at offset 40 is not valid utf-8."),
    ],
)
def test_an_invalid_json_lines_file_is_refused_with_the_place_of_its_fault(
    tmp_path: Path, second: bytes, message: str
) -> None:
    source = written(tmp_path, "r.jsonl", b'{"text": "Good", "label": 1}\n' + second + b"\n")
    with pytest.raises(ContractError, match=message):
        list(read_json(source, Columns("text", "label")))


def test_one_json_array_is_read_in_chunks(tmp_path: Path) -> None:
    long = "x" * (3 * CHUNK_CHARACTERS)
    rows = [{"text": text, "label": n % 2} for n, text in enumerate(["a", long, "c", "[", long])]
    for content in (json.dumps(rows), "\ufeff \n" + json.dumps(rows, indent=1) + "\n"):
        source = written(tmp_path, "r.json", content.encode())
        records = list(read_json(source, Columns("text", "label")))
        assert [record.text for record in records] == ["a", long, "c", "[", long]
        assert [record.label for record in records] == ["0", "1", "0", "1", "0"]
        assert [record.row_number for record in records] == [1, 2, 3, 4, 5]
    (tmp_path / "r.json").write_text(json.dumps(rows), encoding="utf-16")
    wide = Source(tmp_path / "r.json", "r.json", encoding="utf-16")
    assert [record.text for record in read_json(wide, TEXT)] == ["a", long, "c", "[", long]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "r.json: the file has no rows"),
        (b'[{"text": "a"}', "r.json row 1: no comma or ] after the object"),
        (b'[{"text": "a"},', "r.json row 2: expected a JSON object, found nothing"),
        (b'[{"text": "a"},]', "r.json row 2: expected a JSON object, found another value"),
        (b'[{"text": "a"}, {"text": "b"', "r.json row 2: invalid JSON: Expecting ',' delimiter"),
        (b'[{"text": "a"}, {"text": "b" 3}]', "r.json row 2: invalid JSON: Expecting"),
        (b'[{"text": "a", "text": "b"}]', "r.json row 1: invalid JSON: duplicate key"),
        (b'[{"text": "a"}] {}', "r.json: more text after the array"),
        (b'[{"text": "a"}, {"review": "b"}]', "r.json row 2: missing columns: text; present: rev"),
        (b'[["a"]]', "r.json row 1: expected a JSON object, found another value"),
        (b'[{"text": "a\xe9"}]', "r.json line 1: byte 0xe9 at offset 12 is not valid utf-8"),
    ],
)
def test_an_invalid_json_array_is_refused_with_its_row(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ContractError, match=re.escape(message)):
        list(read_json(written(tmp_path, "r.json", content), TEXT))


def test_an_object_that_never_ends_is_not_read_to_the_end_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_reader, "MAX_OBJECT_CHARACTERS", CHUNK_CHARACTERS)
    source = written(tmp_path, "r.json", b'[{"text": "' + b"x" * (9 * CHUNK_CHARACTERS) + b'"}]')
    with pytest.raises(ContractError, match=r"r\.json row 1: invalid JSON: Unterminated string"):
        list(read_json(source, TEXT))


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_json_lines_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ContractError, match=r"r\.jsonl: the file (is empty|has no rows)"):
        list(read_json(written(tmp_path, "r.jsonl", content), TEXT))


def parquet(folder: Path, table: pa.Table) -> Source:
    pq.write_table(table, folder / "r.parquet", write_page_checksum=True)  # type: ignore[no-untyped-call]  # no stubs
    return Source(folder / "r.parquet", "r.parquet")


def test_parquet_keeps_each_value(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": [1, 2, 3],
            "text": pa.array(["a\r\nb\0", None, ""]).dictionary_encode(),
            "label": pa.array([1, 0, None], pa.int8()),
            "split": ["train", "test", None],
        }
    )
    assert list(read_parquet(parquet(tmp_path, table), REVIEWS)) == [
        row(1, "a\r\nb\0", "1", "train"),
        row(2, None, "0", "test", "text is null"),
        row(3, ""),
    ]


def test_parquet_labels_of_any_number_type_are_text_and_nan_is_none(tmp_path: Path) -> None:
    columns: list[tuple[pa.Array, list[str | None]]] = [
        (pa.array([1.0, float("nan"), 0.5]), ["1.0", None, "0.5"]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([Decimal("1.00"), Decimal("0.5"), None]), ["1.00", "0.50", None]),
        (pa.array([1, 0, 2], pa.uint8()), ["1", "0", "2"]),
        (pa.array([1, 0, None], pa.float16()), ["1.0", "0.0", None]),
    ]
    for labels, expected in columns:
        table = pa.table({"text": ["a", "b", "c"], "label": labels, "": labels, "x": labels})
        records = read_parquet(parquet(tmp_path, table), Columns("text", "label"))
        assert [record.label for record in records] == expected


def test_parquet_rows_are_numbered_across_batches(tmp_path: Path) -> None:
    source = parquet(tmp_path, pa.table({"text": [str(n) for n in range(1, 25_001)]}))
    assert all(record.text == str(record.row_number) for record in read_parquet(source, TEXT))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"review": ["a"]}), "r.parquet: missing columns: text; present: review"),
        (
            pa.table({"text": pa.array([], pa.string())}),
            "r.parquet: the file has no rows",
        ),
        (
            pa.table({"text": [b"a"]}),
            "r.parquet row 1, column text: expected text or null, found bytes",
        ),
        (
            pa.table([pa.array(["a"]), pa.array(["b"])], ["text", "text"]),
            "r.parquet: duplicate columns: text",
        ),
        (
            pa.table({"text": pa.array([b"ok", b"caf\xe9"], pa.binary()).view(pa.string())}),
            "r.parquet row 2, column text: byte 0xe9 at offset 3 of the value is not valid utf-8",
        ),
    ],
)
def test_an_invalid_parquet_file_is_refused_with_the_place_of_its_fault(
    tmp_path: Path, table: pa.Table, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        list(read_parquet(parquet(tmp_path, table), TEXT))


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, damage: str) -> None:
    source = parquet(tmp_path, pa.table({"text": [f"review {n}" for n in range(1000)]}))
    content = source.path.read_bytes()
    damaged = {
        "flipped": content[:200] + bytes([content[200] ^ 1]) + content[201:],
        "cut": content[:-20],
        "empty": b"",
    }
    source.path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"r\.parquet: damaged Parquet file: "):
        list(read_parquet(source, TEXT))
