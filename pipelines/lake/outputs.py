"""Content hashes and files that a run left in its tables, recorded in ops.runs for the doctor.

Both cover what was written since the version of the same table that a run has recorded before.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake.chain import Row
from pipelines.lake.changes import changes_of, totals_since
from pipelines.lake.commits import Commit
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_log import commits_of, latest_version
from pipelines.lake.frames import Totals, totals
from pipelines.lake.links import inside
from pipelines.lake.tables import TableStore
from pipelines.model.manifest import ModelFile
from pipelines.provenance import sha256_of
from schemas import OPS_RUNS, TABLES, Table


@dataclass(frozen=True)
class Recorded:
    """A table version that a run left, and the version since which its record counts."""

    table: Table
    version: int
    since: int | None  # None: from the start
    content_hash: str
    totals: Totals | None  # None: an older release, which recorded none
    run: Row


@dataclass(frozen=True)
class Left:
    """What a run left, for its row in ops.runs; all by table, but the files."""

    hashes: dict[str, str]
    totals: dict[str, str]
    since: dict[str, int]
    files: list[ModelFile] | None  # None: the lake is not local


def recorded_outputs(rows: Sequence[Row]) -> list[Recorded]:
    """Return each recorded table version once, as first recorded, by table and version."""
    tables = {table.name: table for table in TABLES}
    first: dict[tuple[str, int], Recorded] = {}
    for row in sorted(rows, key=lambda row: row["finished_at"]):
        for name, hashed in (row.get("output_hashes") or {}).items():
            if name in tables:
                version = row["output_versions"][name]
                since = (row.get("recorded_since") or {}).get(name)
                text = (row.get("output_totals") or {}).get(name)
                known = Totals.parse(text) if text else None
                output = Recorded(tables[name], version, since, hashed, known, row)
                first.setdefault((name, version), output)
    return [first[key] for key in sorted(first)]


def content_hash_of(store: TableStore, table: Table, version: int, since: int | None) -> str:
    """Hash a version's rows; of an append-only table, those added after the version `since`."""
    return _totals_of(store, table, version, since).content_hash


def _totals_of(store: TableStore, table: Table, version: int, since: int | None) -> Totals:
    if since is None or not table.is_append_only:
        return totals(store.read(table, version))
    added = changes_of(store, table, since, version)
    if added is not None:
        return totals(added.drop("change"))
    rows = store.read(table, version)
    new_names = _file_names(rows) - _file_names(store.read(table, since))
    return totals(rows.where(F.col("_metadata.file_name").isin(sorted(new_names))))


def _totals_left(store: TableStore, table: Table, version: int, earlier: Recorded | None) -> Totals:
    """Return the totals of what a run left; of a table that was recorded, by what has changed."""
    if earlier is None or earlier.totals is None or table.is_append_only:
        return _totals_of(store, table, version, earlier.version if earlier else None)
    changed = totals_since(store, table, earlier.version, version)
    if changed is None:
        return totals(store.read(table, version))
    return earlier.totals + changed


def describe(store: TableStore, commits: Sequence[Commit], rows: Sequence[Row]) -> Left:
    """Describe the tables that a run left. Reads what was added since an earlier record.

    rows  the ledger before this run
    An output that an earlier run has recorded keeps that record, and its files are not listed
    again. If a later version is recorded already, its record holds these rows too.
    """
    left = Left({}, {}, {}, [] if store.config.is_local else None)
    recorded = recorded_outputs(rows)
    for commit in commits:
        table, name = commit.table, commit.table.name
        earlier = [output for output in recorded if output.table == table]
        last = earlier[-1] if earlier else None
        since = last.version if last else None
        same = next((output for output in earlier if output.version == commit.version), None)
        if same:
            left.hashes[name] = same.content_hash
            if same.totals:
                left.totals[name] = str(same.totals)
            since = same.since
        elif since is None or since < commit.version:
            left_totals = _totals_left(store, table, commit.version, last)
            left.hashes[name] = left_totals.content_hash
            left.totals[name] = str(left_totals)
            if left.files is not None:
                left.files.extend(files_written(store.config, table, commit.version, since))
        if name in left.hashes and since is not None:
            left.since[name] = since
    return left


def files_written(
    config: LakeConfig, table: Table, version: int, since: int | None
) -> list[ModelFile]:
    """List the commits of a local table after `since`, up to `version`, and their data files.

    Files that a vacuum has deleted meanwhile are left out.
    """
    log = config.log_directory(table)
    first = 0 if since is None else since + 1
    commits = [file for file in commits_of(log) if first <= int(file.stem) <= version]
    listed = [*commits, *(file for commit in commits for file in _data_files(commit))]
    files: list[ModelFile] = []
    for file in listed:
        with contextlib.suppress(FileNotFoundError):
            path = inside(config.lake_path, file).relative_to(config.lake_path).as_posix()
            files.append((path, file.stat().st_size, sha256_of(file)))
    return files


def ledger_files(config: LakeConfig, rows: Sequence[Row]) -> list[ModelFile]:
    """List the commits of a local ops.runs, and their data files, that no row has listed yet.

    The commit of the last row is listed by the next one; until then the chain shows a change.
    """
    log = config.log_directory(OPS_RUNS)
    listed = {file["path"] for row in rows for file in row.get("files") or ()}
    known = [
        int(commit.stem)
        for commit in commits_of(log)
        if commit.relative_to(config.lake_path).as_posix() in listed
    ]
    latest = latest_version(log)
    return [] if latest is None else files_written(config, OPS_RUNS, latest, max(known, default=-1))


def _data_files(commit: Path) -> Iterator[Path]:
    """Yield the files of rows and changes that a commit adds; their paths are percent-encoded."""
    for line in commit.read_text(encoding="utf-8").splitlines():
        actions = json.loads(line)
        action = actions.get("add") or actions.get("cdc")
        if action:
            yield commit.parents[1] / unquote(action["path"])


def _file_names(rows: DataFrame) -> set[str]:
    return {unquote(uri).rpartition("/")[2] for uri in rows.inputFiles()}
