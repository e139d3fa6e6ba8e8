"""The chain of ops.runs: each row names the row before it, and a note beside the tables its end.

So a row that is missing, altered or written by hand is noticed, the last one and all of them too.
"""

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.errors import IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.lake.links import inside, write_whole

Row = Mapping[str, Any]  # a row of ops.runs, its nested values as dicts and lists


def row_hash(row: Row) -> str:
    """Return the SHA-256 of a row's values. A null counts as absent, so a new column is no change.

    A time without a zone is in this machine's, as Spark gives it.
    """
    present = {name: value for name, value in row.items() if value is not None}
    text = json.dumps(present, sort_keys=True, default=_as_utc)
    return hashlib.sha256(text.encode()).hexdigest()


def ends_of(rows: Sequence[Row]) -> list[str]:
    """Return the hashes of the rows that no later row names.

    It is one, or several where runs ended at once in a store without our lock.
    """
    return sorted({row_hash(row) for row in rows} - _named(rows).keys())


def breaks_of(rows: Sequence[Row], ends: Sequence[str], is_local: bool) -> list[str]:
    """Return one problem for each place where the chain is broken; none if it is whole.

    ends      the noted end of the chain
    is_local  one row follows another, since runs end one after another, under a lock
    Rows of a release that had no chain are part of it once a later row names them.
    """
    ordered = sorted(rows, key=lambda row: _as_utc(row["finished_at"]))
    hashes = [row_hash(row) for row in ordered]
    problems = [*_gaps(ordered, hashes)]
    if is_local:
        problems += _forks(ordered, hashes)
    if not set(hashes).issuperset(ends):
        problems.append("its last row is missing or altered")
    return problems


def note_of(config: LakeConfig) -> Path:
    """Return the file that holds the end of the chain: not in the table, which may be lost."""
    schema = config.schema_names["ops"]
    if config.is_local:
        return inside(config.lake_path, config.lake_path / f"ledger_{schema}.json")
    # One landing directory may serve several catalogs or stores.
    place = hashlib.sha256(config.where.encode()).hexdigest()[:16]
    return config.landing_path / f"ledger_{schema}_{place}.json"


def noted_ends(config: LakeConfig) -> list[str]:
    """Return the noted end of the chain; empty without a note. IntegrityError if it is damaged.

    Read it before the rows: a run that ends meanwhile writes its row first, then the note.
    """
    file = note_of(config)
    try:
        ends = json.loads(file.read_text(encoding="utf-8"))["ends"]
        return [str(end) for end in ends]
    except (FileNotFoundError, NotADirectoryError):  # the lake itself may be a file
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{file}: expected the end of ops.runs' chain, found no such note. Restore the file "
            "from a backup; or delete it, and the next run writes it anew."
        ) from error


def note_ends(config: LakeConfig, rows: Sequence[Row]) -> None:
    """Replace the note, whole or not at all. On a local lake the caller holds the ledger's lock."""
    suffix = "" if config.is_local else uuid.uuid4().hex
    write_whole(note_of(config), json.dumps({"ends": ends_of(rows)}) + "\n", suffix)


def require_noted(config: LakeConfig, ends: Sequence[str], rows: Sequence[Row]) -> None:
    """Raise IntegrityError unless the rows hold the end of the chain that was noted."""
    present = {row_hash(row) for row in rows}
    if not present.issuperset(ends):
        raise IntegrityError(
            "ops.runs: expected the rows that the last run left, found them missing or altered. "
            "Restore the directory of ops.runs from a backup; to go on without those rows, delete "
            f"{note_of(config)}."
        )


def title_of(row: Row) -> str:
    """Name a row for people: its stage and time."""
    return f"the row of {row['stage']}, {_as_utc(row['finished_at'])}"


def _gaps(ordered: Sequence[Row], hashes: Sequence[str]) -> Iterator[str]:
    """Yield each row that follows an unknown row, and each that has no place in the chain."""
    named = _named(ordered)
    is_begun = any(row.get("previous") is not None for row in ordered)
    for row, own_hash in zip(ordered, hashes, strict=True):
        previous = row.get("previous")
        if not set(hashes).issuperset(previous or ()):
            yield f"a row before {title_of(row)} is missing or altered"
        if is_begun and previous is None and own_hash not in named:
            yield f"{title_of(row)} was not written by a job"


def _forks(ordered: Sequence[Row], hashes: Sequence[str]) -> Iterator[str]:
    """Yield each row that is there twice, follows several rows or is followed by several."""
    titles = dict(zip(hashes, map(title_of, ordered), strict=True))
    for own_hash, n_rows in Counter(hashes).items():
        if n_rows > 1:
            yield f"{titles[own_hash]} is there {n_rows} times"
    for own_hash, n_rows in _named(ordered).items():
        if n_rows > 1:
            title = titles.get(own_hash, "a missing row")
            yield f"{n_rows} rows follow {title}: a job writes one"
    chained = [row for row in ordered if row.get("previous") is not None]
    for row in chained[1:]:  # the first one may follow many rows of an older release
        if len(row["previous"]) != 1:
            yield f"{title_of(row)} follows {len(row['previous'])} rows: a job follows one"


def _named(rows: Sequence[Row]) -> Counter[str]:
    """Count how often each row is named by another as the one before it."""
    return Counter(name for row in rows for name in row.get("previous") or ())


def _as_utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
