"""Take the new files of a delivery into bronze: each whole or not at all, one stops no other."""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipelines.errors import JobError
from pipelines.ingest import bronze, deliveries
from pipelines.ingest.deliveries import ADDED, KNOWN, REFUSED, WAITING, Outcome
from pipelines.ingest.files import FoundFile
from pipelines.ingest.reading import ChangedError, HashedFile, staged_files
from pipelines.ingest.sources import Delivery
from pipelines.lake import ledger
from pipelines.lake.commits import Commit
from pipelines.lake.tables import TableStore
from schemas import BRONZE_REVIEWS

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class Taken:
    """What came of the files, and of the rows of those that were taken."""

    outcomes: list[Outcome]
    run: ledger.Run
    counts: dict[str, int]
    commits: list[Commit]  # none if no file was taken


def run(
    store: TableStore,
    config: Any,
    delivery: Delivery,
    found: Sequence[FoundFile],
    *,
    is_watched: bool = False,
    passed_over: Collection[FoundFile] = (),
) -> list[Outcome]:
    """Add the rows of the new files to bronze, and write what came of each to ops.deliveries.

    config       of the job; with the taken files it identifies the run
    is_watched   the caller looks again and again: what a file's size and time tell is enough, and
                 an error is logged here, since none is raised
    passed_over  files that it has seen refused, or finds too fresh
    Returns the outcome of each file, none if all are known.
    """
    settings = deliveries.settings_sha256(config)
    by_time = is_watched or len(found) > 1
    before = deliveries.taken_before(store, settings) if by_time else []
    new = deliveries.new_files(found, before, passed_over)
    if not new:
        if not is_watched:
            n_known = f"{len(found):,}"
            log.info("ingest: nothing new: %s files are known; --rerun reads them", n_known)
        return []
    files, copies, outcomes = deliveries.hashed(new)
    fresh, known = deliveries.split_known(files, before)
    if not by_time and fresh and ledger.already_done(store, run_of(config, fresh)):
        return []
    taken = take(store, config, delivery, fresh)
    outcomes += [*known, *taken.outcomes]
    outcomes += deliveries.of_copies(copies, outcomes)
    listed = deliveries.record(
        store, outcomes, source=delivery.source_name, settings=settings, run_key=taken.run.key
    )
    deliveries.report(outcomes, len(found) - len(new), raises=len(found) == 1 and not is_watched)
    # Written even if no row was added: the last run may have been killed just before this line.
    is_done = taken.commits or (known and not fresh)
    state = "done" if is_done else "refused"
    ledger.finish(store, taken.run, [*taken.commits, listed], taken.counts, state=state)
    return outcomes


def take(
    store: TableStore,
    config: Any,
    delivery: Delivery,
    files: Sequence[HashedFile],
) -> Taken:
    """Read the files and add the rows that bronze lacks, in one commit.

    config  of the job; with the taken files it identifies the run
    """
    started_s = time.monotonic()
    max_rows = delivery.max_rows
    if not files:
        return Taken([], run_of(config, ()), {}, [])
    with staged_files(store, delivery, files, store.config.landing_path) as staged:
        outcomes = [_refusal(file.file, file.error) for file in staged if file.error]
        good = [file for file in staged if not file.error]
        if not good:
            return Taken(outcomes, run_of(config, files), {}, [])
        n_rows = {file.file.sha256: file.n_rows for file in good}
        records = bronze.records_of(store, good)
        chosen = bronze.evenly_spread(records, n_rows, max_rows)
        n_chosen = {sha256: min(n, max_rows) if max_rows else n for sha256, n in n_rows.items()}
        store.create(BRONZE_REVIEWS)
        compared = bronze.compare(store, chosen, n_chosen)
        same = []
        for file in good:
            n_differing = compared.get(file.file.sha256, {}).get("differing", 0)
            if n_differing:
                error = bronze.differing_error(file.file.path.name, n_differing)
                outcomes.append(_refusal(file.file, error))
            else:
                same.append(file)
        if not same:
            return Taken(outcomes, run_of(config, files), {}, [])
        run = replace(run_of(config, [file.file for file in same]), started_s=started_s)
        kept = {file.file.sha256: file.n_rows for file in same}
        n_chosen = {sha256: n_chosen[sha256] for sha256 in kept}
        if len(same) < len(good):
            chosen = bronze.of_files(chosen, kept)
        rows = bronze.bronze_rows(chosen, delivery.source_name, run.key, datetime.now(UTC))
        of_kept = {sha256: counts for sha256, counts in compared.items() if sha256 in kept}
        added, commit = bronze.add_missing(store, rows, n_chosen, of_kept)
    name = files[0].path.name if len(files) == 1 else f"{len(same):,} files"
    left_out = sum(kept.values()) - sum(n_chosen.values())
    counts = {"in": sum(kept.values()), **added, "left_out": left_out}
    listing = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items()]
    log.info("%s: %s", name, ", ".join(listing))
    for file in same:
        is_new = commit.n_added > 0 and of_kept.get(file.file.sha256, {}).get("added", 0) > 0
        outcomes.append(Outcome(file.file, ADDED if is_new else KNOWN, file.n_rows))
    return Taken(outcomes, run, counts, [commit])


def run_of(config: Any, files: Sequence[HashedFile]) -> ledger.Run:
    """Return the run of an ingest of these files; their names and places do not matter."""
    return ledger.start("ingest", config, {file.sha256: file.sha256 for file in files})


def _refusal(file: HashedFile, error: JobError) -> Outcome:
    return Outcome(file, WAITING if isinstance(error, ChangedError) else REFUSED, error=error)
