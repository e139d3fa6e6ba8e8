"""What came of each delivered file: ops.deliveries, which also tells which files are known.

A file counts as known by path, size and time of change, if it was read with the same settings.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.errors import InputError, JobError
from pipelines.ingest.fetch import require_readable
from pipelines.ingest.files import FoundFile
from pipelines.ingest.reading import HashedFile
from pipelines.lake import ledger
from pipelines.lake.commits import Commit
from pipelines.lake.frames import rows_now
from pipelines.lake.ledger import PLACES
from pipelines.lake.tables import TableStore
from pipelines.program import one_line
from pipelines.provenance import sha256_of
from schemas import OPS_DELIVERIES

log = logging.getLogger("reviewlake")

ADDED, KNOWN, REFUSED, WAITING = "added", "known", "refused", "waiting"


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    file: HashedFile
    outcome: str
    n_rows: int | None = None
    error: JobError | None = None


def settings_sha256(config: Any) -> str:
    """Return the hash of the settings that decide what is read of a file, and how."""
    settings = {name: value for name, value in cli.as_params(config).items() if name not in PLACES}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def taken_before(store: TableStore, settings: str) -> list[dict[str, Any]]:
    """Return the rows of ops.deliveries whose files were taken, and are in bronze still.

    None with --rerun.
    """
    if store.config.rerun:
        return []
    rows = [row for row in store.rows(OPS_DELIVERIES) if row["outcome"] in (ADDED, KNOWN)]
    # A run that was killed before its row, or whose table was restored, is done again.
    keys = ledger.intact_keys(store, "ingest") if rows else set()
    return [row for row in rows if row["settings_sha256"] == settings and row["run_key"] in keys]


def new_files(
    found: Sequence[FoundFile],
    taken: Sequence[Mapping[str, Any]],
    passed_over: Collection[FoundFile],
) -> list[FoundFile]:
    """Return the files that, as they are now, were neither taken before nor are passed over."""
    states = {FoundFile(Path(row["path"]), row["bytes"], row["modified_ns"]) for row in taken}
    return [file for file in found if file not in states and file not in passed_over]


def split_known(
    files: Sequence[HashedFile], taken: Sequence[Mapping[str, Any]]
) -> tuple[list[HashedFile], list[Outcome]]:
    """Return the files whose bytes are new, and the outcome of those that were taken before."""
    n_rows = {row["source_sha256"]: row["rows"] for row in taken}
    fresh = [file for file in files if file.sha256 not in n_rows]
    known = [file for file in files if file.sha256 in n_rows]
    return fresh, [Outcome(file, KNOWN, n_rows[file.sha256]) for file in known]


def hashed(
    files: Sequence[FoundFile],
) -> tuple[list[HashedFile], list[HashedFile], list[Outcome]]:
    """Return the files with their SHA-256; apart from them copies of these; and unreadable ones."""
    first: dict[str, HashedFile] = {}
    copies, unreadable = [], []
    for found in files:
        try:
            require_readable(found.path)
            file = HashedFile(found, sha256_of(found.path))
        except InputError as error:
            unreadable.append(Outcome(HashedFile(found, ""), REFUSED, error=error))
        except OSError as error:
            refusal = InputError(f"{found.path}: cannot be read: {error.strerror}. Mend it.")
            unreadable.append(Outcome(HashedFile(found, ""), REFUSED, error=refusal))
        else:
            if first.setdefault(file.sha256, file) is not file:
                copies.append(file)
    return list(first.values()), copies, unreadable


def of_copies(copies: Sequence[HashedFile], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcome of each file with the bytes of another one: what came of that one."""
    of_bytes = {outcome.file.sha256: outcome for outcome in outcomes}
    return [
        replace(of_bytes[file.sha256], file=file, outcome=KNOWN)
        if of_bytes[file.sha256].outcome == ADDED
        else replace(of_bytes[file.sha256], file=file)
        for file in copies
    ]


def record(
    store: TableStore, outcomes: Sequence[Outcome], *, source: str, settings: str, run_key: str
) -> Commit:
    """Add a row for each file to ops.deliveries."""
    rows = [
        (
            str(outcome.file.path),
            outcome.file.found.n_bytes,
            outcome.file.found.modified_ns,
            source,
            outcome.file.sha256 or None,
            settings,
            outcome.n_rows,
            outcome.outcome,
            str(outcome.error) if outcome.error else None,
            run_key,
        )
        for outcome in outcomes
    ]
    return store.append(OPS_DELIVERIES, rows_now(store.spark, OPS_DELIVERIES, rows))


def report(outcomes: Sequence[Outcome], n_unchanged: int, *, raises: bool) -> None:
    """Log each error, unless it will be raised, and how many files had which outcome."""
    for outcome in outcomes:
        if outcome.error and not raises:
            log.error("%s", one_line(outcome.error))
    counts = Counter(outcome.outcome for outcome in outcomes)
    if n_unchanged:
        counts["unchanged"] = n_unchanged
    if counts.total() > 1:
        words = ", ".join(f"{n:,} {name}" for name, n in counts.items())
        log.info("ingest: %d files: %s; ops.deliveries lists them", counts.total(), words)


def raise_worst(outcomes: Sequence[Outcome], n_paths: int) -> None:
    """Raise the error of the one file, or one for all that were refused, with the worst exit code.

    A file that is still being written is no error where others were taken: the next run takes it.
    """
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if n_paths == 1 and errors:
        raise errors[0]
    refused = [out.error for out in outcomes if out.error and out.outcome == REFUSED]
    if refused:
        worst = max(refused, key=lambda error: error.exit_code)
        raise type(worst)(
            f"ingest: {len(refused):,} of {n_paths:,} files were refused, as the lines above say; "
            "ops.deliveries keeps the reasons. Mend them, and ingest again."
        )
    if len(errors) == n_paths:
        raise errors[0]
