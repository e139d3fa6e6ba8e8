"""A stage killed at any file change ends with the same content when run again. Needs Spark.

Each stage runs in a subprocess, with a tiny encoder. CRASH_KILLS is the number of kills per stage,
spread over its run; 0 = kill at every change, which takes a day or more.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from schemas import TABLES, Table
from tests.support.every_job import encoder_of_reviews
from tests.support.preload import library
from tests.support.processes import ROOT, own_environment

STAGES = ("ingest", "clean", "curate", "train", "promote", "score")
SAMPLE = ("ingest", "train")  # killed in CI too; the other stages only by `make stress`
KILLS_PER_STAGE = int(os.environ.get("CRASH_KILLS", "1"))  # 0 = at every change
# Columns that differ between two equal runs: times, IDs, and versions that count the attempts.
RUN_COLUMNS = {
    "ingested_at",
    "scored_at",
    "finished_at",
    "registered_at",
    "decided_at",
    "run_id",
    "model_version",
    "files",
    "manifest_sha256",
    "reasons",
    "silver_version",
    "gold_version",
    "bronze_version",
    "previous_version",
}
# A tiny encoder does not beat the baseline, so the gate's verdict is replaced by a pass:
# a promotion changes more than a refusal does.
PROMOTE = """
    import runpy, sys
    import pipelines.promote.gate
    from pipelines.promote.checks import Check, Verdict
    passed = Verdict((Check("told", True, {}, None, "told to pass"),))
    pipelines.promote.gate.judge_challenger = lambda *_args, **_kwargs: passed
    sys.argv = ["jobs/promote.py", *sys.argv[1:]]
    runpy.run_path("jobs/promote.py", run_name="__main__")
"""
Process = subprocess.CompletedProcess[str]


def marks_of(stage: str) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.slow, pytest.mark.stress) if stage in SAMPLE else (pytest.mark.stress,)


def command_of(stage: str, lake: Path, encoder: str) -> list[str]:
    flags = {
        "ingest": ["--max-rows", "60"],
        "curate": ["--backbone", encoder],
        "train": ["--backbone", encoder, "--max-tokens", "32"],
    }
    program = ["-c", textwrap.dedent(PROMOTE)] if stage == "promote" else [f"jobs/{stage}.py"]
    return [sys.executable, *program, "--lake", str(lake), *flags.get(stage, [])]


def run(command: list[str], variables: Mapping[str, str]) -> Process:
    """Run a command in a session of its own.

    The kill of its process group then ends driver and JVM, and not pytest.
    """
    return subprocess.run(
        command,
        cwd=ROOT,
        env=own_environment() | dict(variables),
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )


def content(lake: Path) -> dict[str, list[Any]]:
    """Read a lake's rows and aliases with an independent reader, without RUN_COLUMNS.

    A repeated attempt may repeat rows of `ops`, so only the distinct ones count.
    """
    by_table: dict[str, list[Any]] = {}
    for table in TABLES:
        place = lake.joinpath(*table.name.split("."))
        if table.name != "ops.runs" and (place / "_delta_log").exists():
            rows = compared_rows(place, table)
            by_table[table.name] = sorted(set(rows) if table.name.startswith("ops.") else rows)
    runs = DeltaTable(str(lake / "ops" / "runs")).to_pyarrow_table().to_pylist()
    by_table["ops.runs"] = sorted({(row["stage"], row["state"]) for row in runs})
    database = lake / "mlflow" / "mlflow.db"
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            aliases = connection.execute("SELECT alias FROM registered_model_aliases").fetchall()
        by_table["aliases"] = sorted(aliases)
    return by_table


def compared_rows(place: Path, table: Table) -> list[tuple[str, ...]]:
    columns = [name for name in table.column_names if name not in RUN_COLUMNS]
    rows = DeltaTable(str(place)).to_pyarrow_table().to_pylist()
    return [tuple(str(row[name]) for name in columns) for row in rows]


class Machine:
    """A lake at one path, restored before each kill to its state before the stage."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lake = directory / "lake"
        self.encoder = encoder_of_reviews(directory / "encoder")
        self.library = library("crash", directory)
        self.changes: dict[str, list[str]] = {}  # by finished stage: its changes to the lake

    def finish(self, stage: str) -> list[str]:
        """Run the stages up to this one, each once and without a kill; return its changes."""
        for earlier in STAGES[: STAGES.index(stage) + 1]:
            if earlier not in self.changes:
                self.restore(earlier)
                process, self.changes[earlier] = self.run_watched(earlier, kill_at=0)
                assert process.returncode == 0, process.stderr
                shutil.copytree(self.lake, self.directory / f"after-{earlier}")
        return self.changes[stage]

    def restore(self, stage: str) -> None:
        """Restore the lake to its state before a stage."""
        shutil.rmtree(self.lake, ignore_errors=True)
        if stage != STAGES[0]:
            stage_before = STAGES[STAGES.index(stage) - 1]
            shutil.copytree(self.directory / f"after-{stage_before}", self.lake)

    def run(self, stage: str) -> Process:
        """Run a stage without the library that counts and kills."""
        return run(command_of(stage, self.lake, self.encoder), {})

    def run_watched(self, stage: str, kill_at: int) -> tuple[Process, list[str]]:
        """Run a stage with the library, which kills it at that change (0 = never).

        Returns the process and the changes in the order in which they were made.
        """
        counter = self.directory / "counter"
        counter.write_bytes(bytes(8))
        log = self.directory / "log"
        log.write_text("")
        variables = {
            "LD_PRELOAD": str(self.library),
            "CRASH_BELOW": str(self.lake),
            "CRASH_COUNTER": str(counter),
            "CRASH_LOG": str(log),
            "CRASH_AT": str(kill_at),
        }
        process = run(command_of(stage, self.lake, self.encoder), variables)
        return process, log.read_text().splitlines()

    def kill(self, stage: str, point: int) -> str:
        """Kill a stage at a change; return the stage and that change for messages."""
        self.restore(stage)
        process, changes = self.run_watched(stage, kill_at=point)
        if len(changes) < point:  # the number of changes varies a little: kill at the last one
            return self.kill(stage, len(changes))
        assert process.returncode == -signal.SIGKILL, (stage, changes[point - 1], process.stderr)
        return f"{stage} killed at {changes[point - 1]}"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def spread(n_changes: int, n_kills: int) -> list[int]:
    """Return the changes at which to kill, counted from 1: all of them for 0 kills."""
    if n_kills == 0:
        return list(range(1, n_changes + 1))
    return [1 + (2 * number + 1) * n_changes // (2 * n_kills) for number in range(n_kills)]


@pytest.mark.parametrize(("n_kills", "expected"), [(0, [1, 2, 3, 4]), (1, [3]), (2, [2, 4])])
def test_kills_are_spread_over_the_run(n_kills: int, expected: list[int]) -> None:
    assert spread(4, n_kills) == expected


@pytest.mark.timeout(0)
@pytest.mark.parametrize("stage", [pytest.param(stage, marks=marks_of(stage)) for stage in STAGES])
def test_a_stage_killed_at_any_change_ends_with_the_same_content_when_run_again(
    machine: Machine, stage: str
) -> None:
    changes = machine.finish(stage)
    assert len(changes) >= 20, changes  # the library was loaded and counted
    expected = content(machine.directory / f"after-{stage}")
    for point in spread(len(changes), KILLS_PER_STAGE):
        killed_at = machine.kill(stage, point)
        second_run = machine.run(stage)
        assert second_run.returncode == 0, f"{killed_at}: {second_run.stderr}"
        assert content(machine.lake) == expected, killed_at
