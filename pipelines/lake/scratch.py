"""Directories below the landing directory that live as long as the process that made them.

Each holds a file that its process locks. The operating system frees the lock when the process ends,
even by a kill, so the next run can tell a leftover from a directory in use. That is certain only on
the kernel that granted the lock, so the file holds the kernel's boot ID; what other machines left
is cleared by a vacuum, by age.
"""

import fcntl
import functools
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.lake.links import inside

log = logging.getLogger("reviewlake")

OWNER = ".owner"  # Spark does not read files whose name starts with a dot
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine
# Directories that the next run removes if their process has ended.
OWNED = ("staging/*", "ingest-*", "snapshot-*")
# What a vacuum clears by age: also copies of models, and downloads that were killed.
LEFTOVERS = (*OWNED, "models/*", "*.partial")
# Locks a new file, then writes the text into it; returns the release, or None without a lock.
Hold = Callable[[Path, str], Callable[[], Any] | None]


def hold_here(file: Path, text: str) -> Callable[[], Any] | None:
    """Lock a new file for the life of this process, then write the text; None if that fails."""
    opened = file.open("x+", encoding="utf-8")
    try:
        # NFS takes a shared lock only on a file that is open for reading too.
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        opened.close()
        return None
    opened.write(text)
    opened.flush()
    return opened.close


@contextmanager
def scratch(landing: Path, name: str, hold: Hold = hold_here) -> Iterator[Path]:
    """Make a directory of this process below `landing`; remove it at the end.

    Leftovers of processes that were killed are removed first. `name` may contain a folder.
    """
    remove_leftovers(landing)
    directory = inside(landing, landing / f"{name}-{uuid.uuid4().hex}")
    directory.mkdir(parents=True)
    release = None
    try:
        # The text comes after the lock: a file without text has no known owner.
        release = hold(directory / OWNER, boot_id())
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if release:
            release()


@contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Share the directory of another process, which may be killed before this one ends."""
    with ExitStack() as stack:
        with suppress(OSError):  # no lock: the directory is not ours, or on another machine
            opened = stack.enter_context((directory / OWNER).open(encoding="utf-8"))
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def remove_leftovers(landing: Path) -> None:
    """Remove the directories below `landing` whose processes have ended for certain."""
    places = [inside(landing, place) for pattern in OWNED for place in landing.glob(pattern)]
    n_removed = sum(_remove_if_ended(place) for place in places)
    if n_removed:
        noun = "directory" if n_removed == 1 else "directories"
        log.info("%s: removed %d %s that killed runs left behind", landing, n_removed, noun)


def is_in_use(place: Path) -> bool:
    """Return whether a process may hold the lock of a directory, or of a download."""
    file = place / OWNER if place.is_dir() else place
    try:
        with closing(_Opened(file)) as opened:
            return not opened.is_free()
    except FileNotFoundError:
        return False
    except OSError:  # a directory or a link, or not ours
        return True


@functools.cache
def boot_id() -> str:
    """Return the ID of this start of the kernel; empty if the system has none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class _Opened:
    """An existing file, opened to see who has locked it."""

    def __init__(self, file: Path) -> None:
        self.number = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def text(self) -> str:
        return os.pread(self.number, 100, 0).decode("ascii", errors="replace")

    def is_free(self) -> bool:
        """Take both kinds of lock: Python holds the first, Java the second."""
        try:
            fcntl.flock(self.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(self.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        os.close(self.number)


def _remove_if_ended(directory: Path) -> bool:
    try:
        with closing(_Opened(directory / OWNER)) as opened:
            if not boot_id() or opened.text() != boot_id() or not opened.is_free():
                return False
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:  # no such file, not ours, or no regular file
        return False
    return not directory.exists()
