"""Every stage, killed at each change that it makes to the lake: the next run must come to the same content.

CRASH_KILLS says at how many changes of each stage, spread over its run; 0 = at every one, which takes a day or more.
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

import pandas as pd
import pytest
from deltalake import DeltaTable

from pipelines.ingest.sources import packaged_file
from schemas import TABLES
from tests.support import tiny_encoder
from tests.support.preload import library

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("ingest", "clean", "curate", "train", "promote", "score")
SAMPLE = ("ingest", "train")  # what CI kills; the other stages are killed by make stress
MARKS = {True: (pytest.mark.slow, pytest.mark.stress), False: (pytest.mark.stress,)}
KILLS = int(os.environ.get("CRASH_KILLS", "1"))  # a stage; 0 = at every change
# What differs between two runs that do the same: when, by which run, at which try.
PASSING = {
    "ingested_at", "scored_at", "finished_at", "registered_at", "decided_at", "run_id", "model_version", "files",
    "manifest_sha256", "reasons", "silver_version", "gold_version", "bronze_version", "previous_version",
}  # fmt: skip
# A tiny encoder cannot beat the baseline: the gate is told to pass it, since a promotion changes more than a refusal.
PROMOTE = """
    import runpy, sys
    import pipelines.promote.gate
    from pipelines.promote.checks import Check, Verdict
    pipelines.promote.gate.judge_challenger = lambda *_: Verdict((Check("told", True, {}, None, "told to pass"),))
    sys.argv = ["jobs/promote.py", *sys.argv[1:]]
    runpy.run_path("jobs/promote.py", run_name="__main__")
"""


def command_of(stage: str, lake: Path, encoder: Path) -> list[str]:
    flags = {
        "ingest": ["--max-rows", "60"],
        "curate": ["--backbone", str(encoder)],
        "train": ["--backbone", str(encoder), "--max-tokens", "32"],
    }
    program = ["-c", textwrap.dedent(PROMOTE)] if stage == "promote" else [f"jobs/{stage}.py"]
    return [sys.executable, *program, "--lake", str(lake), *flags.get(stage, [])]


def run(command: list[str], extra: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """In a session of its own, so that a kill of the process group takes driver and JVM, and not pytest."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"
    } | dict(extra)
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )


def content(lake: Path) -> dict[str, list[Any]]:
    """The lake's rows by an independent reader, without what only says when and in which try they were written."""
    found: dict[str, list[Any]] = {}
    for table in TABLES:
        place = lake.joinpath(*table.name.split("."))
        if table.name != "ops.runs" and (place / "_delta_log").exists():
            rows = DeltaTable(str(place)).to_pyarrow_table().to_pylist()
            kept = [
                tuple(str(row[name]) for name in table.column_names if name not in PASSING)
                for row in rows
            ]
            found[table.name] = sorted(set(kept) if table.name.startswith("ops.") else kept)
    runs = DeltaTable(str(lake / "ops" / "runs")).to_pyarrow_table().to_pylist()
    found["ops.runs"] = sorted({(row["stage"], row["state"]) for row in runs})
    database = lake / "mlflow" / "mlflow.db"
    if database.exists():
        with closing(sqlite3.connect(database)) as connection:
            found["aliases"] = sorted(
                connection.execute("SELECT alias FROM registered_model_aliases").fetchall()
            )
    return found


class Machine:
    """A lake at one path, put back to the state before a stage for each kill."""

    def __init__(self, directory: Path) -> None:
        texts = pd.read_csv(packaged_file()[0], nrows=500)["text"].tolist()
        self.directory = directory
        self.lake = directory / "lake"
        self.encoder = tiny_encoder.build(directory / "encoder", texts)
        self.library = library("crash", directory)
        self.ended: dict[str, list[str]] = {}  # by stage: the changes that it made to the lake

    def finish(self, stage: str) -> list[str]:
        """Run every stage up to this one, each once, watched and not killed; the changes that this one made."""
        for one in STAGES[: STAGES.index(stage) + 1]:
            if one not in self.ended:
                self.restore(one)
                done, self.ended[one] = self.run(one, kill_at=0)
                assert done.returncode == 0, done.stderr
                shutil.copytree(self.lake, self.directory / f"after-{one}")
        return self.ended[stage]

    def restore(self, stage: str) -> None:
        """Put the lake back to what it was before a stage."""
        shutil.rmtree(self.lake, ignore_errors=True)
        if stage != STAGES[0]:
            shutil.copytree(self.directory / f"after-{STAGES[STAGES.index(stage) - 1]}", self.lake)

    def run(
        self, stage: str, kill_at: int | None = None
    ) -> tuple["subprocess.CompletedProcess[str]", list[str]]:
        """Run a stage; with a number, under the library, which kills at that change (0 = never). Returns its log."""
        command, extra = command_of(stage, self.lake, self.encoder), {}
        counter, log = self.directory / "counter", self.directory / "log"
        if kill_at is not None:
            counter.write_bytes(bytes(8))
            log.write_text("")
            extra = {
                "LD_PRELOAD": str(self.library), "CRASH_BELOW": str(self.lake), "CRASH_COUNTER": str(counter),
                "CRASH_LOG": str(log), "CRASH_AT": str(kill_at),
            }  # fmt: skip
        return run(command, extra), log.read_text().splitlines() if kill_at is not None else []

    def killed(self, stage: str, point: int) -> str:
        """Kill a stage at a change, and say at which it was killed."""
        self.restore(stage)
        done, told = self.run(stage, kill_at=point)
        if (
            len(told) < point
        ):  # the count differs a little from run to run: then the last change of this one
            return self.killed(stage, len(told))
        assert done.returncode == -signal.SIGKILL, (stage, told[point - 1], done.stderr)
        return f"{stage} killed at {told[point - 1]}"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine"))


def spread(n_changes: int, n_kills: int) -> list[int]:
    """The numbers of the changes to kill at, from 1: all of them for 0 kills."""
    if n_kills == 0:
        return list(range(1, n_changes + 1))
    return [1 + (2 * number + 1) * n_changes // (2 * n_kills) for number in range(n_kills)]


@pytest.mark.parametrize(("n_kills", "expected"), [(0, [1, 2, 3, 4]), (1, [3]), (2, [2, 4])])
def test_kills_are_spread_over_the_run(n_kills: int, expected: list[int]) -> None:
    assert spread(4, n_kills) == expected


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=MARKS[stage in SAMPLE]) for stage in STAGES]
)
def test_a_stage_killed_at_any_change_comes_to_the_same_content_when_run_again(
    machine: Machine, stage: str
) -> None:
    changes = machine.finish(stage)
    assert len(changes) >= 20, changes  # it was watched
    expected = content(machine.directory / f"after-{stage}")
    for point in spread(len(changes), KILLS):
        where = machine.killed(stage, point)
        again, _ = machine.run(stage)
        assert again.returncode == 0, f"{where}: {again.stderr}"
        assert content(machine.lake) == expected, where
