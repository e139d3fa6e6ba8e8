import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from pipelines import cli, program
from pipelines.errors import (
    ConflictError,
    ContractError,
    GateRefusedError,
    InputError,
    IntegrityError,
    JobError,
    SetupError,
)
from pipelines.train.settings import SEED_PRESET, TrainSettings

REVIEW = "words of a review"


@dataclass(frozen=True)
class Place:
    lake: str = cli.flag("where the tables are", "lake")
    rerun: bool = cli.flag("run even where done", False)


@dataclass(frozen=True)
class Settings:
    gold_version: int = cli.flag("version to read")
    learning_rate: float = cli.flag("peak rate", 2e-5)
    policy: str = cli.flag("how to split", "hash", ("hash", "seed"))
    preset: str = cli.flag("settings by name", "")
    is_frozen: bool = cli.flag("keep the embeddings", True)
    place: Place = cli.group(Place)

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 1:
            raise ValueError(
                f"--learning-rate must be above 0 and at most 1, got {self.learning_rate}"
            )


@dataclass(frozen=True)
class Preset:
    learning_rate: float = 0.5
    is_frozen: bool = False


def parse(*argv: str) -> Settings:
    return cli.parse(Settings, ["--gold-version", "3", *argv], "words", {"fast": Preset()})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], Settings(3)),
        (["--learning-rate", "0.1"], Settings(3, learning_rate=0.1)),
        (["--no-is-frozen", "--rerun"], Settings(3, is_frozen=False, place=Place(rerun=True))),
        (["--lake", "other"], Settings(3, place=Place("other"))),
        (["--preset", "fast"], Settings(3, 0.5, preset="fast", is_frozen=False)),
        (
            ["--preset", "fast", "--learning-rate", "0.1"],
            Settings(3, 0.1, preset="fast", is_frozen=False),
        ),
        (
            ["--learning-rate", "2e-5", "--preset", "fast"],
            Settings(3, 2e-5, preset="fast", is_frozen=False),
        ),
        (["--preset", "unheard-of"], Settings(3, preset="unheard-of")),
    ],
)
def test_flags_are_the_fields_and_a_given_one_wins_over_the_preset(
    argv: list[str], expected: Settings
) -> None:
    assert parse(*argv) == expected


def test_flag_names_come_from_the_fields_with_the_group_among_them() -> None:
    help_text = cli.build_parser(Settings, "words").format_help()
    for name in (
        "--gold-version",
        "--learning-rate",
        "--policy",
        "--no-is-frozen",
        "--lake",
        "--no-rerun",
        "--debug",
    ):
        assert name in help_text
    assert "peak rate (default: 2e-05)" in " ".join(help_text.split())
    assert "--place" not in help_text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "the following arguments are required: --gold-version"),
        (["--gold-version", "three"], "argument --gold-version: invalid int value: 'three'"),
        (
            ["--gold-version", "3", "--policy", "other"],
            "argument --policy: invalid choice: 'other'",
        ),
        (["--gold-version", "3", "--learn", "1"], "unrecognized arguments: --learn 1"),
    ],
)
def test_argv_that_does_not_fit_exits_2_and_names_the_flag(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.parse(Settings, argv, None)
    assert words in capsys.readouterr().err


def test_a_value_out_of_range_is_an_input_error_in_the_words_of_the_config() -> None:
    with pytest.raises(
        InputError, match=r"^--learning-rate must be above 0 and at most 1, got 2\.0$"
    ):
        parse("--learning-rate", "2")


def test_params_are_flat() -> None:
    params = cli.as_params(Settings(3))
    assert params == {
        "gold_version": 3, "learning_rate": 2e-5, "policy": "hash", "preset": "", "is_frozen": True, "lake": "lake",
        "rerun": False,
    }  # fmt: skip


@dataclass(frozen=True)
class Positional:
    run: str = cli.argument("what to look at")
    depth: int = cli.flag("how deep", 1)


def test_an_argument_is_given_by_its_place() -> None:
    assert cli.parse(Positional, ["r1", "--depth", "2"], "words") == Positional("r1", 2)
    with pytest.raises(SystemExit):
        cli.parse(Positional, [], "words")


@pytest.mark.parametrize(
    "settings", [TrainSettings(), SEED_PRESET, replace(TrainSettings(), lexical=False, seed=7)]
)
def test_settings_come_back_from_what_was_logged_of_them(settings: TrainSettings) -> None:
    logged = {name: str(value) for name, value in cli.as_params(settings).items()} | {
        "lake": "lake"
    }
    assert cli.from_params(TrainSettings, logged) == settings
    with pytest.raises(
        InputError, match=r"^lexical: expected among the recorded settings, found not: the run"
    ):
        cli.from_params(
            TrainSettings, {name: value for name, value in logged.items() if name != "lexical"}
        )
    with pytest.raises(InputError, match="--epochs must be 1"):
        cli.from_params(TrainSettings, logged | {"epochs": "0"})


SPARK_ROW = (
    f"[DELTA_VIOLATE] CHECK constraint x (y) violated by row with values:\n - text : {REVIEW}"
)
SPARK_CAST = f"[CAST_INVALID_INPUT] The value '{REVIEW}' of the type \"STRING\" is no INT.\n== SQL ==\n{REVIEW}"
PY4J = f"An error occurred while calling o7.save.\n: java.lang.IllegalStateException: no such\n\tat x\n{REVIEW}"
WORKER = "job aborted\n  File x, line 1\npipelines.errors.IntegrityError: predict: expected 2 rows, found 1.\n\tat y"
RERUN = "Rerun with --debug for the trace."
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
            f"PySparkException: [CAST_INVALID_INPUT] The value '…' of the type \"STRING\" is no INT. {RERUN}",
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
    with pytest.raises(
        ZeroDivisionError
    ):  # a bug is no fault of the user's: it keeps its traceback
        program.run(raising(ZeroDivisionError()))
    monkeypatch.setattr(sys, "argv", ["job.py", "--debug"])
    with pytest.raises(IntegrityError, match="x"):
        program.run(raising(IntegrityError("x")))


@pytest.mark.parametrize(("argv", "has_traceback"), [([], False), (["--debug"], True)])
def test_a_program_prints_its_error_on_stderr_alone(
    argv: list[str], has_traceback: bool, tmp_path: Path
) -> None:
    program = tmp_path / "job.py"
    program.write_text(
        "from pipelines import cli\nfrom pipelines.errors import ConflictError\n"
        "def main(argv):\n    raise ConflictError('gold.reviews: another writer')\ncli.run(main)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, str(program), *argv],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
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
