"""Read a file of JSON objects, one per line or all in one array, strictly into records."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, TextIO

from pipelines.ingest.decoding import Source, opened
from pipelines.ingest.records import Columns, Record, record_of, require_columns, require_rows

CHUNK_CHARACTERS = 1 << 16
MAX_OBJECT_CHARACTERS = 1 << 26  # limits the memory that an unclosed object can take
WHITE = " \t\n\r"
ADVICE = "Write one object per line, or one array of objects; each key once."


def read_json(source: Source, columns: Columns) -> Iterator[Record]:
    """Read the records of a file of JSON objects: JSON lines, or one array. Skips blank lines."""
    with opened(source, newline="\n") as lines:
        objects = _elements(source, lines) if _is_array(lines) else _lines(source, lines)
        row_number = 0
        for row_number, cells in enumerate(objects, start=1):
            if row_number == 1 or not cells.keys() >= set(columns.named):
                place = f"row {row_number}"
                require_columns(source, list(cells), wanted=columns.named, place=place)
            yield record_of(source, columns, row_number=row_number, cells=cells)
        require_rows(source, n_rows=row_number)


def _is_array(lines: TextIO) -> bool:
    """Return whether the file's first character is a bracket. The file is at its start again."""
    first = " "
    while first and first in WHITE:
        first = lines.read(1)
    lines.seek(0)
    return first == "["


def _lines(source: Source, lines: TextIO) -> Iterator[dict[str, Any]]:
    for row_number, line in enumerate(filter(str.strip, lines), start=1):
        place = f"row {row_number}"
        try:
            value = DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            raise source.fault(f"invalid JSON: {error}", ADVICE, place=place) from error
        if not isinstance(value, dict):
            kind = type(value).__name__
            raise source.fault(f"expected a JSON object, found a {kind}", ADVICE, place=place)
        yield value


def _elements(source: Source, lines: TextIO) -> Iterator[dict[str, Any]]:
    """Yield the objects of one array; a few chunks of the file are in memory at a time."""
    rest = _ahead(lines, "")[1:]  # without the bracket
    for row_number in itertools.count(1):
        place = f"row {row_number}"
        rest = _ahead(lines, rest)
        if rest.startswith("]") and row_number == 1:
            break
        value, rest = _next_object(source, lines, rest, place=place)
        yield value
        rest = _ahead(lines, rest)
        if rest.startswith("]"):
            break
        if not rest.startswith(","):
            raise source.fault("no comma or ] after the object", ADVICE, place=place)
        rest = rest[1:]
    if _ahead(lines, rest[1:]):
        raise source.fault("more text after the array", ADVICE)


def _ahead(lines: TextIO, rest: str) -> str:
    """Return the text from the next character that is not white space; "" at the end."""
    rest = rest.lstrip(WHITE)
    while not rest and (chunk := lines.read(CHUNK_CHARACTERS)):
        rest = chunk.lstrip(WHITE)
    return rest


def _next_object(
    source: Source, lines: TextIO, rest: str, *, place: str
) -> tuple[dict[str, Any], str]:
    """Return the object at the start of `rest`, and the text after it. Reads on as needed."""
    if not rest.startswith("{"):
        value = "another value" if rest else "nothing"
        raise source.fault(f"expected a JSON object, found {value}", ADVICE, place=place)
    while True:
        try:
            value, end = DECODER.raw_decode(rest)
            return value, rest[end:]
        except json.JSONDecodeError as error:  # perhaps only because the object goes on
            is_too_long = len(rest) > MAX_OBJECT_CHARACTERS
            chunk = "" if is_too_long else lines.read(max(CHUNK_CHARACTERS, len(rest)))
            if not chunk:
                raise source.fault(f"invalid JSON: {error.msg}", ADVICE, place=place) from error
            rest += chunk
        except (ValueError, RecursionError) as error:
            raise source.fault(f"invalid JSON: {error}", ADVICE, place=place) from error


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ValueError("duplicate key")
    return cells


DECODER = json.JSONDecoder(object_pairs_hook=_distinct_keys)
