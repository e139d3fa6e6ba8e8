"""One record of a delivered file, made from the cells of its columns."""

import difflib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.ingest.decoding import Source
from pipelines.quoting import shown

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


def require_columns(
    source: Source, present: Sequence[str], *, wanted: Sequence[str], place: str = ""
) -> None:
    """Raise ContractError unless each wanted column is there once; log the ignored ones."""
    if missing := [name for name in wanted if name not in present]:
        alike = [name for each in missing for name in _alike(each, present)]
        question = f"Did you mean {shown_names(alike)}? " if alike else ""
        raise source.fault(
            f"missing columns: {shown_names(missing)}; present: {shown_names(present)}",
            f"{question}Name the columns with --text-column, --label-column or --split-column.",
            place=place,
        )
    if duplicate := sorted({name for name in wanted if present.count(name) > 1}):
        raise source.fault(f"duplicate columns: {shown_names(duplicate)}", "Rename one of each.")
    if extra := [name for name in present if name not in wanted]:
        log.info("%s: ignored columns %s", source.name, shown_names(extra))


def require_rows(source: Source, *, n_rows: int) -> None:
    """Raise ContractError for a file without rows."""
    if not n_rows:
        raise source.fault("the file has no rows", "Deliver the file again.")


def record_of(
    source: Source, columns: Columns, *, row_number: int, cells: Mapping[str, Any]
) -> Record:
    """Return the record of a row's cells. Raises ContractError for a cell of another type."""
    text = cells[columns.text]
    label = cells[columns.label] if columns.label else None
    split = cells[columns.split] if columns.split else None
    if text is not None and not isinstance(text, str) and not _is_nan(text):
        raise source.fault(
            f"expected text or null, found {type(text).__name__}",
            "Choose another --text-column.",
            place=place_of(row_number, columns.text),
        )
    fault = None
    if not isinstance(text, str):
        fault = "text is null"
    elif not _is_utf8(text):
        fault = "text holds half a surrogate pair"
    return Record(
        row_number=row_number,
        member=source.member,
        text=None if fault else text,
        label=_label(source, columns, row_number=row_number, value=label),
        split=_split(source, columns, row_number=row_number, value=split),
        fault=fault,
    )


def place_of(row_number: int, column: str) -> str:
    """Return the words for one cell."""
    return f"row {row_number}, column {shown_names([column])}"


def shown_names(names: Sequence[str]) -> str:
    """Return column names for a message, escaped and cut; in quotes if blanks stand around one.

    If the file has no header, its first row is taken for one, and the names are review texts.
    """
    cut = [shown(name, SHOWN_CHARACTERS) for name in names[:SHOWN_NAMES]]
    listed = [name if name and name == name.strip() else f"'{name}'" for name in cut]
    more = ["…"] if len(names) > SHOWN_NAMES else []
    return ", ".join(listed + more) or "none"


def _alike(wanted: str, present: Sequence[str]) -> list[str]:
    """Return the columns that differ in case or blanks only, or else the most similar one."""
    folded = {name: name.strip().casefold() for name in present}
    target = wanted.strip().casefold()
    same = [name for name, key in folded.items() if key == target]
    close = difflib.get_close_matches(target, list(folded.values()), n=1)
    return same or [name for name, key in folded.items() if key in close]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | Decimal) and math.isnan(value)


def _is_utf8(value: str) -> bool:
    r"""Return whether UTF-8 can encode this text; it cannot encode JSON's lone "\ud800"."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(source: Source, columns: Columns, *, row_number: int, value: Any) -> str | None:
    """Return the label as text: None for "" and NaN; numbers and booleans as in JSON."""
    if value is None or value == "" or _is_nan(value):
        return None
    if isinstance(value, str) and _is_utf8(value):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Decimal):
        return str(value)
    problem = f"expected text, a number or a boolean as label, found {type(value).__name__}"
    if isinstance(value, str):
        problem = "the label holds half a surrogate pair"
    place = place_of(row_number, columns.label)
    raise source.fault(problem, "Choose another --label-column.", place=place)


def _split(source: Source, columns: Columns, *, row_number: int, value: Any) -> str | None:
    if value is None or value == "" or _is_nan(value):
        return None
    spelling = str(value).strip().lower()
    if spelling not in SPLIT_SPELLINGS:
        other = f"another word of {len(str(value))} characters"
        raise source.fault(
            f"expected train, validation or test, found {other}",
            "Correct it, or leave --split-column out.",
            place=place_of(row_number, columns.split),
        )
    return SPLIT_SPELLINGS[spelling]
