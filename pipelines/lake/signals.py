"""A stop at a good moment: SIGTERM and Ctrl-C ask, and the work in hand is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or Ctrl-C sets; the next one ends the process."""
    stopping = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def request(number: int, _: Any) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, request)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _JavaHandler:
    """Called by the JVM with a signal that it got."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def handle(self, _: Any) -> None:
        self._stopping.set()

    class Java:
        implements = ("sun.misc.SignalHandler",)


def request_from_java(spark: SparkSession, stopping: threading.Event) -> None:
    """Let the JVM pass SIGTERM and Ctrl-C on, since it would end by itself, and our work with it.

    Under spark-submit it is the process that a user or a service manager signals; otherwise it gets
    what its whole group gets. A Spark server's JVM is left alone.
    """
    jvm: Any = getattr(spark, "_jvm", None)
    if jvm is None:
        return
    start_callbacks: Any = ensure_callback_server_started  # pyspark gives it no types
    start_callbacks(SparkContext._gateway)
    handler = _JavaHandler(stopping)
    for number in SIGNALS:
        with suppress(Py4JError):  # a JVM that was started without signals
            jvm.sun.misc.Signal.handle(jvm.sun.misc.Signal(number.name[3:]), handler)
