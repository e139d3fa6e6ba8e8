"""Read a local table's Delta log by its file names, without Spark."""

from pathlib import Path


def commits_of(directory: Path) -> list[Path]:
    """Return the commits in a log directory, oldest first; empty if there is no log."""
    return sorted(file for file in directory.glob("*.json") if file.stem.isdigit())


def latest_version(directory: Path) -> int | None:
    """Return the version of the newest commit; None if there is no log."""
    commits = commits_of(directory)
    return int(commits[-1].stem) if commits else None
