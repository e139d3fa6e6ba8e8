"""Read a local table's Delta log without Spark: versions by file names, files by delta-rs."""

from pathlib import Path
from urllib.parse import unquote


def commits_of(directory: Path) -> list[Path]:
    """Return the commits in a log directory, oldest first; empty if there is no log."""
    return sorted(file for file in directory.glob("*.json") if file.stem.isdigit())


def latest_version(directory: Path) -> int | None:
    """Return the version of the newest commit; None if there is no log."""
    commits = commits_of(directory)
    return int(commits[-1].stem) if commits else None


def data_files_of(directory: Path) -> list[tuple[Path, int]]:
    """Return path and bytes of each data file of the latest version, as the log says.

    Returns none for a log that is missing or damaged, which Spark then reports.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    if not commits_of(directory):
        return []
    try:
        adds = DeltaTable(str(directory.parent)).get_add_actions()
    except (DeltaError, OSError):
        return []
    paths = [directory.parent / unquote(path) for path in adds["path"].to_pylist()]
    return list(zip(paths, adds["size_bytes"].to_pylist(), strict=True))
