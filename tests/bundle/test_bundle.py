"""The runner's command line, and the real databricks.yml."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.bundle import __main__ as bundle
from pipelines.bundle.faults import examine
from pipelines.bundle.graph import Loop, Script, job_of
from pipelines.bundle.resolve import load, targets_of
from pipelines.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SOMEONE = "someone@example.com"
# What the real CLI created jobs with: written and compared by bundle_check.py against a fake workspace.
CLOUD: dict[str, Any] = json.loads(
    (ROOT / "tests" / "bundle_argv.json").read_text(encoding="utf-8")
)


def test_the_definition_has_no_fault() -> None:
    assert list(examine(bundle.DEFINITION)) == []
    assert targets_of(bundle.DEFINITION) == ["local", "dev", "staging", "prod"]


def scripts(target: str) -> dict[str, dict[str, Any]]:
    """Each job's scripts and parameters as the runner resolves them."""
    definition = load(bundle.DEFINITION, target, {}, SOMEONE)
    found: dict[str, dict[str, Any]] = {}
    for name in definition["resources"]["jobs"]:
        job = job_of(definition, name)
        works = {task.key: task.work for task in job.tasks}
        found[name] = {
            key: {"file": script.file, "argv": list(script.argv)}
            for key, script in (
                (k, w.script if isinstance(w, Loop) else w) for k, w in works.items()
            )
            if isinstance(script, Script)
        } | {"job.parameters": dict(job.parameters)}
    return found


@pytest.mark.parametrize("target", ["local", "dev", "staging", "prod"])
def test_every_tasks_arguments_and_every_jobs_parameters_are_those_that_the_cloud_has(
    target: str,
) -> None:
    assert len(CLOUD[target]) == 4
    assert scripts(target) == CLOUD[target]


def test_a_plan_is_printed_and_nothing_is_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.bundle.runner.run_job", lambda *_: pytest.fail("ran"))
    assert (
        bundle.main(
            ["run", "score", "--target", "dev", "--user", SOMEONE, "--plan", "--param", "model=7"]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[::2]] == ["1 ingest", "2 clean", "3 score"]
    assert lines[5].endswith("--model 7")
    assert (
        "--schemas dev_someone_bronze,dev_someone_silver,dev_someone_gold,dev_someone_ops"
        in lines[5]
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run"], r"run needs a job: python -m pipelines\.bundle run pipeline"),
        (
            ["run", "pipelin", "--plan"],
            r"databricks\.yml: expected a job pipelin, found pipeline, score, reproduce, va",
        ),
        (
            ["run", "score", "--plan", "--param", "x=1"],
            r"--param x: expected a parameter of job score, which has source,",
        ),
        (["run", "score", "--plan", "--param", "x"], r"--param must be name=value, got 'x'"),
        (
            ["run", "score", "--plan", "--var", "x=1"],
            r"databricks\.yml: expected one of its variables, found x\.",
        ),
        (
            ["run", "score", "--target", "dev"],
            r"--target dev: its tables are in a workspace\. Pass --plan to see what",
        ),
        (
            ["run", "score", "--target", "test", "--plan"],
            r"expected a target test, found local, dev, staging, prod\.",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(argv: list[str], words: str) -> None:
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
    text = bundle.DEFINITION.read_text().replace("jobs/clean.py", "jobs/cleen.py")
    (tmp_path / "databricks.yml").write_text(text)
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.setattr("pipelines.bundle.__main__.DEFINITION", tmp_path / "databricks.yml")
    assert bundle.main(["check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "target prod, job score: task clean: jobs/cleen.py: expected a file, found none" in lines
    assert caplog.messages[-1] == f"InputError: databricks.yml: {len(lines)} faults, listed above."


def test_the_failed_job_s_exit_code_is_the_runner_s_and_its_state_lies_beside_the_lake(
    tmp_path: Path,
) -> None:
    lake = tmp_path / "lake"
    command = [
        sys.executable,
        "-m",
        "pipelines.bundle",
        "run",
        "reproduce",
        "--in-process",
        "--param",
        "run=0",
    ]
    done = subprocess.run(
        [*command, "--var", f"lake={lake}"], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "InputError: run 0: expected the id of a run in ops.models, found none." in done.stderr
    assert re.search(r"reproduce  failed +2 ", done.stdout)
    assert "Traceback" not in done.stderr
    assert (
        json.loads((lake / "landing" / "runs" / "reproduce.json").read_text())["reproduce"]["state"]
        == "failed"
    )


def test_an_exported_variable_counts_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNDLE_VAR_catalog", "mine")
    for given, expected in (({}, "mine"), ({"catalog": "yours"}, "yours")):
        assert bundle.resolved("dev", given)["variables"]["catalog"] == expected


def test_mlflow_projects_entry_points_are_the_jobs_and_start_with_what_the_runner_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert {"pipeline", *points} - {"main"} == set(CLOUD["local"])
    for point in points.values():
        values = {name: entry["default"] for name, entry in point["parameters"].items()}
        argv = point["command"].format(**values).split("python -m pipelines.bundle ")[1].split()
        assert bundle.main([*argv, "--plan"]) == 0
    assert "models:/review_classifier@champion" in capsys.readouterr().out
