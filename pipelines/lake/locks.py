"""One writer a table on local paths, where Delta's log store cannot tell two of them apart; and which stores can.

The lock is the operating system's, held by the JVM: kill -9 frees it, and not before the JVM, which writes the
commits and outlives a killed Python by seconds, is gone as well. The only module that may call the JVM.
"""

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

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipelines.errors import ConflictError, InputError

log = logging.getLogger("reviewlake")

POLL_S = 0.2
TELL_EVERY_S = 10.0
Release = Callable[[], Any]
# Stores of which Delta's page "Storage configuration" says that clusters may write to one table at once, as it is.
ATOMIC = {"abfs", "abfss", "adl", "gs", "hdfs", "wasb", "wasbs"}
# … and those whose log store lets one of two drivers lose its commit, unless it is this one.
ONE_DRIVER, MULTI_CLUSTER = {"s3", "s3a", "s3n"}, "io.delta.storage.S3DynamoDBLogStore"
# POSIX locks are a process's, not a thread's; and a writer takes its lock again inside a longer step of its own.
_threads: dict[Path, threading.RLock] = defaultdict(threading.RLock)
_depth: dict[Path, int] = defaultdict(int)


@contextmanager
def table_lock(spark: SparkSession, file: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of the table that `file` stands for: only one process at a time, in it only one thread.

    Waits at most `wait_s` seconds, and says for whom; then raises ConflictError (exit 4).
    """
    file = file.resolve()  # one lake by two names, as through a link, is one lock
    with _threads[file]:
        release = _waited_for(spark, file, wait_s) if _depth[file] == 0 else None
        _depth[file] += 1
        try:
            yield
        finally:
            _depth[file] -= 1
            if release:
                release()


def require_atomic(spark: SparkSession, lake: str) -> None:
    """Raise InputError unless, of two drivers that commit to the store of this URI at once, one is refused."""
    scheme = lake.partition(":")[0].lower()
    setting = f"spark.delta.logStore.{scheme}.impl"
    if scheme in ATOMIC or (scheme in ONE_DRIVER and spark.conf.get(setting, "") == MULTI_CLUSTER):
        return
    if scheme in ONE_DRIVER:
        found = f"{scheme} under Delta's log store for a single driver"
        advice = f"Set {setting}={MULTI_CLUSTER}, whose jar is delta-storage-s3-dynamodb, or use"
    else:
        found, advice = f"the scheme {scheme}, of which that is not known", "Use"
    raise InputError(
        f"--lake {lake}: expected a store that lets one of two commits win, found {found}. Nothing was written. "
        f"{advice} a catalog, a local directory, or one of {', '.join(sorted(ATOMIC))}."
    )


def holder_of(file: Path) -> tuple[str, float]:
    """Who wrote into the lock file last, and how many seconds ago. Whether the lock is still held it cannot tell."""
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        return f"process {noted['pid']} ({noted['app']})", max(0.0, time.time() - noted["since"])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # caught between taking the lock and saying so
        return "another process", 0.0


def is_held(file: Path) -> bool:
    """Whether another process holds the lock now; taking it for a moment is the only way to know."""
    if not file.exists():
        return False
    release = _try_python(file, "")
    if release:
        release()
    return release is None


def _waited_for(spark: SparkSession, file: Path, wait_s: float) -> Release:
    file.parent.mkdir(parents=True, exist_ok=True)
    started_s, told_s = time.monotonic(), -TELL_EVERY_S
    while (release := _try(spark, file)) is None:
        waited_s = time.monotonic() - started_s
        holder, held_s = holder_of(file)
        if waited_s >= wait_s:
            raise ConflictError(
                f"{file.name}: expected its lock within {wait_s:g} s, found it held by {holder} for {held_s:.0f} s. "
                "Run the stage again once that one is done, or raise --lock-wait-s."
            )
        if waited_s - told_s >= TELL_EVERY_S:
            log.info(
                "%s: waiting for %s, which has held its lock for %.0f s", file.name, holder, held_s
            )
            told_s = waited_s
        time.sleep(POLL_S)
    return release


def _try(spark: SparkSession, file: Path) -> Release | None:
    """Take the lock if it is free: through the JVM, or from Python where Spark is a server elsewhere (Connect)."""
    note = json.dumps(
        {
            "pid": os.getpid(),
            "app": spark.conf.get("spark.app.name", "unknown"),
            "since": time.time(),
        }
    )
    jvm = getattr(spark, "_jvm", None)
    return _try_python(file, note) if jvm is None else _try_jvm(jvm, file, note)


def _try_jvm(jvm: Any, file: Path, note: str) -> Release | None:
    opened = jvm.java.io.RandomAccessFile(str(file), "rw")
    try:
        is_mine = opened.getChannel().tryLock() is not None
    except Py4JJavaError:  # OverlappingFileLockException: another driver of the same JVM
        is_mine = False
    if not is_mine:
        opened.close()
        return None
    opened.setLength(0)
    opened.writeBytes(note)
    return opened.close  # type: ignore[no-any-return]


def _try_python(file: Path, note: str) -> Release | None:
    import fcntl  # POSIX only, as is all local use but through WSL

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
