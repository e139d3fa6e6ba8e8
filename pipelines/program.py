"""A job as a program: its log, and each error as one line and an exit code."""

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from pipelines import errors
from pipelines.errors import JobError, SetupError

log = logging.getLogger("reviewlake")

Main = Callable[[Sequence[str] | None], int | None]  # an exit code where it is not said by an error
DISK_FULL = os.strerror(errno.ENOSPC)
MOST_CHARACTERS = 300  # of a line that another program wrote


def run(main: Main) -> None:
    """Run a job's main as a program: log to stderr, one line per error, the error's exit code."""
    show_log()
    if code := attempt(main, None):
        sys.exit(code)


def attempt(main: Main, argv: Sequence[str] | None) -> int:
    """Run a job's main; its exit code, 0 where it did its work. Logs one line of an error."""
    try:
        return main(argv) or 0
    except _worded_errors() as caught:
        if "--debug" in sys.argv:
            raise
        error = from_worker(caught)
        log.error("%s", one_line(error))
        return exit_code(error)


def _worded_errors() -> tuple[type[Exception], ...]:
    """What is told in one line. MLflow takes a second to import, and a job without it can not meet its errors."""
    mlflow = sys.modules.get("mlflow.exceptions")
    return (
        JobError,
        PySparkException,
        Py4JError,
        OSError,
        *((mlflow.MlflowException,) if mlflow else ()),
    )


def from_worker(error: Exception) -> Exception:
    """The JobError that a Python worker raised, which Spark hands over as text; any other error as it is."""
    named = (
        None
        if isinstance(error, JobError)
        else re.search(r"pipelines\.errors\.(\w+): (.+)", str(error))
    )
    kind = getattr(errors, named[1], None) if named else None
    return kind(named[2]) if named and kind else error


def exit_code(error: Exception) -> int:
    """The code that the error's class says; a full disk is the machine's fault, whoever met it."""
    if isinstance(error, JobError):
        return error.exit_code
    return SetupError.exit_code if DISK_FULL in str(error) else JobError.exit_code


def one_line(error: Exception) -> str:
    """What a user reads of an error. Of one that nobody worded, as little as names it: Spark's hold rows and texts."""
    name = type(error).__name__
    if isinstance(error, JobError):
        return f"{name}: {error}"
    lines = str(error).strip().splitlines() or ["no message"]
    java = [
        line for line in lines if line.startswith(": ")
    ]  # Py4J's first line names only the call
    line = (java or lines)[0].removeprefix(": ")
    if not isinstance(error, OSError):
        line = re.sub(
            r"'.*'", "'…'", line.split(" violated by row")[0]
        )  # quoted are values; names stand in ``
    advice = (
        "Free some space, then run it again."
        if DISK_FULL in str(error)
        else "Rerun with --debug for the trace."
    )
    return f"{name}: {line[:MOST_CHARACTERS]} {advice}"


def show_log() -> None:
    """One plain line per effect on stderr; stdout is for results."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
