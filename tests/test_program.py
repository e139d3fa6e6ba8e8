"""Errors become one line and an exit code; environment variables are restored. Needs no Spark."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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
            1,
            f"PermissionError: [Errno 13] Permission denied: 'f' {RERUN}",
        ),
        (
            OSError(28, "No space left on device"),
            5,
            f"OSError: [Errno 28] No space left on device {FREE}",
        ),
        (PySparkException("a\nb: No space left on device"), 5, f"PySparkException: a {FREE}"),
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
