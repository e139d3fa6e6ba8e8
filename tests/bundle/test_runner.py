"""The local runner: order, failures, --resume, the plan, both ways of running a script.

Starts a JVM by spark-submit, but no SparkSession.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.bundle import task_values
from pipelines.bundle.graph import Condition, Job, Need, Script, Task, TaskResult
from pipelines.bundle.runner import (
    Execute,
    exit_code,
    in_process,
    load_state,
    plan,
    run_job,
    run_local,
    save_state,
    submit_command,
    submitted,
    summary,
)
from pipelines.errors import GateRefusedError
from pipelines.program import environment

ROOT = Path(__file__).resolve().parents[2]

CURATE = Task("curate", Script("jobs/curate.py", ("--lake", "{{job.parameters.lake}}")))
TRAIN = Task(
    "train",
    Script("jobs/train.py", ("--gold", "{{tasks.curate.values.gold}}")),
    (Need("curate"),),
)
SCORE = Task("score", Script("jobs/score.py", ()), (Need("train"),))
JOB = Job("pipeline", {"lake": "here"}, (CURATE, TRAIN, SCORE))


class Machine:
    """Stands in for a process: keeps the calls, fails scripts of given names, sets a value."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.calls: list[list[str]] = []

    def __call__(self, _root: Path, script: Script, values_file: Path) -> int:
        self.calls.append(script.texts)
        with environment(**{task_values.FILE: str(values_file)}):
            task_values.set_value("gold", 7)
        return 6 if any(name in script.file for name in self.failing) else 0


def run(
    job: Job,
    execute: Execute,
    *,
    root: Path = ROOT,
    parameters: Mapping[str, str] | None = None,
    before: Mapping[str, TaskResult] | None = None,
) -> dict[str, TaskResult]:
    return run_job(root, job, parameters=parameters or {}, execute=execute, before=before or {})


def states(results: Mapping[str, TaskResult]) -> list[str]:
    return [result.state for result in results.values()]


def test_tasks_run_in_order_with_parameters_and_values_of_earlier_tasks() -> None:
    machine = Machine()
    results = run(JOB, machine, parameters={"lake": "there"})
    assert machine.calls == [
        ["jobs/curate.py", "--lake", "there"],
        ["jobs/train.py", "--gold", "7"],
        ["jobs/score.py"],
    ]
    assert (states(results), exit_code(JOB, results)) == (["succeeded"] * 3, 0)


def test_dependents_of_a_failed_task_do_not_run_and_the_summary_says_so() -> None:
    machine = Machine("train")
    results = run(JOB, machine)
    assert [call[0] for call in machine.calls] == ["jobs/curate.py", "jobs/train.py"]
    assert states(results) == ["succeeded", "failed", "upstream failed"]
    assert exit_code(JOB, results) == 6
    assert [line.split() for line in summary(JOB, results)] == [
        ["task", "state", "exit", "seconds"],
        ["curate", "succeeded", "0", "0"],
        ["train", "failed", "6", "0"],
        ["score", "upstream", "failed", "0", "0"],
        ["pipeline:", "failed"],
    ]


def test_resume_runs_tasks_that_failed_and_tasks_that_were_not_reached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    monkeypatch.chdir(tmp_path)
    definition: dict[str, Any] = {"variables": {"landing": "", "lake": "lake"}}
    file = tmp_path / "lake" / "landing" / "runs" / "pipeline.json"  # below the current directory
    assert load_state(file) == {}
    run_local(definition, JOB, {}, Machine("train"), resume=True)
    assert states(load_state(file)) == ["succeeded", "failed", "upstream failed"]
    machine = Machine()
    results = run_local(definition, JOB, {}, machine, resume=True)
    assert [call[0] for call in machine.calls] == ["jobs/train.py", "jobs/score.py"]
    assert machine.calls[0][-1] == "7"  # the value that the task set in the earlier run
    assert states(results) == ["succeeded"] * 3
    assert load_state(file) == results
    assert "curate: done in the run before" in caplog.messages
    landed = {"variables": {"landing": "landed", "lake": "lake"}}
    run_local(landed, JOB, {}, Machine(), resume=False)
    assert states(load_state(tmp_path / "landed" / "runs" / "pipeline.json")) == ["succeeded"] * 3


def test_the_state_is_saved_after_each_task(tmp_path: Path) -> None:
    file, n_saved = tmp_path / "runs" / "pipeline.json", []

    def keep(results: Mapping[str, TaskResult]) -> None:
        save_state(file, results)
        n_saved.append(len(load_state(file)))

    run_job(ROOT, JOB, parameters={}, execute=Machine("train"), before={}, on_done=keep)
    assert n_saved == [1, 2, 3]  # a killed runner loses none


def test_resume_with_other_arguments_runs_the_task_again() -> None:
    before = run(JOB, Machine("train"))
    machine = Machine()
    run(JOB, machine, parameters={"lake": "elsewhere"}, before=before)
    assert machine.calls[0] == ["jobs/curate.py", "--lake", "elsewhere"]


def test_resume_runs_the_dependents_of_a_task_that_runs_again() -> None:
    """clean has the same arguments as before, but not the same bronze."""
    ingest = Task("ingest", Script("jobs/ingest.py", ("{{job.parameters.path}}",)))
    clean = Task("clean", Script("jobs/clean.py", ()), (Need("ingest"),))
    score = Task("score", Script("jobs/score.py", ()), (Need("clean"),))
    job = Job("score", {"path": ""}, (ingest, clean, score))
    before = run(job, Machine("score"), parameters={"path": "a.csv"})
    machine = Machine()
    run(job, machine, parameters={"path": "b.csv"}, before=before)
    assert [call[0] for call in machine.calls] == [
        "jobs/ingest.py",
        "jobs/clean.py",
        "jobs/score.py",
    ]


def test_a_condition_chooses_the_branch_that_runs() -> None:
    is_dry = Task("is_dry", Condition("EQUAL_TO", "{{job.parameters.dry}}", "true"))
    say = Task("say", Script("jobs/say.py", ()), (Need("is_dry", "true"),))
    act = Task("act", Script("jobs/act.py", ()), (Need("is_dry", "false"),))
    job = Job("j", {"dry": "true"}, (is_dry, say, act))
    machine = Machine()
    results = run(job, machine)
    assert machine.calls == [["jobs/say.py"]]
    assert [(result.state, result.outcome) for result in results.values()] == [
        ("succeeded", "true"),
        ("succeeded", None),
        ("excluded", None),
    ]
    assert results["is_dry"].texts == ["true", "EQUAL_TO", "true"]
    assert "is_dry  succeeded (true)" in "\n".join(summary(job, results))
    assert exit_code(job, run(job, Machine("say"))) == 6


def test_a_value_that_no_task_has_set_fails_the_task_and_its_dependents(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    train = Task("train", TRAIN.work)
    is_more = Task("is_more", Condition("EQUAL_TO", "{{tasks.x.values.n}}", "1"))
    after = Task("after", Script("jobs/after.py", ()), (Need("train"), Need("is_more")))
    other = Task("other", Script("jobs/other.py", ()))
    job = Job("j", {}, (train, is_more, after, other))
    machine = Machine()
    results = run(job, machine, before={"train": TaskResult("succeeded")})
    assert [(result.state, result.exit_code) for result in results.values()] == [
        ("failed", 2),
        ("failed", 2),
        ("upstream failed", 0),
        ("succeeded", 0),
    ]
    assert machine.calls == [["jobs/other.py"]]
    assert exit_code(job, results) == 2
    words = "InputError: task train: {{tasks.curate.values.gold}} is no parameter of the job and no"
    assert words in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"x": 1}}'])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert load_state(tmp_path / "state.json") == {}


def test_the_plan_shows_order_branches_and_names_that_only_a_run_will_know() -> None:
    script = Script("jobs/b.py", ("--x", "{{job.parameters.x}}"))
    job = Job(
        "j",
        {"x": "1 2"},
        (
            Task("a", Condition("EQUAL_TO", "{{job.parameters.x}}", "1")),
            Task("b", script, (Need("a", "true"),)),
            Task("c", Script("jobs/c.py", ("{{tasks.b.values.y}}",)), (Need("b"), Need("a"))),
        ),
    )
    assert plan(job, {}) == [
        "1 a",
        "    1 2 EQUAL_TO 1",
        "2 b, after a = true",
        "    jobs/b.py --x '1 2'",
        "3 c, after b, a",
        "    jobs/c.py '{{tasks.b.values.y}}'",
    ]


def test_spark_submit_gets_absolute_names_so_that_it_works_in_every_directory() -> None:
    command = submit_command(ROOT, Script("jobs/clean.py", ("--lake", "lake")))
    log4j = (ROOT / "pipelines" / "lake" / "log4j2.properties").as_uri()
    assert command[1:] == [
        "--properties-file",
        str(ROOT / "spark-defaults.conf"),
        "--conf",
        f"spark.driver.extraJavaOptions=-Dlog4j2.configurationFile={log4j} "
        "-Duser.language=en -Duser.country=US",
        str(ROOT / "jobs" / "clean.py"),
        "--lake",
        "lake",
    ]


JOB_FILE = """
import os
import sys
from pipelines import program
from pipelines.bundle import task_values
from pipelines.errors import GateRefusedError

def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    task_values.set_value("gold", len(argv))
    task_values.set_value("directory", os.getcwd())
    if argv == ["refuse"]:
        raise GateRefusedError("not good enough")
    if argv == ["end"]:
        sys.exit(2)

if __name__ == "__main__":
    program.run(main)
"""


@pytest.mark.parametrize("execute", [in_process, submitted])
def test_a_script_runs_here_or_by_spark_submit_with_its_exit_code_and_its_values(
    tmp_path: Path,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "job.py").write_text(JOB_FILE)
    (tmp_path / "spark-defaults.conf").write_text("spark.ui.enabled false\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # As notebook users have it.
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON", "jupyter")
    monkeypatch.setenv("PYSPARK_PYTHON", "python3")
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--no-such-option")
    monkeypatch.setenv("SPARK_HOME", "/opt/spark-3.5")
    monkeypatch.setenv("MASTER", "yarn")

    def result_with(argument: str) -> TaskResult:
        job = Job("j", {}, (Task("t", Script("job.py", (argument,))),))
        return run(job, execute, root=tmp_path)["t"]

    done = result_with("a b")
    here = str(tmp_path / "elsewhere")
    assert (done.exit_code, done.values) == (0, {"gold": 1, "directory": here})
    assert result_with("refuse").exit_code == GateRefusedError.exit_code
    assert result_with("end").exit_code == 2
    assert task_values.FILE not in os.environ
    assert "incubator" not in capfd.readouterr().err
