"""Errors become one line and an exit code; environment variables are restored. Needs no Spark."""

import contextlib
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pyspark
import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from pipelines import program
from pipelines.errors import (
    ConflictError,
    ContractError,
    GateRefusedError,
    InputError,
    IntegrityError,
    JobError,
    SetupError,
)

REVIEW = "words of a review"
SPARK_ROW = (
    f"[DELTA_VIOLATE] CHECK constraint x (y) violated by row with values:\n - text : {REVIEW}"
)
SPARK_CAST = (
    f"[CAST_INVALID_INPUT] The value '{REVIEW}' of the type \"STRING\" is no INT.\n"
    f"== SQL ==\n{REVIEW}"
)
PY4J = (
    "An error occurred while calling o7.save.\n"
    f": java.lang.IllegalStateException: no such\n\tat x\n{REVIEW}"
)
WORKER = (
    "job aborted\n  File x, line 1\n"
    "pipelines.errors.IntegrityError: predict: expected 2 rows, found 1.\n\tat y"
)
RERUN = "Run it again with --debug for the traceback."
FREE = "Free some space, then run it again."
FULL = f"no space left on device. {FREE}"
SQLITE_FULL = f"database or disk is full. {FREE}"
NETWORK = "SetupError: network: "
CHECK = "Check the network and the server, then run it again."
LIMIT = "Raise the limit on the size of a file, then run it again."


def in_java(*causes: str) -> PySparkException:
    """Return Spark's exception of a failed write, whose causes are known to the JVM only."""
    chain = None
    for text in reversed(["org.apache.spark.SparkException: [TASK_WRITE_FAILED]", *causes]):
        chain = SimpleNamespace(toString=lambda t=text: t, getCause=lambda c=chain: c)
    error = PySparkException("[TASK_WRITE_FAILED]")
    vars(error)["_origin"] = chain
    return error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (JobError("x"), 1, "JobError: x"),
        (InputError("x: expected y"), 2, "InputError: x: expected y"),
        (ContractError("x"), 2, "ContractError: x"),
        (IntegrityError("x"), 3, "IntegrityError: x"),
        (ConflictError("x"), 4, "ConflictError: x"),
        (SetupError("x"), 5, "SetupError: x"),
        (GateRefusedError("x"), 6, "GateRefusedError: x"),
        (
            PySparkException(SPARK_ROW),
            1,
            f"PySparkException: [DELTA_VIOLATE] CHECK constraint x (y) {RERUN}",
        ),
        (
            PySparkException(SPARK_CAST),
            1,
            "PySparkException: [CAST_INVALID_INPUT] The value '…' of the type \"STRING\" is no "
            f"INT. {RERUN}",
        ),
        (Py4JError(PY4J), 1, f"Py4JError: java.lang.IllegalStateException: no such {RERUN}"),
        (Py4JError(""), 1, f"Py4JError: no message {RERUN}"),
        (PySparkException(WORKER), 3, "IntegrityError: predict: expected 2 rows, found 1."),
        (
            PySparkException(WORKER.replace("Integrity", "Unheard")),
            1,
            f"PySparkException: job aborted {RERUN}",
        ),
        (
            OSError(13, "Permission denied", "f"),
            5,
            "SetupError: f: permission denied. Change its mode or owner, or use another directory.",
        ),
        (OSError("words"), 1, f"OSError: words {RERUN}"),
        (
            ModuleNotFoundError("No module named 'nope'", name="nope"),
            5,
            "SetupError: package nope: not installed: No module named 'nope'. Install the versions "
            f"of this project, or start another Python or Spark; this Python is {sys.executable}.",
        ),
        (
            ImportError("No module named 'pyspark.logger'", name="pyspark.logger"),
            5,
            f"SetupError: package pyspark: the one in {Path(pyspark.__file__).parent} does not "
            "fit: No module named 'pyspark.logger'. Install the versions of this project, or start "
            f"another Python or Spark; this Python is {sys.executable}.",
        ),
        (ImportError("x", name="pipelines.x"), 1, f"ImportError: x {RERUN}"),
        (
            PySparkException("a\nModuleNotFoundError: No module named 'pipelines'\n\nJVM"),
            5,
            "SetupError: workers: they lack the driver's code: No module named 'pipelines'. Give "
            "them the same wheel or zip.",
        ),
        (OSError(28, "No space left on device"), 5, f"SetupError: {FULL}"),
        (OSError(27, "File too large", "f"), 5, f"SetupError: f: file too large. {LIMIT}"),
        (PySparkException("a\nb: No space left on device"), 5, f"SetupError: {FULL}"),
        (PySparkException("(sqlite3) database or disk is full"), 5, f"SetupError: {SQLITE_FULL}"),
        (in_java("java.io.IOException: No space left on device"), 5, f"SetupError: {FULL}"),
        (in_java("java.io.IOException: File too large"), 5, f"SetupError: file too large. {LIMIT}"),
        (
            in_java("x.Y: File too large"),
            1,
            f"PySparkException: [TASK_WRITE_FAILED] {RERUN}",
        ),
        (
            ConnectionRefusedError(111, "Connection refused"),
            5,
            f"{NETWORK}connection refused. {CHECK}",
        ),
        (BrokenPipeError(32, "Broken pipe"), 5, f"{NETWORK}broken pipe. {CHECK}"),
        (TimeoutError("timed out"), 5, f"{NETWORK}timed out. {CHECK}"),
        (ConnectionResetError(), 5, f"{NETWORK}connectionResetError. {CHECK}"),
        (socket.gaierror(-2, "Name not known"), 5, f"{NETWORK}name not known. {CHECK}"),
        (OSError(errno.EHOSTUNREACH, "No route"), 5, f"{NETWORK}no route. {CHECK}"),
        (InputError("a\x1b[31m\nb\u202e é"), 2, r"InputError: a\x1b[31m\nb\u202e é"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_one_line_and_its_exit_code(
    error: Exception,
    code: int,
    line: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["job.py"])
    with pytest.raises(SystemExit, match=f"^{code}$"):
        program.run(raising(error))
    assert [record.getMessage() for record in caplog.records] == [line]
    assert caplog.records[0].levelno == logging.ERROR


def test_debug_lets_the_error_through_and_an_error_of_ours_is_never_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ZeroDivisionError):  # a bug of ours keeps its traceback
        program.run(raising(ZeroDivisionError()))
    monkeypatch.setattr(sys, "argv", ["job.py", "--debug"])
    with pytest.raises(IntegrityError, match="x"):
        program.run(raising(IntegrityError("x")))


@pytest.mark.parametrize(("argv", "has_traceback"), [([], False), (["--debug"], True)])
def test_a_program_prints_its_error_on_stderr_alone(
    argv: list[str], has_traceback: bool, tmp_path: Path
) -> None:
    job = tmp_path / "job.py"
    job.write_text(
        "from pipelines import program\n"
        "from pipelines.errors import ConflictError\n"
        "def main(argv):\n"
        "    raise ConflictError('gold.reviews: another writer')\n"
        "program.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, str(job), *argv],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
        check=False,
    )
    assert done.stdout == ""
    assert ("Traceback" in done.stderr) == has_traceback
    if not has_traceback:
        assert (done.returncode, done.stderr) == (
            4,
            "ConflictError: gold.reviews: another writer\n",
        )


def raising(error: Exception) -> Callable[[Sequence[str] | None], None]:
    def main(_argv: Sequence[str] | None) -> None:
        raise error

    return main


def test_debug_counts_in_the_arguments_of_the_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runner", "--debug"])
    assert program.attempt(raising(ConflictError("x")), []) == 4
    with pytest.raises(ConflictError):
        program.attempt(raising(ConflictError("x")), ["--debug"])


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("a\nCaused by: b\n\tat x\nCaused by: c: d\n\tat y", "c: d"),
        ("An error occurred while calling o7.x.\n: java.lang.X: y\n\tat z", "java.lang.X: y"),
        ("one\ntwo", "one"),
        ("", "no message"),
    ],
)
def test_the_cause_of_an_exception_is_its_innermost_one(message: str, cause: str) -> None:
    assert program.cause_line(Py4JError(message)) == cause


def test_an_error_is_a_line_of_limited_length_that_keeps_its_advice() -> None:
    line = program.one_line(InputError(f"{'x' * 10**6}: \x1b[31m. Rename it."))
    assert len(line) == program.MAX_LINE
    assert line.endswith(r"x: \x1b[31m. Rename it.")


def test_a_port_that_another_spark_has_left_in_the_environment_is_no_spark_submit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(program.GATEWAY, raising=False)
    assert not program.is_submitted()
    monkeypatch.setenv(program.GATEWAY, "12345")
    assert not program.is_submitted()  # the parent of this process is no JVM


NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0"}
UTF8_MODE = {"LC_ALL": "C"}  # Python's own choice
JAVA = {"PYSPARK_GATEWAY_PORT": "1"}


@pytest.mark.parametrize(
    ("variables", "parent", "path", "is_damaged"),
    [
        (NO_UTF8, "sh", "файл.csv", True),
        (NO_UTF8, "sh", "file.csv", False),
        (UTF8_MODE, "sh", "файл.csv", False),
        (UTF8_MODE | JAVA, "sh", "файл.csv", False),  # left over from another Spark
        (UTF8_MODE | JAVA, "java", "????????.csv", True),  # as Java passes it on
        (UTF8_MODE | JAVA, "java", "file?.csv", False),
        ({"LC_ALL": "C.UTF-8"} | JAVA, "java", "файл??.csv", False),
    ],
)
def test_an_argument_that_the_locale_has_damaged_is_named_as_the_reason(
    variables: dict[str, str], parent: str, path: str, is_damaged: bool, tmp_path: Path
) -> None:
    (tmp_path / parent).symlink_to("/bin/sh")  # a shell of that name starts the job
    (tmp_path / "job.py").write_text("from pipelines import program; program.run(lambda _: None)")
    command = [sys.executable, str(tmp_path / "job.py"), "--path", path]
    done = subprocess.run(
        [str(tmp_path / parent), "-c", '"$@"; exit $?', "-", *command],
        capture_output=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent), **variables},
        check=False,
    )
    advice = b"locale of this program knows ASCII only. Set LC_ALL=C.UTF-8, then run it again."
    assert (done.returncode, advice in done.stderr) == ((5, True) if is_damaged else (0, False))


@pytest.mark.parametrize("is_buffered", [True, False])
@pytest.mark.parametrize(
    ("last_line", "code", "errors"),
    [
        ("return None", 0, "done\n"),
        ("return 6", 6, "done\n"),
        ("raise ConflictError('x')", 4, "done\nConflictError: x\n"),
    ],
)
def test_a_reader_that_leaves_ends_the_output_and_not_the_job(
    tmp_path: Path, is_buffered: bool, last_line: str, code: int, errors: str
) -> None:
    with open_pipe() as (read_end, write_end):
        os.close(read_end)  # as `| head` does when it has read enough
        done = printing_job(tmp_path, is_buffered, last_line, write_end)
    assert (done.returncode, done.stderr) == (code, errors)


@pytest.mark.parametrize("is_buffered", [True, False])
def test_results_that_a_full_disk_cannot_take_are_one_error(
    tmp_path: Path, is_buffered: bool
) -> None:
    with open("/dev/full", "w") as full:
        done = printing_job(tmp_path, is_buffered, "return None", full.fileno())
    before = "done\n" if is_buffered else ""
    assert (done.returncode, done.stderr) == (5, f"{before}SetupError: {FULL}\n")


@contextlib.contextmanager
def open_pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    try:
        yield read_end, write_end
    finally:
        os.close(write_end)


def printing_job(
    folder: Path, is_buffered: bool, last_line: str, stdout: int
) -> subprocess.CompletedProcess[str]:
    """Run a job that prints two lines, says on stderr that it is done, and ends by `last_line`."""
    (folder / "job.py").write_text(
        "import sys\n"
        "from pipelines import program\n"
        "from pipelines.errors import ConflictError\n"
        "def main(argv):\n"
        "    program.show('one')\n"
        "    program.show('two')\n"
        "    print('done', file=sys.stderr)\n"
        f"    {last_line}\n"
        "program.run(main)\n"
    )
    return subprocess.run(
        [sys.executable, *([] if is_buffered else ["-u"]), str(folder / "job.py")],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
        check=False,
    )


def test_results_cannot_steer_the_terminal_or_pass_for_several_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program.show()
    program.show("", "a\tb", "\x1b[31m\nforged")
    assert capsys.readouterr().out == "\na\tb\n\\x1b[31m\\nforged\n"


def test_environment_variables_are_set_for_a_block_and_then_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REVIEWLAKE_OLD", "before")
    monkeypatch.setenv("REVIEWLAKE_GONE", "there")
    monkeypatch.delenv("REVIEWLAKE_NEW", raising=False)
    changes = {"REVIEWLAKE_OLD": "inside", "REVIEWLAKE_GONE": None, "REVIEWLAKE_NEW": "new"}
    with contextlib.suppress(ZeroDivisionError), program.environment(**changes):
        inside = {name: os.environ.get(name) for name in changes}
        raise ZeroDivisionError  # restored after an error too
    assert inside == changes
    after = {"REVIEWLAKE_OLD": "before", "REVIEWLAKE_GONE": "there", "REVIEWLAKE_NEW": None}
    assert {name: os.environ.get(name) for name in after} == after
