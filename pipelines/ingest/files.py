"""The files of a delivery: a path, a directory with all that is below it, a pattern, or several."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import InputError
from pipelines.quoting import quoted

log = logging.getLogger("reviewlake")

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
SUFFIXES = {
    "csv": (".csv", ".tsv", ".txt"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
    "seed-zip": (".zip",),
    "acl-imdb": (".tar", ".tgz", ".tar.gz", ".zip"),
}
HIDDEN = (".", "_")  # as Spark takes them: marks and unfinished files of other programs


@dataclass(frozen=True)
class FoundFile:
    """A file with what tells an unchanged one without reading it."""

    path: Path
    n_bytes: int
    modified_ns: int

    @classmethod
    def at(cls, path: Path) -> "FoundFile":
        """Look at a file. One that is not there is found to be so when it is read."""
        try:
            state = path.stat()
        except OSError:
            return cls(path.absolute(), 0, 0)
        return cls(path.absolute(), state.st_size, state.st_mtime_ns)


def files_at(locations: Sequence[str], source: str, *, is_watched: bool = False) -> list[Path]:
    """Return the files of these paths, each once, sorted within each path.

    In a directory those count that are named like the kind of source; how many others there are is
    logged. Raises InputError for a path or pattern without any file.

    is_watched  the caller looks again and again: no file is fine, and nothing is logged
    """
    found = [file for location in locations for file in _files_of(location, source, is_watched)]
    return list(dict.fromkeys(found))


def _files_of(location: str, source: str, is_watched: bool) -> list[Path]:
    path = Path(location)
    if path.is_dir():
        return _files_below(path, source, is_watched)
    if path.exists() or not glob.has_magic(location):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(location, recursive=True))]
    files = [match for match in matches if match.is_file()]
    for directory in [match for match in matches if match.is_dir()]:
        files += _files_below(directory, source, is_watched)
    if not files and not is_watched:
        raise InputError(f"{quoted(location)}: no file matches this pattern. Correct --path.")
    return files


def _files_below(directory: Path, source: str, is_watched: bool) -> list[Path]:
    names = [*SUFFIXES[source], *(a + b for a in SUFFIXES[source] for b in COMPRESSED)]
    everything = sorted(_walk(directory))
    files = [file for file in everything if file.name.lower().endswith(tuple(names))]
    if is_watched:
        return files
    n_others = len(everything) - len(files)
    if n_others:
        log.info("%s: %d files passed over, not named like %s", directory, n_others, source)
    if not files:
        raise InputError(
            f"{directory}: expected files named like *{names[0]}, found none. Correct --path or "
            "--source."
        )
    return files


def _walk(directory: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: this directory cannot be read: {error.strerror}."
        ) from error

    for folder, subfolders, names in os.walk(directory, onerror=fail):
        subfolders[:] = [name for name in subfolders if not name.startswith(HIDDEN)]
        yield from (Path(folder, name) for name in names if not name.startswith(HIDDEN))
