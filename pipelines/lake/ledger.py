"""The ledger ops.runs: one row per finished run, and the one answer to "is it already done?".

The ledger of a local lake is read without Spark, so that a job with nothing to do says so before
Java starts.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from pipelines import cli
from pipelines.lake import chain
from pipelines.lake.commits import Commit, versions_left
from pipelines.lake.tables import TableStore
from pipelines.provenance import git_commit
from pipelines.stage_code import code_sha256
from schemas import OPS_RUNS, TABLES, Table

log = logging.getLogger("reviewlake")

# A run's key identifies its result. The places of tables and files do not change it.
PLACES = ("lake", "catalog", "landing", "schemas", "jars", "lock_wait_s", "rerun", "full", "path")
# These are in the run's inputs already: version -1 is version 3 if 3 is the latest one.
RESOLVED = ("gold_version", "model")


@dataclass(frozen=True)
class Run:
    """One run of a stage. `inputs` holds table versions, and hashes of files and models."""

    key: str
    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, int | str]
    code_sha256: str
    started_s: float
    commit: str | None
    is_again: bool  # done again from all rows: with --rerun, or --full


@dataclass(frozen=True)
class Base:
    """The finished run from which an increment goes on."""

    since: int  # version of the input that it read
    versions: Mapping[str, int]  # of each table, as it left it
    rows: Mapping[str, int]


def start(stage: str, config: Any, inputs: Mapping[str, int | str]) -> Run:
    """Return the run of a stage on these inputs, with its key.

    Call it before anything is written: whatever the run's row needs and can fail is read here.
    """
    params = cli.as_params(config)
    settings = {name: value for name, value in params.items() if name not in PLACES}
    code = code_sha256(stage, inputs)
    key = _key_of(stage, settings, inputs, code)
    is_again = bool(params.get("rerun") or params.get("full"))
    return Run(key, stage, settings, inputs, code, time.monotonic(), git_commit(), is_again)


def _key_of(
    stage: str, settings: Mapping[str, Any], inputs: Mapping[str, int | str], code: str
) -> str:
    computed = {name: value for name, value in settings.items() if name not in RESOLVED}
    identity = json.dumps([stage, computed, dict(inputs), code], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def already_done(store: TableStore, run: Run) -> dict[str, int] | None:
    """Return the output versions of an identical finished run if its tables are unchanged."""
    rows = [] if run.is_again else _same_runs(store, run, state="done")
    if not rows:
        return None
    last = max(rows, key=lambda row: row["finished_at"])
    if not _are_intact(store, last):
        return None
    outputs = dict(last["output_versions"])
    finished_at = last["finished_at"].astimezone(UTC)
    versions = ", ".join(f"{name} v{version}" for name, version in sorted(outputs.items()))
    log.info(
        "%s: nothing to do, done at %s UTC (%s); --rerun does it again",
        run.stage,
        f"{finished_at:%Y-%m-%d %H:%M}",
        versions,
    )
    return outputs


def base_of(store: TableStore, run: Run, source: Table) -> Base | None:
    """Return the last run that differs from this one in nothing but the version of `source`.

    What it has read need not be read again. None if there is no such run, if its tables have
    changed since, or with --rerun or --full.
    """
    if run.is_again:
        return None
    latest = run.inputs[source.name]
    later: list[chain.Row] = []  # runs that ended after the row
    for row in sorted(_rows(store), key=lambda row: row["finished_at"], reverse=True):
        since = row["input_versions"].get(source.name)
        if row["stage"] == run.stage and row["state"] == "done" and since is not None:
            inputs = {**run.inputs, source.name: since}
            if _key_of(run.stage, run.config, inputs, run.code_sha256) == row["run_key"]:
                is_same_table = isinstance(latest, int) and since <= latest
                is_kept = is_same_table and _are_changes_kept(row, source, since, later)
                base = Base(since, row["output_versions"], row["rows"])
                return base if is_kept and _are_intact(store, row) else None
        later.append(row)
    return None


def _are_changes_kept(
    row: chain.Row, source: Table, since: int, later: Sequence[chain.Row]
) -> bool:
    """Return whether what has changed after `since` can be read, by the runs after the row.

    A vacuum keeps what has changed since the last run of each stage, and no more. A table that was
    built anew has other versions.
    """
    stages = {other["stage"] for other in later}
    is_rebuilt = any(other["output_versions"].get(source.name, since) < since for other in later)
    return not is_rebuilt and not {"vacuum", row["stage"]} <= stages


def intact_keys(store: TableStore, stage: str) -> set[str]:
    """Return the keys of the finished runs of a stage whose tables still hold their result."""
    rows = [row for row in _rows(store) if row["stage"] == stage and row["state"] == "done"]
    return {row["run_key"] for row in rows if _are_intact(store, row)}


def report_differences(store: TableStore, run: Run, commits: Sequence[Commit]) -> None:
    """Log whether a run that was done before, and is done again from all rows, found the same."""
    if run.is_again and _same_runs(store, run, state="done"):
        n_rows = sum(commit.n_added + commit.n_changed + commit.n_removed for commit in commits)
        result = f"{n_rows:,} rows differed, and are corrected" if n_rows else "nothing differs"
        log.info("%s: done again from all rows: %s", run.stage, result)


def was_refused(store: TableStore, run: Run) -> bool:
    """Return whether an identical run ended in a refusal by the gate."""
    return not run.is_again and bool(_same_runs(store, run, state="refused"))


def complete(store: TableStore, run: Run, tables: Sequence[Table]) -> None:
    """Write the missing row of an identical run that was killed after it wrote these tables."""
    if not _same_runs(store, run):
        finish(store, run, [Commit(table, store.version(table), 0) for table in tables], {})


def finish(
    store: TableStore,
    run: Run,
    outputs: Sequence[Commit],
    rows: Mapping[str, int],
    output_hash: str | None = None,
    state: str = "done",
    input_since: Mapping[str, int] | None = None,
) -> None:
    """Write the run's row after its last commit: a killed run must not look finished.

    output_hash  by default the content hash of the first output
    input_since  version of each table since which the rows were read; by default all were
    """
    from pipelines.lake.frames import one_row
    from pipelines.lake.outputs import describe, ledger_files

    left = describe(store, outputs, _rows(store))
    with store.lock(OPS_RUNS):  # no other row may come between the last one and this one
        recorded = _rows(store)
        if left.files is not None:
            left.files.extend(ledger_files(store.config, recorded))
        row = (
            run.key,
            run.stage,
            json.dumps(run.config, sort_keys=True),
            {name: version for name, version in run.inputs.items() if isinstance(version, int)},
            versions_left(outputs),
            output_hash or (left.hashes.get(outputs[0].table.name) if outputs else None),
            left.hashes,
            left.totals,
            dict(input_since or {}),
            left.since,
            left.files,
            chain.ends_of(recorded),
            dict(rows),
            state,
            time.monotonic() - run.started_s,
            run.commit,
            run.code_sha256,
        )
        store.append(OPS_RUNS, one_row(store.spark, OPS_RUNS, row))
        chain.note_ends(store.config, rows_of(store))


def last_rows_by_stage(store: TableStore) -> dict[str, dict[str, int]]:
    """Return the row counts of each stage's latest run."""
    latest: dict[str, dict[str, Any]] = {}
    for row in _rows(store):
        before = latest.get(row["stage"])
        if before is None or before["finished_at"] < row["finished_at"]:
            latest[row["stage"]] = row
    return {stage: dict(row["rows"]) for stage, row in latest.items()}


def input_version(
    store: TableStore, stage: str, output: str, output_version: int | None, source: str
) -> int | None:
    """Return the version of `source` that `stage` read to write this version of `output`.

    Several runs may have left the same version, since nothing had changed: the first one wrote the
    rows. None if no such run is recorded.
    """
    if output_version is None:
        return None
    writers = [
        row
        for row in _rows(store)
        if row["stage"] == stage and row["output_versions"].get(output) == output_version
    ]
    if not writers:
        return None
    first = min(writers, key=lambda row: row["finished_at"])
    version: int | None = first["input_versions"].get(source)
    return version


def _are_intact(store: TableStore, row: chain.Row) -> bool:
    """Return whether the tables still hold what a run left."""
    versions = row["output_versions"]
    tables = [table for table in TABLES if table.name in versions]
    return all(_is_intact(store, table, versions[table.name]) for table in tables)


def _is_intact(store: TableStore, table: Table, version_left: int) -> bool:
    """Return whether the table still holds what a run left at that version."""
    if not store.exists(table):
        return False
    version = store.version(table)
    return version >= version_left if table.is_append_only else version == version_left


def _same_runs(store: TableStore, run: Run, state: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of identical runs, in the given state or in any."""
    rows = [row for row in _rows(store) if row["run_key"] == run.key]
    return [row for row in rows if state in (None, row["state"])]


def rows_of(store: TableStore) -> list[dict[str, Any]]:
    """Return the ledger: one row per run, so a few hundred per year of daily jobs."""
    return store.rows(OPS_RUNS)


def _rows(store: TableStore) -> list[dict[str, Any]]:
    """Return the ledger. Raises IntegrityError if what the last run wrote to it is missing."""
    ends = chain.noted_ends(store.config)
    rows = rows_of(store)
    chain.require_noted(store.config, ends, rows)
    return rows
