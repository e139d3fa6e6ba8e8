"""No text that a flag is given ends a job in a traceback or in an error that is not ours.

Needs no Spark: a job stops where it would start Spark or MLflow.
"""

import copy
import dataclasses
import importlib
import logging
import os
import random
import re
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli, flag_rules, program
from pipelines.bundle import resolve
from pipelines.bundle.__main__ import BundleConfig
from pipelines.bundle.check import config_of
from pipelines.errors import SetupError
from pipelines.flag_rules import Rule, between
from pipelines.lake.config import FOUR_SCHEMAS
from tests.support.processes import ROOT, own_environment

N_STRINGS = 2_000
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
BOUNDARY = "stopped before Spark or MLflow"
OUR_LINE = re.compile(
    r"(InputError|ContractError|IntegrityError|ConflictError|SetupError|GateRefusedError): .+"
)
# What a job needs besides the flag that is tried, to come as far as it can without Spark.
CONTEXT = {
    "ingest": ["--source", "csv", "--path", "absent.csv", "--name", "shop"],
    "query": ["--sql", "SELECT 1"],
    "reproduce": ["0123abcd"],
    "vacuum": ["--table", "gold.reviews"],
    "bundle": ["run", "pipeline", "--plan"],
}
SEEDS = [
    *("", " ", "\t", "\n", "a b", " a", "a\0b", "\0", "\udcff", "\ud800", "a\r\nb", "\x1b[31m"),
    *("\x7f", "\x85", "\u202egnp.exe", "\u2066x", "\u200b", "\u2028", "\ufeff", "é", "日本", "💥"),
    *("²", "\uff11\uff12", "٣", "1_000", "+5", " 5 ", "0x10", "1e3", "-1", "-0", "0", "1"),
    *("2147483647", "2147483648", "-2147483649", "9" * 30, "9" * 5_000),
    *("nan", "NaN", "inf", "-inf", "1e308"),
    *("1e999", "-1e308", "1.5", ".5", "5.", "1,5", "True", "None", "null", "3-7", "7-3", "²-³"),
    *("'; DROP TABLE gold.reviews; --", "1 OR 1=1", "`x`", "$(id)", "`id`", "; id", "| id", "&"),
    *("../../../etc", "/etc/passwd", "/proc/self/mem", "/dev/full/x", "/dev/null", "~root", "."),
    *("..", "/", "//", "*", "?", "[a]", "{a,b}", "a\\b", "%s%n", "%00", "{0.__class__}", "${x}"),
    *("{{x}}", "${oops", "???", "file:///etc", "file:x", "s3a://b/x", "http://[::1", "hdfs:/"),
    *("https://u:p@h/x", "models:/m@a", "models:/m/1", "models:/m/" + "9" * 40, "models:/"),
    *("-", "--", "-x", "=", "=a", "a=b", "a=", "A" * 255, "A" * 256, "a/" * 3_000),
    *("x" * 100_000, "1,2,3,4", "global_temp,a,b,c", "a,b,c,d", "a,a,b,c", "where,a,b,c", ",,,"),
    *("undefined", "rot13", "idna", "base64", "punycode", "utf-16", "cp1252", "latin-1", "mbcs"),
]
ALPHABET = "aA0\uff19²-_.,:;/\\'\"`$%&|*?[]{}()=+ \t\n\0\x1b\x9b\u202e\u2028\ud800\udcffé日💥"


PRESIGNED = "https://b.s3.amazonaws.com/r.csv?X-Amz-Security-Token=" + "A" * 1_000
RULES: list[tuple[Rule, list[Any], list[Any]]] = [  # rule, valid values, invalid values
    (between(0, 1), [0, 0.5, 1], [-0.1, 1.1, 1e308]),
    (between(-1), [-1, 0, 2**31 - 1], [-2, 2**31]),
    (flag_rules.TEXT, ["", "a\nb", "é", "💥"], ["a\0b", "\udcff", "a\ud800"]),
    (
        flag_rules.PATH,
        ["lake", "/a b/c", "s3a://b/x", "é", "\xa0", "A" * 255, "a/" * 2_000, PRESIGNED],
        [
            "",
            "a\0",
            "a\nb",
            "\x1b",
            "\x85",
            "\udcff",
            "A" * 256,
            "é" * 128,
            "a/" * 2_001,
            PRESIGNED * 4,
        ],
    ),
    (
        flag_rules.NAME,
        ["a b", "/Users/x@y/[dev x] n", "日本", "n" * 250],
        ["", " ", "a ", "a\tb", "\u202ea", "a\u2028b", "\ud800", "n" * 251],
    ),
    (
        flag_rules.MODEL_NAME,
        ["a.b.c_d-1", "..."],
        ["", ".", "..", "a b", "é", "a/b", "a@b", "a\n", "n" * 251],
    ),
    (
        flag_rules.MODEL_VERSION,
        ["champion", "a-b_1", "7", "999999999", "1a"],
        ["", "²", "9" * 10, "-1x y", "a b", "a.b", "7\n"],
    ),
    (
        flag_rules.CATALOG_NAME,
        ["main", "a1_", "2024_bronze", "_", "1ab_"],
        ["", "1", "12", "1e5", "1L", "1bd", "a.b", "a-b", "é", "\uff11", "a\n"],
    ),
    (flag_rules.VERSIONS, ["3", "3-7", "007"], ["", "²", "3-", "-3", "3-7-9", "a", "3 - 7", "3\n"]),
    (
        flag_rules.ENCODING,
        ["utf-8", "UTF8", "cp1252", "latin-1", "utf-16", "utf-8-sig", "shift_jis"],
        [
            *(
                "",
                "no-such",
                "undefined",
                "rot13",
                "idna",
                "punycode",
                "base64",
                "hex",
                "a\0b",
                "é",
            ),
            *("unicode_escape", "unicode-escape", "raw_unicode_escape", "raw-unicode-escape"),
            "x" * 9_999,
        ],
    ),
    (
        flag_rules.SHA256,
        ["0aF" + "b" * 61],
        ["", "abc", "a" * 63, "a" * 65, "g" * 64, " " + "a" * 64, "a" * 64 + "\n", "²" * 64],
    ),
    (
        FOUR_SCHEMAS,
        ["bronze,silver,gold,ops", "a,b,c,d", "select,from,delta,default"],
        ["1,2,3,4", "global_temp,a,b,c", "where,a,b,c", "a,b,c,A", "a,b,c", "a,b,c,é", ",,,"],
    ),
]


@pytest.mark.parametrize(
    ("rule", "valid", "invalid"), RULES, ids=lambda part: getattr(part, "words", "")[:40]
)
def test_a_rule_accepts_what_works_and_nothing_else(
    rule: Rule, valid: list[Any], invalid: list[Any]
) -> None:
    assert [value for value in valid if not rule.accepts(value)] == []
    assert [value for value in invalid if rule.accepts(value)] == []


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *[(int, text, int(text)) for text in ("0", "-1", "007", "2147483648")],
        *[(int, text, None) for text in ("", "+5", " 5", "5 ", "1_0", "²", "\uff11", "1.0", "1e3")],
        *[(float, text, float(text)) for text in ("0", "-1.5", ".5", "5.", "2e-05", "1E+3")],
        *[(float, text, None) for text in ("", "nan", "inf", "-inf", "+1", "1_0", "\uff11", "1e")],
        *[(bool, text, text == "True") for text in ("True", "False")],
        *[(bool, text, None) for text in ("true", "", "1")],
    ],
)
def test_numbers_are_read_from_ascii_digits_only(kind: type[Any], text: str, value: Any) -> None:
    assert flag_rules.READERS[kind](text) == value


def hostile(chance: random.Random) -> str:
    """Return a seed, or a mixture of seeds and characters."""
    seed = chance.choice(SEEDS)
    match chance.randrange(4):
        case 0 | 1:
            return seed
        case 2:
            place = chance.randrange(len(seed) + 1)
            return seed[:place] + chance.choice(ALPHABET) + seed[place:]
    return "".join(chance.choices(ALPHABET, k=chance.randrange(1, 12)))


def flags_of(config: type[Any]) -> list[str]:
    """Return the flags of a config that take a value, and "" for a positional argument."""
    names: list[str] = []
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if "group" in field.metadata:
            names += flags_of(field.metadata["group"])
        elif "argument" in field.metadata:
            names.append("")
        elif types[field.name] is not bool:
            names.append("--" + field.name.replace("_", "-"))
    return names


def programs() -> dict[str, tuple[type[Any], program.Main]]:
    """Return the config and the main function of each job, and of the runner."""
    found: dict[str, tuple[type[Any], program.Main]] = {
        job: (
            config_of(ROOT / "jobs" / f"{job}.py"),
            importlib.import_module(f"jobs.{job}").main,
        )
        for job in JOBS
    }
    bundle = importlib.import_module("pipelines.bundle.__main__")
    return {**found, "bundle": (BundleConfig, bundle.main)}


@pytest.fixture
def stops_before_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, and raise SetupError where a job would start Spark or MLflow."""

    def stop(*_args: object, **_options: object) -> None:
        raise SetupError(BOUNDARY)

    for place in (
        "pipelines.lake.session.get_session",
        "pipelines.lake.tables.get_session",
        "pipelines.tracking.store.connect",
        "pipelines.demo.run",
    ):
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(importlib.import_module(module), name, stop)
    definition = resolve.read(resolve.DEFINITION)  # reading YAML takes most of a plan's time
    monkeypatch.setattr(resolve, "read", lambda _file: copy.deepcopy(definition))
    monkeypatch.chdir(tmp_path)


def arguments(job: str, flag: str, text: str, chance: random.Random) -> list[str]:
    given = CONTEXT.get(job, [])
    if flag == "":
        return [*given[:-1], "--", text] if job == "reproduce" else [text, "pipeline"]
    if job == "query" and flag in ("--sql", "--file"):
        given = []
    if flag in ("--param", "--var"):
        text = chance.choice(["lake=", "path=", "max_rows=", "model=", ""]) + text
    return [*given, *([flag, text] if chance.random() < 0.2 else [f"{flag}={text}"])]


@pytest.mark.usefixtures("stops_before_spark")
def test_two_thousand_hostile_texts_end_in_documented_exit_codes_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chance = random.Random(15)
    jobs = programs()
    tried = [(job, flag) for job, (config, _) in jobs.items() for flag in flags_of(config)]
    assert len(tried) > 100
    codes = Counter[int]()
    n_refused_by_flags = 0
    n_at_boundary = 0
    for number in range(N_STRINGS):
        job, flag = tried[number % len(tried)]
        text = hostile(chance)
        argv = arguments(job, flag, text, chance)
        config, main = jobs[job]
        is_refused = cli.complaint(config, argv) is not None
        n_refused_by_flags += is_refused
        caplog.clear()
        code = program.attempt(main, argv)
        codes[code] += 1
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        lines = [record.getMessage() for record in errors]
        assert code in (0, 2, 3, 5), (argv, lines)
        assert not is_refused or code == 2, (argv, lines)
        assert len(lines) == (code != 0), (argv, lines)
        assert all(OUR_LINE.fullmatch(line) and line.isprintable() for line in lines), (argv, lines)
        n_at_boundary += any(BOUNDARY in line for line in lines)
    # Both kinds are many, so that neither the rules nor the jobs behind them go untested.
    assert sum(codes.values()) == N_STRINGS
    assert 700 < n_refused_by_flags < 1_600, codes
    assert n_at_boundary > 100, codes
    assert codes[2] > n_refused_by_flags, codes


COMMANDS: list[tuple[int, str, list[bytes]]] = [
    (2, "jobs/clean.py", [b"--lake", b"a\xffb"]),
    (2, "jobs/clean.py", [b"--lock-wait-s", b"inf"]),
    (2, "jobs/vacuum.py", [b"--older-than-hours", b"1e308"]),
    (2, "jobs/vacuum.py", [b"--table", b"ops.runs", b"--forget", "²".encode()]),
    (2, "jobs/curate.py", [b"--schemas", b"1,2,3,4"]),
    (2, "jobs/query.py", [b"--sql", b"SELECT 1", b"--limit", b"2147483648"]),
    (2, "jobs/query.py", [b"--file", b"\xff\x1b[31m"]),
    (2, "jobs/train.py", [b"--experiment", b""]),
    (2, "jobs/ingest.py", [b"--encoding", b"undefined"]),
    (2, "jobs/ingest.py", [b"--sha256", b"abc"]),
    (2, "jobs/demo.py", [b"--lake", b"s3://bucket/x"]),
    (5, "jobs/ingest.py", [b"--lake", b"a-file"]),
    (2, "-m", [b"pipelines.bundle", b"run", b"pipeline", b"--plan", b"--var", b"lake=\xff"]),
]


def test_a_refused_program_ends_with_one_line_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    environment = own_environment() | {"PYTHONPATH": str(ROOT)}
    processes = []
    for _, program_file, flags in COMMANDS:
        script = program_file if program_file == "-m" else str(ROOT / program_file)
        processes.append(
            subprocess.Popen(
                [os.fsencode(sys.executable), os.fsencode(script), *flags],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    for process, (exit_code, program_file, flags) in zip(processes, COMMANDS, strict=True):
        answer, errors = process.communicate(timeout=120)
        case = (program_file, flags, errors)
        assert (process.returncode, answer) == (exit_code, b""), case
        [line] = errors.decode().splitlines()
        assert OUR_LINE.fullmatch(line), case
        assert line.isprintable(), case
