"""Flags come from a dataclass, with defaults, presets and checks. Needs no Spark."""

import re
from dataclasses import dataclass, replace

import pytest

from pipelines import cli
from pipelines.errors import InputError
from pipelines.train.settings import SEED_PRESET, TrainSettings


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
        ([], "the following arguments are required: --gold-version. --help lists the flags."),
        (
            ["--gold-version", "three"],
            "--gold-version must be a whole number, -2147483647..2147483647, got 'three'",
        ),
        (
            ["--gold-version", "3", "--policy", "other"],
            "argument --policy: invalid choice: 'other'",
        ),
        (["--gold-version", "3", "--learn", "1"], "unrecognized arguments: --learn 1"),
    ],
)
def test_argv_that_does_not_fit_is_an_input_error_of_one_line_that_names_the_flag(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(words)}") as caught:
        cli.parse(Settings, argv, None)
    assert (caught.value.exit_code, len(str(caught.value).splitlines())) == (2, 1)
    assert capsys.readouterr().err == ""


def test_a_value_out_of_range_is_an_input_error_in_the_words_of_the_config() -> None:
    with pytest.raises(
        InputError, match=r"^--learning-rate must be above 0 and at most 1, got 2\.0$"
    ):
        parse("--learning-rate", "2")


def test_params_are_flat() -> None:
    params = cli.as_params(Settings(3))
    assert params == {
        "gold_version": 3,
        "learning_rate": 2e-5,
        "policy": "hash",
        "preset": "",
        "is_frozen": True,
        "lake": "lake",
        "rerun": False,
    }


@dataclass(frozen=True)
class Positional:
    run: str = cli.argument("what to look at")
    depth: int = cli.flag("how deep", 1)


def test_an_argument_is_given_by_its_place() -> None:
    assert cli.parse(Positional, ["r1", "--depth", "2"], "words") == Positional("r1", 2)
    with pytest.raises(InputError, match=r"^the following arguments are required: run\."):
        cli.parse(Positional, [], "words")


@pytest.mark.parametrize(
    "settings", [TrainSettings(), SEED_PRESET, replace(TrainSettings(), lexical=False, seed=7)]
)
def test_settings_come_back_from_what_was_logged_of_them(settings: TrainSettings) -> None:
    logged = {name: str(value) for name, value in cli.as_params(settings).items()}
    logged["lake"] = "lake"  # a param of the run that is no training setting
    assert cli.from_params(TrainSettings, logged) == settings
    older = {name: value for name, value in logged.items() if name != "lexical"}
    with pytest.raises(InputError, match=r"^lexical: missing from the run's recorded settings; it"):
        cli.from_params(TrainSettings, older)
    with pytest.raises(InputError, match="--epochs must be 1"):
        cli.from_params(TrainSettings, logged | {"epochs": "0"})
