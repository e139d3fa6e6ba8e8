"""A job as a program: its environment variables, and errors as one line and an exit code.

Spark and MLflow are not imported here: their exceptions can only be raised once somebody else has
imported them.
"""

import codecs
import errno
import locale
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines import errors, terminal
from pipelines.errors import JobError, SetupError
from pipelines.quoting import printable, quoted, shortened, shown

log = logging.getLogger("reviewlake")

Main = Callable[[Sequence[str] | None], int | None]  # may return an exit code
# Words for a full disk that Python, Java and SQLite quote, wherever they stand in a message.
DISK_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")
DISK_ADVICE = {
    **dict.fromkeys(DISK_FULL, "Free some space, then run it again."),
    os.strerror(errno.EFBIG): "Raise the limit on the size of a file, then run it again.",
    os.strerror(errno.EACCES): "Change its mode or owner, or use another directory.",
    os.strerror(errno.EROFS): "Use a directory that can be written.",
}
# A worker's error if it cannot import what the driver sent it.
OTHER_CODE = re.compile(
    r"^(?:ModuleNotFound|Import|Attribute)Error: (.*\b(?:pipelines|schemas)\b.*)$", re.MULTILINE
)
GATEWAY = "PYSPARK_GATEWAY_PORT"  # spark-submit sets it for the script that it runs
NETWORK_ERRORS = (ConnectionError, TimeoutError, socket.gaierror)
NETWORK_CODES = {errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
JAVA_IO = ("java.io.", "java.nio.file.", "org.apache.hadoop.fs.")  # packages of its disk errors
MAX_CAUSES = 20  # of an exception in the JVM
MAX_LINE = 2_000  # maximum length of an error
MAX_CHARACTERS = 300  # of another program's line in it
LIBRARY_ERRORS = (
    ("pyspark.errors", "PySparkException"),
    ("py4j.protocol", "Py4JError"),
    ("mlflow.exceptions", "MlflowException"),
)


def run(main: Main) -> None:
    """Run a job's main as a program: errors are one line on stderr and an exit code."""
    terminal.prepare()
    if code := attempt(main, sys.argv[1:]):
        sys.exit(code)


def attempt(main: Main, argv: Sequence[str]) -> int:
    """Run a job's main and return its exit code, 0 for success. Logs an error as one line.

    With --debug in `argv` the error is raised instead, with its traceback.
    """
    try:
        require_legible(argv)
        code = main(argv) or 0
        _flush_stdout()
        return code
    except _reported_errors() as caught:
        if "--debug" in argv:
            raise
        error = from_import(from_disk(from_worker(caught)))
        log.error("%s", one_line(error))
        with suppress(OSError):  # one error is enough
            _flush_stdout()
        return exit_code(error)


def show(*lines: str) -> None:
    """Print results on stdout. Each is one line, and cannot steer the terminal."""
    for line in lines:
        try:
            print(printable(line, keep="\t"))
        except BrokenPipeError:  # `| head` has read enough; the job itself goes on
            discard_stdout()


def _flush_stdout() -> None:
    """Write what stdout still holds. If that fails, drop it: Python would try again at its end."""
    try:
        if sys.stdout:  # None if the caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except OSError:
        discard_stdout()
        raise


def discard_stdout() -> None:
    """Drop what is written to stdout from now on, for example because its reader has left."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def from_worker(error: Exception) -> Exception:
    """Return a worker's JobError, parsed from Spark's message; else the error as it is."""
    if isinstance(error, JobError):
        return error
    named = re.search(r"pipelines\.errors\.(\w+): (.+)", str(error))
    kind: type[JobError] | None = getattr(errors, named[1], None) if named else None
    if named and kind:
        return kind(named[2])
    other_code = OTHER_CODE.search(str(error))
    if other_code:
        return SetupError(
            f"workers: they lack the driver's code: {other_code[1]}. Give them the same wheel or "
            "zip."
        )
    return error


def from_disk(error: Exception) -> Exception:
    """Return a SetupError if a fault of disk or network is at the bottom; else the error itself."""
    if isinstance(error, JobError):
        return error
    for cause in _causes(error):
        if _is_of_network(cause):
            words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            return SetupError(
                f"network: {words[0].lower()}{words[1:]}. "
                "Check the network and the server, then run it again."
            )
        if isinstance(cause, OSError) and cause.strerror:
            file = f"{cause.filename}: " if isinstance(cause.filename, str) else ""
            return _disk_error(cause.strerror, file)
        is_about_disks = isinstance(cause, str) and cause.startswith(JAVA_IO)
        for words in DISK_ADVICE if is_about_disks else DISK_FULL:
            if words in str(cause):
                return _disk_error(words)
    return error


def from_import(error: Exception) -> Exception:
    """Return a SetupError if a package is missing or too old; a fault of our own stays."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ImportError) or package in ("", "pipelines", "schemas"):
        return error
    place = getattr(sys.modules.get(package), "__file__", None)
    state = f"the one in {Path(place).parent} does not fit" if place else "not installed"
    return SetupError(
        f"package {package}: {state}: {first_cause(error)}. Install the versions of this project, "
        f"or start another Python or Spark; this Python is {sys.executable}."
    )


def is_submitted() -> bool:
    """Return whether spark-submit has started this process: then its JVM is the parent.

    Its variable may also be left over, for example in a notebook that `pyspark` has opened.
    """
    if GATEWAY not in os.environ:
        return False
    try:
        return Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8") == "java\n"
    except OSError:  # a system without /proc
        return True


def require_legible(argv: Sequence[str]) -> None:
    """Raise SetupError if an argument or the directory is damaged by a locale without UTF-8.

    Java then replaces each other byte by ?, and Python without UTF-8 mode by half a character. A
    JVM that we start ourselves gets a UTF-8 locale.
    """
    if codecs.lookup(locale.getencoding()).name != "ascii":
        return
    has_passed_java = is_submitted()
    if sys.flags.utf8_mode and not has_passed_java:
        return
    for text in [*argv, os.getcwd()]:
        if not text.isascii() or (has_passed_java and "??" in text):
            raise SetupError(
                f"{quoted(text)}: damaged, since the locale of this program knows ASCII only. "
                "Set LC_ALL=C.UTF-8, then run it again."
            )


def _is_of_network(cause: BaseException | str) -> bool:
    is_other = isinstance(cause, OSError) and cause.errno in NETWORK_CODES
    return is_other or isinstance(cause, NETWORK_ERRORS)


def _disk_error(words: str, file: str = "") -> SetupError:
    advice = DISK_ADVICE.get(words, "Check this place and its disk, then run it again.")
    return SetupError(f"{file}{words[0].lower()}{words[1:]}. {advice}")


def _causes(error: BaseException) -> Iterator[BaseException | str]:
    """Yield an error and its causes; those in the JVM as texts that start with their class."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        java = getattr(cause, "java_exception", None) or getattr(cause, "_origin", None)
        for _ in range(MAX_CAUSES):
            if java is None:
                break
            yield str(java.toString())
            java = java.getCause()
        cause = cause.__cause__


def exit_code(error: Exception) -> int:
    """Return the exit code of the error's class."""
    return error.exit_code if isinstance(error, JobError) else JobError.exit_code


def one_line(error: Exception) -> str:
    """Return the line that reports an error. Hides values in Spark's messages."""
    name = type(error).__name__
    if isinstance(error, JobError):
        return shortened(printable(f"{name}: {error}"), MAX_LINE)
    line = first_cause(error)
    if not isinstance(error, OSError):
        without_row = line.split(" violated by row")[0]
        line = re.sub(r"'.*'", "'…'", without_row)  # values are in '', names in ``
    advice = "Run it again with --debug for the traceback."
    return f"{name}: {shown(line, MAX_CHARACTERS)} {advice}"


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
    kinds: list[type[Exception]] = [JobError, OSError, ImportError]
    for module, name in LIBRARY_ERRORS:
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return tuple(kinds)
