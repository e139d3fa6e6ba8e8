"""Read a CSV file strictly into records, each character as delivered.

Spark's CSV reader normalises line ends, and an unterminated quote makes it lose the rows that
follow. So this reader parses the file, and Spark must count as many rows. An invalid file
raises an error; an invalid row is kept with its fault, for silver.rejects.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from pipelines.ingest.decoding import Source, opened
from pipelines.ingest.records import Columns, Record, record_of, require_columns, require_rows

FIELD_CHARACTERS = 16 << 20  # limits the memory that an unterminated quote can take
UNCLOSED = "unexpected end of data"  # words of Python's csv
AFTER_QUOTE = "expected after"
DELIMITERS = {"\t": "tab", ";": "';'", "|": "'|'", ",": "','"}  # as they are passed


@dataclass(frozen=True)
class Dialect:
    """The characters that structure a CSV file; by default those of RFC 4180."""

    delimiter: str = ","
    quote: str = '"'  # "" if no field is quoted
    escape: str = ""  # marks a quote inside a quoted field, which doubling always does


RFC_4180 = Dialect()


def read_csv(
    source: Source,
    columns: Columns,
    *,
    dialect: Dialect = RFC_4180,
    only: tuple[str, str] | None = None,
) -> Iterator[Record]:
    """Read the records of a CSV file with a header; skip blank lines.

    `only` = (column, value) keeps the records with that value. They keep their row numbers.
    """
    wanted = (*columns.named, only[0]) if only else columns.named
    with opened(source, newline="") as lines:
        rows = _rows(source, lines, dialect)
        header = next(rows, [])
        _require_delimiter(source, header, wanted=wanted, dialect=dialect)
        require_columns(source, header, wanted=wanted)
        position_of = {name: header.index(name) for name in wanted}
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
            cells = {name: row[position] for name, position in position_of.items()}
            if only is None or cells[only[0]] == only[1]:
                yield record_of(source, columns, row_number=row_number, cells=cells)
        require_rows(source, n_rows=row_number)


def _rows(source: Source, lines: TextIO, dialect: Dialect) -> Iterator[list[str]]:
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = csv.reader(
        _with_other_escapes_kept(lines, dialect) if dialect.escape else lines,
        strict=True,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        escapechar=dialect.escape or None,
    )
    row_number = 0  # row being read; 0 is the header
    while True:
        first_line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place = f"row {row_number}" if row_number else "header"
            advice = (
                f"The record starts on line {first_line}; double each quote inside a quoted field, "
                "or pass --escape if another character marks it, or --quote none."
            )
            raise source.fault(_fault(error), advice, place=place) from error
        if row:
            row_number += 1
            yield row


def _fault(error: csv.Error) -> str:
    words = str(error)
    if words == UNCLOSED:
        return "no closing quote before the end of the file"
    return "text after a closing quote" if AFTER_QUOTE in words else words


def _with_other_escapes_kept(lines: Iterable[str], dialect: Dialect) -> Iterator[str]:
    """Double each escape character that marks nothing: Python's csv would drop it."""
    escape = dialect.escape
    marked = {escape, dialect.quote} if dialect.quote else {escape, dialect.delimiter, "\n", "\r"}

    def kept(pair: re.Match[str]) -> str:
        return pair[0] if pair[1] in marked else escape + pair[0]

    pattern = re.compile(f"{re.escape(escape)}(.?)", re.DOTALL)
    return (pattern.sub(kept, line) for line in lines)


def _require_delimiter(
    source: Source, header: Sequence[str], *, wanted: Sequence[str], dialect: Dialect
) -> None:
    """Raise ContractError for a header that is one column only by another delimiter."""
    if len(header) != 1 or header[0] in wanted:
        return
    for delimiter, spelling in DELIMITERS.items():
        if delimiter in header[0] and delimiter != dialect.delimiter:
            raise source.fault(
                f"the header is one column that holds {spelling}", f"Pass --delimiter {spelling}."
            )
