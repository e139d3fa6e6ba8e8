"""Read a local table's Delta log without Spark: versions by file names, files by delta-rs."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pipelines.errors import IntegrityError, SetupError
from schemas import Table

if TYPE_CHECKING:  # read only where a table is opened: a job with nothing to do is to be fast
    from deltalake import DeltaTable


def commits_of(directory: Path) -> list[Path]:
    """Return the commits in a log directory, oldest first; empty if there is no log."""
    return sorted(file for file in directory.glob("*.json") if file.stem.isdigit())


def latest_version(directory: Path) -> int | None:
    """Return the version of the newest commit; None if there is no log."""
    commits = commits_of(directory)
    return int(commits[-1].stem) if commits else None


def commit_of(
    directory: Path, commit_id: str, n_recent: int
) -> tuple[int, Mapping[str, str]] | None:
    """Return version and metrics of the commit that carries this id in its user metadata.

    None if it is not among the `n_recent` newest ones. DESCRIBE HISTORY takes half a second.
    """
    for file in reversed(commits_of(directory)[-n_recent:]):
        for line in file.read_text(encoding="utf-8").splitlines():
            info = json.loads(line).get("commitInfo")
            if info and info.get("userMetadata") == commit_id:
                return int(file.stem), info.get("operationMetrics") or {}
    return None


@contextmanager
def opened(table: Table, directory: Path) -> Iterator["DeltaTable"]:
    """Yield a local table for reading by delta-rs; `directory` is that of its log.

    Raises SetupError without that package, and IntegrityError if the table cannot be read.
    """
    try:
        import pyarrow as pa
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise SetupError(
            "package deltalake, which reads a local lake's ledger, is not installed. "
            "Install the extra `local`: pip install -e '.[local]'"
        ) from error
    try:
        yield DeltaTable(str(directory.parent))
    except (DeltaError, pa.ArrowException, OSError) as error:
        cause = str(error).splitlines()[0]
        if "is newer than log segment" in cause:  # of Delta's checksum file beside the commits
            cause = "the last commit of its log is missing."
        raise IntegrityError(f"{table.name} cannot be read: {cause} Run jobs/doctor.py.") from error


def rows_of(table: Table, directory: Path) -> list[dict[str, Any]]:
    """Return all rows of a local table; maps as dicts."""
    with opened(table, directory) as delta_table:
        import pyarrow as pa  # after `opened`, which says so if the packages are not installed

        # Not to_pyarrow_table(): one process in six aborts at its end (DECISIONS.md, 2026-11-27).
        rows = pa.table(delta_table.scan())
    # Arrow gives a map as a list of pairs.
    maps = [field.name for field in rows.schema if pa.types.is_map(field.type)]
    return [
        {**row, **{name: dict(row[name]) for name in maps if row[name] is not None}}
        for row in rows.to_pylist()
    ]


def data_files_of(table: Table, directory: Path) -> list[tuple[Path, int]]:
    """Return path and bytes of each data file of the latest version, as the log says.

    Returns none for a log that is missing or damaged, which Spark then reports.
    """
    if not commits_of(directory):
        return []
    try:
        with opened(table, directory) as delta_table:
            adds = delta_table.get_add_actions()
    except IntegrityError:
        return []
    paths = [directory.parent / unquote(path) for path in adds["path"].to_pylist()]
    return list(zip(paths, adds["size_bytes"].to_pylist(), strict=True))
