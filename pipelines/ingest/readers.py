"""Strict readers: a delivered file as records, each character as delivered.

Spark's CSV reader normalises line ends and lets an unterminated quote swallow the rows after it, so these readers
parse, and theirs is the count that Spark's must agree with. A fault of the file raises; a fault of a row stays with
its row, for silver.rejects.
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
MOST_NAMES, MOST_NAME = 10, 24  # column names in a message, and characters of each
log = logging.getLogger("reviewlake")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a delivered file. A null `text` has a `fault`; `split` is train, validation, test or null."""

    row_number: int  # from 1, header not counted
    member: str  # of an archive, else ""
    text: str | None
    label: str | None
    split: str | None
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
        _require_columns(source, header, (*columns.named, only[0]) if only else columns.named)
        n_rows = 0
        for n_rows, row in enumerate(rows, start=1):
            if len(row) != len(header):
                fault = f"{len(row)} fields, expected {len(header)}"
                yield Record(n_rows, source.member, None, None, None, fault)
                continue
            cells = dict(zip(header, row, strict=True))
            if only is None or cells[only[0]] == only[1]:
                yield _record(source, columns, n_rows, cells)
        _require_rows(source, n_rows)


def read_jsonl(source: Source, columns: Columns) -> Iterator[Record]:
    """Records of a file with one JSON object a line; a blank line is no record."""
    with opened(source, newline="\n") as lines:
        n_rows = 0
        for n_rows, line in enumerate(filter(str.strip, lines), start=1):
            cells = _json_object(source, n_rows, line)
            if n_rows == 1 or not cells.keys() >= set(columns.named):
                _require_columns(source, list(cells), columns.named, f"row {n_rows}")
            yield _record(source, columns, n_rows, cells)
        _require_rows(source, n_rows)


def read_parquet(source: Source, columns: Columns) -> Iterator[Record]:
    """Records of a Parquet file, its page checksums verified where it has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_rows = 0
    try:
        with pq.ParquetFile(source.path, page_checksum_verification=True) as file:  # type: ignore[no-untyped-call]
            _require_columns(source, file.schema_arrow.names, columns.named)
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns.named)):
                for index in range(batch.num_rows):
                    n_rows += 1
                    cells = {
                        name: _cell(source, n_rows, name, batch[name][index])
                        for name in columns.named
                    }
                    yield _record(source, columns, n_rows, cells)
    except (pa.ArrowException, OSError) as error:
        found = str(error).splitlines()[0]
        raise InputError(
            f"{source.name}: expected a whole Parquet file, found: {found}. Get it again."
        ) from error
    _require_rows(source, n_rows)


def _csv_rows(source: Source, lines: TextIO) -> Iterator[list[str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = csv.reader(lines, strict=True)
    n_rows = 0  # the header counts here, so that it is the number of the record being read
    while True:
        n_lines = reader.line_num
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found = CSV_FAULTS.get(str(error), str(error))
            advice = (
                f"The record starts on line {n_lines + 1}; double each quote inside a quoted field."
            )
            place = f"row {n_rows}" if n_rows else "header"
            raise source.fault("a closing quote", found, advice, place=place) from error
        if row:
            n_rows += 1
            yield row


def _json_object(source: Source, row: int, line: str) -> dict[str, Any]:
    advice = "Write one object a line, each key once."
    try:
        value = json.loads(line, object_pairs_hook=_distinct_keys)
    except (ValueError, RecursionError) as error:
        raise source.fault("a JSON object", str(error), advice, place=f"row {row}") from error
    if not isinstance(value, dict):
        found = f"a {type(value).__name__}"
        raise source.fault("a JSON object", found, advice, place=f"row {row}")
    return value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ValueError("a key twice")
    return cells


def _cell(source: Source, row: int, column: str, value: "pa.Scalar") -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} at byte {error.start} of the value"
        advice = "Write the file again with text as UTF-8."
        place = f"row {row}, column {column}"
        raise source.fault("utf-8", found, advice, place=place) from error


def _require_columns(
    source: Source, found: Sequence[str], wanted: Sequence[str], place: str = ""
) -> None:
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise source.fault("each column once", f"{', '.join(twice)} twice", "Rename one.")
    if missing := [name for name in wanted if name not in found]:
        advice = "Name the file's own with --text-column, --label-column or --split-column."
        lacking = f"column {', '.join(missing)}"
        raise source.fault(lacking, f"columns {_shown(found)}", advice, place=place)
    if extra := [name for name in found if name not in wanted]:
        log.info("%s: left out columns %s", source.name, _shown(extra))


def _shown(names: Sequence[str]) -> str:
    """Names for a message, cut: the first row of a file without a header is taken for one, and holds reviews."""
    shown = [
        name if len(name) <= MOST_NAME else name[:MOST_NAME] + "…" for name in names[:MOST_NAMES]
    ]
    return ", ".join([*shown, *(["…"] if len(names) > MOST_NAMES else [])]) or "none"


def _require_rows(source: Source, n_rows: int) -> None:
    if not n_rows:
        raise source.fault("reviews", "no rows", "Deliver it again.")


def _record(source: Source, columns: Columns, row: int, cells: Mapping[str, Any]) -> Record:
    text = cells[columns.text]
    if text is not None and not isinstance(text, str):
        advice = "Choose another --text-column."
        place = f"row {row}, column {columns.text}"
        raise source.fault("text or null", type(text).__name__, advice, place=place)
    fault = (
        "text is null"
        if text is None
        else None
        if _is_text(text)
        else "text holds half a surrogate pair"
    )
    label = _label(source, columns.label, row, cells)
    return Record(
        row,
        source.member,
        None if fault else text,
        label,
        _split(source, columns.split, row, cells),
        fault,
    )


def _is_text(value: str) -> bool:
    r"""False for text that UTF-8 cannot hold, as JSON's "\ud800"."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(source: Source, column: str, row: int, cells: Mapping[str, Any]) -> str | None:
    """The label as text: "" is none, and a number or truth value is written as JSON writes it."""
    value = cells.get(column)
    if value is None or value == "":
        return None
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value)
        if isinstance(value, bool | int | float)
        else None
    )
    if text is None or not _is_text(text):
        advice = "Choose another --label-column."
        place = f"row {row}, column {column}"
        raise source.fault("a label", type(value).__name__, advice, place=place)
    return text


def _split(source: Source, column: str, row: int, cells: Mapping[str, Any]) -> str | None:
    value = cells.get(column)
    if value is None or value == "":
        return None
    if (split := SPLIT_SPELLINGS.get(str(value).strip().lower())) is None:
        advice = "Correct it, or leave --split-column out."
        found = f"another word of {len(str(value))} characters"
        place = f"row {row}, column {column}"
        raise source.fault("train, validation or test", found, advice, place=place)
    return split
