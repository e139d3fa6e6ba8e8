"""The runner's command line on the real databricks.yml. Needs no Spark."""

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.bundle import __main__ as bundle
from pipelines.bundle.check import jobs_of
from pipelines.bundle.graph import Job, Script
from pipelines.bundle.resolve import DEFINITION, definition_for, load, targets_of
from pipelines.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SOMEONE = "someone@example.com"
# Arguments with which the real CLI created the jobs: bundle_check.py writes and compares them.
ARGV_FILE = ROOT / "tests" / "bundle_argv.json"
CLOUD: dict[str, Any] = json.loads(ARGV_FILE.read_text(encoding="utf-8"))


def test_the_definition_has_four_targets() -> None:
    assert targets_of(DEFINITION) == ["local", "dev", "staging", "prod"]


def scripts(job: Job) -> dict[str, Any]:
    """A job's scripts and parameters, in the form of the file."""
    entries: dict[str, Any] = {
        task.key: {"file": task.work.file, "argv": list(task.work.argv)}
        for task in job.tasks
        if isinstance(task.work, Script)
    }
    return entries | {"job.parameters": dict(job.parameters)}


@pytest.mark.parametrize("target", ["local", "dev", "staging", "prod"])
def test_every_tasks_arguments_and_every_jobs_parameters_are_those_of_the_cloud(
    target: str,
) -> None:
    jobs = jobs_of(load(DEFINITION, target, variables={}, user=SOMEONE))
    assert len(CLOUD[target]) == 5
    assert {job.name: scripts(job) for job in jobs} == CLOUD[target]


def test_a_plan_is_printed_and_nothing_is_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.bundle.runner.run_job", lambda *_, **__: pytest.fail("ran"))
    flags = ["--target", "dev", "--user", SOMEONE, "--plan", "--param", "model=7"]
    assert bundle.main(["run", "score", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[::2]] == ["1 ingest", "2 clean", "3 score"]
    assert lines[5].endswith("--model 7")
    names = "dev_someone_bronze,dev_someone_silver,dev_someone_gold,dev_someone_ops"
    assert f"--schemas {names}" in lines[5]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run"], r"run needs a job: python -m pipelines\.bundle run pipeline"),
        (
            ["run", "pipelin", "--plan"],
            r"databricks\.yml: no job pipelin; it has pipeline, score, stream, reproduce, v",
        ),
        (
            ["run", "score", "--plan", "--param", "x=1"],
            r"--param x: no parameter of job score, which has source, path,",
        ),
        (["run", "score", "--plan", "--param", "x"], r"--param must be NAME=VALUE, got 'x'"),
        (
            ["run", "score", "--plan", "--var", "x=1"],
            r"databricks\.yml: no variable x; it has catalog, schemas, .* Pass one of them\.",
        ),
        (
            ["run", "score", "--target", "dev"],
            r"--target dev: its tables are in a workspace\. Pass --plan to see what",
        ),
        (
            ["run", "score", "--target", "test", "--plan"],
            r"databricks\.yml: no target test; it has local, dev, staging, prod\. Pass one",
        ),
    ],
)
def test_a_command_line_that_cannot_run_is_refused_before_anything_runs(
    argv: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        bundle.main(argv)


def test_check_prints_each_fault_and_exits_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    assert bundle.main(["check"]) == 0
    text = DEFINITION.read_text().replace("jobs/clean.py", "jobs/cleen.py")
    (tmp_path / "databricks.yml").write_text(text)
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.setattr("pipelines.bundle.__main__.DEFINITION", tmp_path / "databricks.yml")
    assert bundle.main(["check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    fault = "task clean: jobs/cleen.py does not exist. Correct python_file."
    assert f"target prod, job score: {fault}" in lines
    assert len(lines) == 8  # two jobs have this task, in four targets
    assert caplog.messages[-1] == f"InputError: databricks.yml: {len(lines)} faults, listed above."


def test_a_failed_job_gives_its_exit_code_and_keeps_its_state_below_the_current_directory(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "pipelines.bundle", "run", "reproduce", "--in-process"]
    done = subprocess.run(
        [*command, "--param", "run=0", "--var", "lake=lake"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "InputError: run 0: expected the id of a run in ops.models, found none." in done.stderr
    assert re.search(r"reproduce  failed +2 ", done.stdout)
    assert "Traceback" not in done.stderr
    state_file = tmp_path / "lake" / "landing" / "runs" / "reproduce.json"
    assert json.loads(state_file.read_text())["reproduce"]["state"] == "failed"
    assert list(tmp_path.iterdir()) == [tmp_path / "lake"]


def test_an_exported_variable_counts_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE_VAR_catalog", "mine")
    for given, expected in (({}, "mine"), ({"catalog": "yours"}, "yours")):
        assert definition_for("dev", given)["variables"]["catalog"] == expected


def test_the_entry_points_of_the_mlflow_project_are_the_jobs_and_the_runner_takes_their_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert {"pipeline", *points} - {"main"} == set(CLOUD["local"])
    for point in points.values():
        values = {name: entry["default"] for name, entry in point["parameters"].items()}
        command = point["command"].format(**values).split("python -m pipelines.bundle ")[1]
        assert bundle.main([*shlex.split(command), "--plan"]) == 0
    assert "models:/review_classifier@champion" in capsys.readouterr().out
