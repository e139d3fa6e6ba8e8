"""Read a delivered file strictly into records, each character as delivered.

Spark's CSV reader normalises line ends, and an unterminated quote makes it lose the rows that
follow. So these readers parse the file, and Spark must count as many rows. An invalid file
raises an error; an invalid row is kept with its fault, for silver.rejects.
"""

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.errors import InputError
from pipelines.ingest.decoding import Source, opened

if TYPE_CHECKING:  # imported only where a Parquet file is read: 0.2 s that flags do not need
    import pyarrow as pa

FIELD_CHARACTERS = 16 << 20  # limits the memory that an unterminated quote can take
BATCH_ROWS = 10_000
CSV_FAULTS = {  # of Python's csv, in our words
    "unexpected end of data": "no closing quote before the end of the file",
    "',' expected after '\"'": "text after a closing quote",
}
SPLIT_SPELLINGS = {  # the spellings that a file may use
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

    row_number: int  # from 1, without the header
    member: str  # name inside the archive; "" if the file is not from one
    text: str | None  # None only if there is a fault
    label: str | None
    split: str | None  # train, validation or test
    fault: str | None = None


@dataclass(frozen=True)
class Columns:
    """The columns that hold text, label and split; "" if the file has no label or no split."""

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
    """Read the records of a CSV file with a header, quoted as in RFC 4180; skip blank lines.

    `only` = (column, value) keeps the records with that value. They keep their row numbers.
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
    """Read the records of a file with one JSON object per line; skip blank lines."""
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
    """Read the records of a Parquet file and verify the page checksums, if it has any."""
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
        raise InputError(f"{source.name}: damaged Parquet file: {reason}. Get it again.") from error
    _require_rows(source, n_rows=row_number)


def _csv_rows(source: Source, lines: TextIO) -> Iterator[list[str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = csv.reader(lines, strict=True)
    row_number = 0  # row being read; 0 is the header
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
            raise source.fault(fault, advice, place=place) from error
        if row:
            row_number += 1
            yield row


def _place(row_number: int, column: str) -> str:
    return f"row {row_number}, column {column}"


def _json_object(source: Source, line: str, *, place: str) -> dict[str, Any]:
    advice = "Write one object per line, each key once."
    try:
        value = json.loads(line, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        raise source.fault(f"invalid JSON: {error}", advice, place=place) from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise source.fault(f"expected a JSON object, found a {kind}", advice, place=place)
    return value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ValueError("duplicate key")
    return cells


def _cell(source: Source, value: "pa.Scalar", *, place: str) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        undecodable = f"byte 0x{error.object[error.start]:02x} at offset {error.start} of the value"
        raise source.fault(
            f"{undecodable} is not valid utf-8",
            "Write the file again with text as UTF-8.",
            place=place,
        ) from error


def _require_columns(
    source: Source, present: Sequence[str], *, wanted: Sequence[str], place: str = ""
) -> None:
    if duplicate := sorted({name for name in present if present.count(name) > 1}):
        raise source.fault(f"duplicate columns: {_shown(duplicate)}", "Rename one of each.")
    if missing := [name for name in wanted if name not in present]:
        raise source.fault(
            f"missing columns: {', '.join(missing)}; present: {_shown(present)}",
            "Name the columns with --text-column, --label-column or --split-column.",
            place=place,
        )
    if extra := [name for name in present if name not in wanted]:
        log.info("%s: ignored columns %s", source.name, _shown(extra))


def _shown(names: Sequence[str]) -> str:
    """Return the names for a message, escaped and cut.

    If the file has no header, its first row is taken for one, and the names are review texts.
    """
    shown = []
    for name in names[:SHOWN_NAMES]:
        printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
        is_long = len(printable) > SHOWN_CHARACTERS
        shown.append(printable[:SHOWN_CHARACTERS] + "…" if is_long else printable)
    if len(names) > SHOWN_NAMES:
        shown.append("…")
    return ", ".join(shown) or "none"


def _require_rows(source: Source, *, n_rows: int) -> None:
    if not n_rows:
        raise source.fault("the file has no rows", "Deliver the file again.")


def _record(
    source: Source, columns: Columns, *, row_number: int, cells: Mapping[str, Any]
) -> Record:
    text = cells[columns.text]
    if text is not None and not isinstance(text, str):
        raise source.fault(
            f"expected text or null, found {type(text).__name__}",
            "Choose another --text-column.",
            place=_place(row_number, columns.text),
        )
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
    r"""Return whether UTF-8 can encode this text; it cannot encode JSON's lone "\ud800"."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(source: Source, value: Any, *, place: str) -> str | None:
    """Return the label as text: None for ""; numbers and booleans as in JSON."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and _is_utf8(value):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    problem = f"expected text, a number or a boolean as label, found {type(value).__name__}"
    if isinstance(value, str):
        problem = "the label holds half a surrogate pair"
    raise source.fault(problem, "Choose another --label-column.", place=place)


def _split(source: Source, value: Any, *, place: str) -> str | None:
    if value is None or value == "":
        return None
    spelling = str(value).strip().lower()
    if spelling not in SPLIT_SPELLINGS:
        other = f"another word of {len(str(value))} characters"
        raise source.fault(
            f"expected train, validation or test, found {other}",
            "Correct it, or leave --split-column out.",
            place=place,
        )
    return SPLIT_SPELLINGS[spelling]
