"""Strict readers: a delivered file as records, each character as delivered.

Spark's CSV reader normalises line ends and lets an unterminated quote swallow the rows after it,
so these readers parse, and theirs is the count that Spark's must agree with. A fault of the file
raises; a fault of a row stays with its row, for silver.rejects.
"""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.errors import InputError
from pipelines.ingest.decoding import Source, opened

if TYPE_CHECKING:  # imported where a Parquet file is read: a job's flags need no pyarrow
    import pyarrow as pa

FIELD_CHARACTERS = 16 << 20  # bounds what an unterminated quote can pull into memory
BATCH_ROWS = 10_000
CSV_FAULTS = {
    "unexpected end of data": "none before the end of the file",
    "',' expected after '\"'": "text after one",
}
SPLIT_SPELLINGS = {  # each spelling of a split that a file may use
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
SHOWN_NAMES = 10  # column names in a message
SHOWN_CHARACTERS = 24  # of each of them
log = logging.getLogger("reviewlake")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a delivered file."""

    row_number: int  # from 1, header not counted
    member: str  # of an archive, else ""
    text: str | None  # null only with a `fault`
    label: str | None
    split: str | None  # train, validation or test
    fault: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns hold what; "" for a label or split that the file does not have."""

    text: str
    label: str = ""
    split: str = ""

    @property
    def named(self) -> tuple[str, ...]:
        """The columns in use."""
        return tuple(name for name in (self.text, self.label, self.split) if name)


def read_csv(
    source: Source, columns: Columns, only: tuple[str, str] | None = None
) -> Iterator[Record]:
    """Records of a CSV file with a header, quoted as RFC 4180 says; a blank line is no record.

    `only` = (column, value) keeps the records with that value; their row numbers stay those of the whole file.
    """
    with opened(source, newline="") as lines:
        rows = _csv_rows(source, lines)
        header = next(rows, [])
        only_column = (only[0],) if only else ()
        _require_columns(source, header, wanted=(*columns.named, *only_column))
        row_number = 0
        for row_number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                yield Record(
                    row_number=row_number,
                    member=source.member,
                    text=None,
                    label=None,
                    split=None,
                    fault=f"{len(row)} fields, expected {len(header)}",
                )
                continue
            cells = dict(zip(header, row, strict=True))
            if only is None or cells[only[0]] == only[1]:
                yield _record(source, columns, row_number=row_number, cells=cells)
        _require_rows(source, n_rows=row_number)


def read_jsonl(source: Source, columns: Columns) -> Iterator[Record]:
    """Records of a file with one JSON object a line; a blank line is no record."""
    with opened(source, newline="\n") as lines:
        row_number = 0
        for row_number, line in enumerate(filter(str.strip, lines), start=1):
            place = f"row {row_number}"
            cells = _json_object(source, line, place=place)
            if row_number == 1 or not cells.keys() >= set(columns.named):
                _require_columns(source, list(cells), wanted=columns.named, place=place)
            yield _record(source, columns, row_number=row_number, cells=cells)
        _require_rows(source, n_rows=row_number)


def read_parquet(source: Source, columns: Columns) -> Iterator[Record]:
    """Records of a Parquet file, its page checksums verified where it has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row_number = 0
    try:
        with pq.ParquetFile(source.path, page_checksum_verification=True) as file:  # type: ignore[no-untyped-call]  # no stubs
            _require_columns(source, file.schema_arrow.names, wanted=columns.named)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns.named)):
                for index in range(batch.num_rows):
                    row_number += 1
                    cells = {
                        name: _cell(source, batch[name][index], place=_place(row_number, name))
                        for name in columns.named
                    }
                    yield _record(source, columns, row_number=row_number, cells=cells)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{source.name}: expected a whole Parquet file, found: {reason}. Get it again."
        ) from error
    _require_rows(source, n_rows=row_number)


def _csv_rows(source: Source, lines: TextIO) -> Iterator[list[str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = csv.reader(lines, strict=True)
    row_number = 0  # of the record being read; 0 is the header
    while True:
        first_line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fault = CSV_FAULTS.get(str(error), str(error))
            start = f"The record starts on line {first_line}"
            advice = f"{start}; double each quote inside a quoted field."
            place = f"row {row_number}" if row_number else "header"
            raise source.fault("a closing quote", fault, advice, place=place) from error
        if row:
            row_number += 1
            yield row


def _place(row_number: int, column: str) -> str:
    return f"row {row_number}, column {column}"


def _json_object(source: Source, line: str, *, place: str) -> dict[str, Any]:
    advice = "Write one object a line, each key once."
    try:
        value = json.loads(line, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        raise source.fault("a JSON object", str(error), advice, place=place) from error
    if not isinstance(value, dict):
        raise source.fault("a JSON object", f"a {type(value).__name__}", advice, place=place)
    return value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ValueError("a key twice")
    return cells


def _cell(source: Source, value: "pa.Scalar", *, place: str) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        undecodable = f"byte 0x{error.object[error.start]:02x} at byte {error.start} of the value"
        advice = "Write the file again with text as UTF-8."
        raise source.fault("utf-8", undecodable, advice, place=place) from error


def _require_columns(
    source: Source, present: Sequence[str], *, wanted: Sequence[str], place: str = ""
) -> None:
    if twice := sorted({name for name in present if present.count(name) > 1}):
        raise source.fault("each column once", f"{', '.join(twice)} twice", "Rename one.")
    if missing := [name for name in wanted if name not in present]:
        advice = "Name the file's own with --text-column, --label-column or --split-column."
        lacking = f"column {', '.join(missing)}"
        raise source.fault(lacking, f"columns {_shown(present)}", advice, place=place)
    if extra := [name for name in present if name not in wanted]:
        log.info("%s: left out columns %s", source.name, _shown(extra))


def _shown(names: Sequence[str]) -> str:
    """Names for a message, cut: a file without a header has its first review taken for one."""
    shown = []
    for name in names[:SHOWN_NAMES]:
        is_long = len(name) > SHOWN_CHARACTERS
        shown.append(name[:SHOWN_CHARACTERS] + "…" if is_long else name)
    if len(names) > SHOWN_NAMES:
        shown.append("…")
    return ", ".join(shown) or "none"


def _require_rows(source: Source, *, n_rows: int) -> None:
    if not n_rows:
        raise source.fault("reviews", "no rows", "Deliver it again.")


def _record(
    source: Source, columns: Columns, *, row_number: int, cells: Mapping[str, Any]
) -> Record:
    text = cells[columns.text]
    if text is not None and not isinstance(text, str):
        advice = "Choose another --text-column."
        place = _place(row_number, columns.text)
        raise source.fault("text or null", type(text).__name__, advice, place=place)
    fault = None
    if text is None:
        fault = "text is null"
    elif not _is_utf8(text):
        fault = "text holds half a surrogate pair"
    label = cells.get(columns.label)
    split = cells.get(columns.split)
    return Record(
        row_number=row_number,
        member=source.member,
        text=None if fault else text,
        label=_label(source, label, place=_place(row_number, columns.label)),
        split=_split(source, split, place=_place(row_number, columns.split)),
        fault=fault,
    )


def _is_utf8(value: str) -> bool:
    r"""Whether UTF-8 can hold this text: not so JSON's "\ud800"."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(source: Source, value: Any, *, place: str) -> str | None:
    """The label as text: "" is none, and a number or truth value is written as JSON writes it."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and _is_utf8(value):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    advice = "Choose another --label-column."
    raise source.fault("a label", type(value).__name__, advice, place=place)


def _split(source: Source, value: Any, *, place: str) -> str | None:
    if value is None or value == "":
        return None
    spelling = str(value).strip().lower()
    if spelling not in SPLIT_SPELLINGS:
        advice = "Correct it, or leave --split-column out."
        other = f"another word of {len(str(value))} characters"
        raise source.fault("train, validation or test", other, advice, place=place)
    return SPLIT_SPELLINGS[spelling]
