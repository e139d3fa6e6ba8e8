"""One writer per table on local paths, and which stores need no lock.

Delta's log store for local paths cannot tell two writers apart: one of them may lose its commit.
The JVM holds a lock of the operating system, so kill -9 frees it. If Python is killed, the lock
stays until the JVM, which writes the commits, has ended too, seconds later. Besides this module,
only operate.judge may call the JVM.
"""

import contextlib
import fcntl  # POSIX: on Windows a local lake needs WSL
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import SparkSession

from pipelines.errors import ConflictError, InputError, IntegrityError
from pipelines.lake.links import inside

log = logging.getLogger("reviewlake")

POLL_S = 0.2
REPORT_EVERY_S = 10.0
Release = Callable[[], Any]
# Several clusters may write to one table at once in these stores. Source: Delta, "Storage
# configuration".
ATOMIC = {"abfs", "abfss", "adl", "gs", "hdfs", "wasb", "wasbs"}
# Here one of two drivers may lose its commit, unless the log store is MULTI_CLUSTER.
ONE_DRIVER = {"s3", "s3a", "s3n"}
MULTI_CLUSTER = "io.delta.storage.S3DynamoDBLogStore"
# A POSIX lock belongs to the process, so the threads of one process need a lock of their own. It is
# reentrant: a long step takes a table's lock, and so does each write inside it.
_threads: dict[Path, threading.RLock] = defaultdict(threading.RLock)
_depth: dict[Path, int] = defaultdict(int)


@contextmanager
def table_lock(spark: SparkSession, file: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file of a table: one process at a time, and one thread within it.

    Waits at most `wait_s` seconds and logs who holds the lock; then raises ConflictError (exit 4).
    """
    file = _own(file).resolve()  # a lake that is reached through a link has the same lock
    with _threads[file]:
        release = _acquire(spark, file, wait_s) if _depth[file] == 0 else None
        _depth[file] += 1
        try:
            yield
        finally:
            _depth[file] -= 1
            if release:
                release()


def require_atomic(spark: SparkSession, lake: str) -> None:
    """Raise InputError unless the store of this URI refuses one of two concurrent commits."""
    scheme = lake.partition(":")[0].lower()
    setting = f"spark.delta.logStore.{scheme}.impl"
    is_multi_cluster = scheme in ONE_DRIVER and spark.conf.get(setting, "") == MULTI_CLUSTER
    if scheme in ATOMIC or is_multi_cluster:
        return
    if scheme in ONE_DRIVER:
        found = f"{scheme} under Delta's log store for a single driver"
        advice = f"Set {setting}={MULTI_CLUSTER}, whose jar is delta-storage-s3-dynamodb, or use"
    else:
        found = f"the scheme {scheme}, of which that is not known"
        advice = "Use"
    raise InputError(
        f"--lake {lake}: expected a store that lets one of two commits win, found {found}. "
        f"Nothing was written. {advice} a catalog, a local directory, or one of "
        f"{', '.join(sorted(ATOMIC))}."
    )


def set_neutral_locale(spark: SparkSession) -> None:
    """Let the JVM write numbers in ASCII digits, as Delta's names of log files need them.

    Options such as -Duser.language.format=fa in JAVA_TOOL_OPTIONS win over those that we give.
    """
    jvm: Any = getattr(spark, "_jvm", None)
    jvm.java.util.Locale.setDefault(jvm.java.util.Locale.ROOT)


def holder_of(file: Path) -> tuple[str, float]:
    """Return who wrote into the lock file last, and how many seconds ago.

    It may be free by now: see `is_held`.
    """
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
        holder = f"process {note['pid']} ({note['app']})"
        return holder, max(0.0, time.time() - note["since"])
    except (OSError, ValueError, KeyError, TypeError):  # the holder has not written its note yet
        return "another process", 0.0


def is_held(file: Path) -> bool:
    """Return whether another process holds the lock. The only way to know is to try to take it."""
    if not _own(file).exists():
        return False
    release = _try_python(file, "")
    if release:
        release()
    return release is None


def hold_in_java(spark: SparkSession | None, file: Path, text: str) -> Release | None:
    """Lock a file for the life of the JVM and write the text; None if there is no JVM of our own.

    Killed Python leaves its JVM behind for seconds, in which Spark still writes files.
    """
    jvm = getattr(spark, "_jvm", None)
    try:
        release = None if jvm is None else _try_jvm(jvm, file, text)
    except Py4JError:  # a file system without locks
        return None
    if release is None:
        return None

    def let_go() -> None:
        with contextlib.suppress(Py4JError, OSError):  # the JVM has ended
            release()

    return let_go


def _own(file: Path) -> Path:
    """Return a lock file. Raises IntegrityError if it is a link: its target would be overwritten.

    Its directory may be a link that stays in the lake.
    """
    inside(file.parent.parent, file)
    if file.is_symlink():
        raise IntegrityError(
            f"{file}: expected a lock file, found a link. Nothing was written. Remove the link."
        )
    return file


def _acquire(spark: SparkSession, file: Path, wait_s: float) -> Release:
    file.parent.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    reported_s = -REPORT_EVERY_S
    while (release := _try(spark, file)) is None:
        waited_s = time.monotonic() - started_s
        holder, held_s = holder_of(file)
        if waited_s >= wait_s:
            raise ConflictError(
                f"{file.name}: expected its lock within {wait_s:g} s, found it held by {holder} "
                f"for {held_s:.0f} s. Run the stage again once that one is done, or raise "
                "--lock-wait-s."
            )
        if waited_s - reported_s >= REPORT_EVERY_S:
            log.info(
                "%s: waiting for %s, which has held its lock for %.0f s", file.name, holder, held_s
            )
            reported_s = waited_s
        time.sleep(POLL_S)
    return release


def _try(spark: SparkSession, file: Path) -> Release | None:
    """Take the lock if it is free: through the JVM, or from Python under Spark Connect."""
    app = spark.conf.get("spark.app.name", "unknown")
    note = json.dumps({"pid": os.getpid(), "app": app, "since": time.time()})
    jvm = getattr(spark, "_jvm", None)
    return _try_python(file, note) if jvm is None else _try_jvm(jvm, file, note)


def _try_jvm(jvm: Any, file: Path, note: str) -> Release | None:
    opened = jvm.java.io.RandomAccessFile(str(file), "rw")
    try:
        is_acquired = opened.getChannel().tryLock() is not None
    except Py4JJavaError:  # OverlappingFileLockException: another driver of the same JVM has it
        is_acquired = False
    if not is_acquired:
        opened.close()
        return None
    opened.setLength(0)
    opened.writeBytes(note)
    return opened.close  # type: ignore[no-any-return]  # a method of a JVM object


def _try_python(file: Path, note: str) -> Release | None:
    opened = file.open("r+" if file.exists() else "w", encoding="utf-8")
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        return None
    if note:
        opened.truncate(0)
        opened.write(note)
        opened.flush()
    return opened.close
