import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.bundle import task_values
from pipelines.bundle.graph import Condition, Job, Loop, Script, Task
from pipelines.bundle.runner import (
    TaskResult,
    exit_code,
    in_process,
    load_state,
    plan,
    run_job,
    save_state,
    submitted,
    summary,
)
from pipelines.errors import GateRefusedError

ROOT = Path(__file__).resolve().parents[2]

CURATE = Task("curate", Script("jobs/curate.py", ("--lake", "{{job.parameters.lake}}")))
TRAIN = Task(
    "train",
    Script("jobs/train.py", ("--gold", "{{tasks.curate.values.gold}}")),
    (("curate", None),),
)
SCORE = Task("score", Script("jobs/score.py", ()), (("train", None),))
JOB = Job("pipeline", {"lake": "here"}, (CURATE, TRAIN, SCORE))


class Machine:
    """Stands in for a process: notes what was run, fails where it is told to, tells a value."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[list[str]] = []

    def __call__(self, _root: Path, script: Script) -> int:
        self.ran.append([script.file, *script.argv])
        task_values.set_value("gold", 7)
        return 6 if any(name in script.file for name in self.failing) else 0


def states(done: dict[str, TaskResult]) -> list[str]:
    return [one.state for one in done.values()]


def test_tasks_run_in_order_with_parameters_and_what_earlier_ones_told() -> None:
    machine = Machine()
    done = run_job(ROOT, JOB, {"lake": "there"}, machine, {})
    assert machine.ran == [
        ["jobs/curate.py", "--lake", "there"],
        ["jobs/train.py", "--gold", "7"],
        ["jobs/score.py"],
    ]
    assert (states(done), exit_code(JOB, done)) == (["succeeded"] * 3, 0)


def test_a_failure_stops_what_depends_on_it_and_the_summary_says_so() -> None:
    machine = Machine("train")
    done = run_job(ROOT, JOB, {}, machine, {})
    assert [call[0] for call in machine.ran] == ["jobs/curate.py", "jobs/train.py"]
    assert (states(done), exit_code(JOB, done)) == (["succeeded", "failed", "upstream failed"], 6)
    assert [line.split() for line in summary(JOB, done)] == [
        ["task", "state", "exit", "seconds"],
        ["curate", "succeeded", "0", "0"],
        ["train", "failed", "6", "0"],
        ["score", "upstream", "failed", "0", "0"],
        ["pipeline:", "failed"],
    ]


def test_resume_runs_what_failed_and_what_was_not_reached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    file, saved = tmp_path / "runs" / "pipeline.json", []
    assert load_state(file) == {}

    def keep(done: object) -> None:
        save_state(file, done)  # type: ignore[arg-type]
        saved.append(len(load_state(file)))

    run_job(ROOT, JOB, {}, Machine("train"), load_state(file), keep)
    assert saved == [1, 2, 3]  # after each task: a killed runner loses none
    machine = Machine()
    done = run_job(ROOT, JOB, {}, machine, load_state(file), keep)
    assert [call[0] for call in machine.ran] == ["jobs/train.py", "jobs/score.py"]
    assert machine.ran[0][-1] == "7"  # what the earlier run's task told still holds
    assert states(done) == ["succeeded"] * 3
    assert "curate: done in the run before" in caplog.messages


def test_resume_with_other_arguments_runs_the_task_again() -> None:
    before = run_job(ROOT, JOB, {}, Machine("train"), {})
    machine = Machine()
    run_job(ROOT, JOB, {"lake": "elsewhere"}, machine, before)
    assert machine.ran[0] == ["jobs/curate.py", "--lake", "elsewhere"]


def test_a_condition_chooses_the_branch_and_a_loop_runs_each_turn_until_one_fails() -> None:
    job = Job(
        "j",
        {"dry": "true"},
        (
            Task("is_dry", Condition("EQUAL_TO", "{{job.parameters.dry}}", "true")),
            Task(
                "say",
                Loop('["a", "b", "c"]', Script("jobs/say.py", ("{{input}}",))),
                (("is_dry", "true"),),
            ),
            Task("act", Script("jobs/act.py", ()), (("is_dry", "false"),)),
        ),
    )
    machine = Machine()
    done = run_job(ROOT, job, {}, machine, {})
    assert machine.ran == [["jobs/say.py", letter] for letter in "abc"]
    assert [(one.state, one.outcome) for one in done.values()] == [
        ("succeeded", "true"), ("succeeded", None), ("excluded", None),
    ]  # fmt: skip
    assert "is_dry  succeeded (true)" in "\n".join(summary(job, done))
    failing = Machine("say")
    assert exit_code(job, run_job(ROOT, job, {}, failing, {})) == 6
    assert len(failing.ran) == 1


def test_resume_runs_again_what_waits_for_something_that_runs_again() -> None:
    """clean has the same arguments as before, but not the same bronze."""
    ingest = Task("ingest", Script("jobs/ingest.py", ("{{job.parameters.path}}",)))
    clean = Task("clean", Script("jobs/clean.py", ()), (("ingest", None),))
    job = Job(
        "score",
        {"path": ""},
        (ingest, clean, Task("score", Script("jobs/score.py", ()), (("clean", None),))),
    )
    before = run_job(ROOT, job, {"path": "a.csv"}, Machine("score"), {})
    machine = Machine()
    run_job(ROOT, job, {"path": "b.csv"}, machine, before)
    assert [call[0] for call in machine.ran] == ["jobs/ingest.py", "jobs/clean.py", "jobs/score.py"]


def test_a_value_that_no_task_told_fails_the_task_and_what_clears_up_behind_it_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    clear = Task(
        "clear", Script("jobs/clear.py", ()), (("train", None), ("is_more", None)), "ALL_DONE"
    )
    more = Task("is_more", Condition("LESS_THAN", "a", "1"))
    job = Job("j", {}, (Task("train", TRAIN.work), more, clear))
    machine = Machine()
    done = run_job(ROOT, job, {}, machine, {})
    assert [(one.state, one.exit_code) for one in done.values()] == [
        ("failed", 2),
        ("failed", 2),
        ("succeeded", 0),
    ]
    assert machine.ran == [["jobs/clear.py"]]
    assert (
        "InputError: task train: {{tasks.curate.values.gold}}: expected a job parameter or a value"
        in caplog.text
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"x": 1}}'])
def test_a_state_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert load_state(tmp_path / "state.json") == {}


def test_the_plan_shows_order_branches_and_what_only_a_run_will_know() -> None:
    job = Job(
        "j",
        {"x": "1 2"},
        (
            Task("a", Condition("EQUAL_TO", "{{job.parameters.x}}", "1")),
            Task("b", Script("jobs/b.py", ("--x", "{{job.parameters.x}}")), (("a", "true"),)),
            Task(
                "c",
                Loop("[1]", Script("jobs/c.py", ("{{tasks.b.values.y}}",))),
                (("b", None),),
                "ALL_DONE",
            ),
        ),
    )
    assert plan(job, {}) == [
        "1 a",
        "    1 2 EQUAL_TO 1",
        "2 b, after a = true",
        "    jobs/b.py --x '1 2'",
        "3 c, after b if ALL_DONE",
        "    jobs/c.py '{{tasks.b.values.y}}'   for each of [1]",
    ]


JOB_FILE = """
import sys
from pipelines import cli
from pipelines.bundle import task_values
from pipelines.errors import GateRefusedError

def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    task_values.set_value("gold", len(argv))
    if argv == ["refuse"]:
        raise GateRefusedError("not good enough")
    if argv == ["end"]:
        sys.exit(2)

if __name__ == "__main__":
    program.run(main)
"""


@pytest.mark.parametrize("execute", [in_process, submitted])
def test_a_script_runs_here_or_by_spark_submit_with_its_exit_code_and_its_values(
    tmp_path: Path, execute: Callable[[Path, Script], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.py").write_text(JOB_FILE)
    (tmp_path / "spark-defaults.conf").write_text("spark.ui.enabled false\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    good, bad = (
        Job("j", {}, (Task("t", Script("job.py", (argument,))),)) for argument in ("a b", "refuse")
    )
    done = run_job(tmp_path, good, {}, execute, {})
    assert (done["t"].exit_code, done["t"].values) == (0, {"gold": 1})
    assert run_job(tmp_path, bad, {}, execute, {})["t"].exit_code == GateRefusedError.exit_code
    assert (
        run_job(tmp_path, Job("j", {}, (Task("t", Script("job.py", ("end",))),)), {}, execute, {})[
            "t"
        ].exit_code
        == 2
    )
    assert task_values.FILE not in os.environ
