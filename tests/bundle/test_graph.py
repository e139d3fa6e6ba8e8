"""A job's graph: order, dependencies, conditions, arguments, and refusals. Needs no Spark."""

from typing import Any

import pytest

from pipelines.bundle.graph import (
    EXCLUDED,
    FAILED,
    SUCCEEDED,
    UPSTREAM_FAILED,
    Condition,
    Job,
    Need,
    Script,
    Task,
    TaskResult,
    filled,
    filled_where_known,
    filled_work,
    job_of,
    job_state,
    ordered,
    state_before,
)
from pipelines.errors import InputError

NOTHING = Script("jobs/x.py", ())


def task(key: str, *needs: str) -> Task:
    return Task(key, NOTHING, tuple(Need(need) for need in needs))


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("", None),
        ("S", None),
        ("SS", None),
        ("SX", None),  # excluded counts as successful
        ("SF", UPSTREAM_FAILED),
        ("SU", UPSTREAM_FAILED),
        ("XF", UPSTREAM_FAILED),
        ("XX", EXCLUDED),
    ],
)
def test_a_task_runs_or_not_by_the_states_of_its_dependencies(
    before: str, expected: str | None
) -> None:
    states = {"S": SUCCEEDED, "F": FAILED, "U": UPSTREAM_FAILED, "X": EXCLUDED}
    results = {str(number): TaskResult(states[letter]) for number, letter in enumerate(before)}
    assert state_before(task("t", *results), results) == expected


@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        (SUCCEEDED, "true", None),
        (SUCCEEDED, "false", EXCLUDED),
        (UPSTREAM_FAILED, None, UPSTREAM_FAILED),  # not compared: that is no outcome
        (FAILED, None, UPSTREAM_FAILED),
        (EXCLUDED, None, EXCLUDED),
    ],
)
def test_only_the_branch_of_a_conditions_outcome_runs(
    state: str, outcome: str | None, expected: str | None
) -> None:
    dependent = Task("t", NOTHING, (Need("is_new", "true"),))
    assert state_before(dependent, {"is_new": TaskResult(state, outcome=outcome)}) == expected


def test_tasks_are_ordered_behind_their_dependencies() -> None:
    tasks = ordered("j", [task("c", "a", "b"), task("b", "a"), task("a")])
    assert [one.key for one in tasks] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (
            [task("a", "b"), task("b", "a")],
            r"job j: tasks depend on each other: [ab] -> [ab] -> [ab]\. Remove one depends_on\.",
        ),
        (
            [task("a", "b")],
            r"job j, task a: depends on the task b, which does not exist\. Correct depends_on\.",
        ),
        ([task("a"), task("a")], r"job j: task_key a is used twice\. Rename one of the tasks\."),
    ],
)
def test_a_graph_that_cannot_run_is_refused(tasks: list[Task], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ordered("j", tasks)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((SUCCEEDED, SUCCEEDED), SUCCEEDED),
        ((SUCCEEDED, FAILED), FAILED),
        ((FAILED, UPSTREAM_FAILED), FAILED),
        ((SUCCEEDED, EXCLUDED), SUCCEEDED),
    ],
)
def test_a_job_failed_if_one_of_its_tasks_failed(states: tuple[str, str], expected: str) -> None:
    results = {key: TaskResult(state) for key, state in zip("ab", states, strict=True)}
    assert job_state(results) == expected


def test_values_are_filled_in_as_text_or_json() -> None:
    values = {"job.parameters.run": "r1", "tasks.curate.values.gold_version": 3, "x": {"a": 1}}
    text = "{{job.parameters.run}} {{ tasks.curate.values.gold_version }} {{x}}"
    assert filled(text, values) == 'r1 3 {"a": 1}'
    assert filled_where_known("{{x}} {{y}}", values) == '{"a": 1} {{y}}'
    with pytest.raises(
        InputError,
        match=r"^\{\{job\.parameters\.x\}\} is no parameter of the job and no value that an ear",
    ):
        filled("{{job.parameters.x}}", values)


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("EQUAL_TO", "12", "12", "true"),
        ("EQUAL_TO", "12.0", "12", "false"),  # texts are compared, not numbers
        ("NOT_EQUAL", "a", "b", "true"),
        ("NOT_EQUAL", "a", "a", "false"),
    ],
)
def test_a_condition_compares_two_texts(op: str, left: str, right: str, expected: str) -> None:
    work = filled_work(Condition(op, "{{x}}", right), lambda text: filled(text, {"x": left}))
    assert work == Condition(op, left, right)
    assert isinstance(work, Condition)
    assert work.outcome == expected


def test_a_job_is_read_from_its_definition() -> None:
    script = {"python_file": "./jobs/b.py", "parameters": ["{{job.parameters.run}}", 1]}
    condition = {"op": "EQUAL_TO", "left": "1", "right": "1"}
    needs = [{"task_key": "a", "outcome": "true"}]
    entry = {
        "parameters": [{"name": "run", "default": 7}],
        "tasks": [
            {"task_key": "b", "depends_on": needs, "spark_python_task": script},
            {"task_key": "a", "run_if": "ALL_SUCCESS", "condition_task": condition},
        ],
    }
    assert job_of({"resources": {"jobs": {"j": entry}}}, "j") == Job(
        "j",
        {"run": "7"},
        (
            Task("a", Condition("EQUAL_TO", "1", "1")),
            Task("b", Script("jobs/b.py", ("{{job.parameters.run}}", "1")), (Need("a", "true"),)),
        ),
    )


SCRIPT = {"python_file": "jobs/b.py"}
EQUAL = {"op": "EQUAL_TO", "left": "1", "right": "1"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"notebook_task": {}},
            r"^job j, task a: notebook_task is not supported\. Use spark_python_task or condition_",
        ),
        (
            {"for_each_task": {"inputs": "[1]", "task": {"spark_python_task": SCRIPT}}},
            r"^job j, task a: for_each_task is not supported\. Use spark_python_task or condition_",
        ),
        ({}, r"^job j, task a: a task of no kind is not supported\. Use spark_python_task or con"),
        (
            {"run_if": "ALL_DONE", "spark_python_task": SCRIPT},
            r"^job j, task a: run_if must be ALL_SUCCESS, as text, got 'ALL_DONE': nothing else i",
        ),
        (
            {"condition_task": {**EQUAL, "op": "LESS_THAN"}},
            r"^job j, task a: op must be EQUAL_TO or NOT_EQUAL, as text, got 'LESS_THAN': nothing",
        ),
        (
            {"depends_on": [{"task_key": "b", "outcome": True}], "condition_task": EQUAL},
            r"^job j, task a: outcome must be true or false, as text, got True: nothing else is su",
        ),
    ],
)
def test_a_task_of_a_kind_that_is_not_supported_is_refused(
    entry: dict[str, Any], words: str
) -> None:
    tasks = [{"task_key": "a", **entry}]
    with pytest.raises(InputError, match=words):
        job_of({"resources": {"jobs": {"j": {"tasks": tasks}}}}, "j")


def test_a_job_that_does_not_exist_is_refused_with_the_jobs_that_do() -> None:
    words = r"^databricks\.yml: no job k; it has j\. Pass one of them\.$"
    with pytest.raises(InputError, match=words):
        job_of({"resources": {"jobs": {"j": {}}}}, "k")
