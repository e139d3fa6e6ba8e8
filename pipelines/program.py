"""A job as a program: its log, its environment variables, and errors as one line and an exit code.

Spark and MLflow are not imported here: their exceptions can only be raised once somebody else has
imported them.
"""

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pipelines import errors
from pipelines.errors import JobError, SetupError

log = logging.getLogger("reviewlake")

Main = Callable[[Sequence[str] | None], int | None]  # may return an exit code
DISK_FULL = os.strerror(errno.ENOSPC)
MAX_CHARACTERS = 300  # maximum length of another program's line
LIBRARY_ERRORS = (
    ("pyspark.errors", "PySparkException"),
    ("py4j.protocol", "Py4JError"),
    ("mlflow.exceptions", "MlflowException"),
)


def run(main: Main) -> None:
    """Run a job's main as a program: errors are one line on stderr and an exit code."""
    show_log()
    if code := attempt(main, sys.argv[1:]):
        sys.exit(code)


def attempt(main: Main, argv: Sequence[str]) -> int:
    """Run a job's main and return its exit code, 0 for success. Logs an error as one line.

    With --debug in `argv` the error is raised instead, with its traceback.
    """
    try:
        return main(argv) or 0
    except _reported_errors() as caught:
        if "--debug" in argv:
            raise
        error = from_worker(caught)
        log.error("%s", one_line(error))
        return exit_code(error)


def from_worker(error: Exception) -> Exception:
    """Return a worker's JobError, parsed from Spark's message; else the error as it is."""
    if isinstance(error, JobError):
        return error
    named = re.search(r"pipelines\.errors\.(\w+): (.+)", str(error))
    kind = getattr(errors, named[1], None) if named else None
    return kind(named[2]) if named and kind else error


def exit_code(error: Exception) -> int:
    """Return the exit code of the error's class; a full disk counts as a fault of the machine."""
    if isinstance(error, JobError):
        return error.exit_code
    return SetupError.exit_code if DISK_FULL in str(error) else JobError.exit_code


def one_line(error: Exception) -> str:
    """Return the line that reports an error. Hides values in Spark's messages."""
    name = type(error).__name__
    if isinstance(error, JobError):
        return f"{name}: {error}"
    line = first_cause(error)
    if not isinstance(error, OSError):
        without_row = line.split(" violated by row")[0]
        line = re.sub(r"'.*'", "'…'", without_row)  # values are in '', names in ``
    advice = "Run it again with --debug for the traceback."
    if DISK_FULL in str(error):
        advice = "Free some space, then run it again."
    return f"{name}: {line[:MAX_CHARACTERS]} {advice}"


def first_cause(error: BaseException) -> str:
    """Return the line with the cause: the first line of Py4J only names a call."""
    lines = str(error).strip().splitlines() or ["no message"]
    java_lines = [line for line in lines if line.startswith(": ")]
    return (java_lines or lines)[0].removeprefix(": ")


def cause_line(error: BaseException) -> str:
    """Return the innermost cause in one line: of a JVM exception the last 'Caused by'."""
    lines = str(error).strip().splitlines()
    causes = [line for line in lines if line.startswith("Caused by: ")]
    return causes[-1].removeprefix("Caused by: ") if causes else first_cause(error)


def show_log() -> None:
    """Log one plain line per effect to stderr; stdout is for results."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Set environment variables for child processes; None removes one. Restores them at the end."""
    before = {name: os.environ.get(name) for name in variables}
    set_environment(variables)
    try:
        yield
    finally:
        set_environment(before)


def set_environment(variables: Mapping[str, str | None]) -> None:
    """Set environment variables for the rest of this process; None removes one."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _reported_errors() -> tuple[type[Exception], ...]:
    """Return the exception classes that are reported as one line, of imported libraries."""
    kinds: list[type[Exception]] = [JobError, OSError]
    for module, name in LIBRARY_ERRORS:
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)
