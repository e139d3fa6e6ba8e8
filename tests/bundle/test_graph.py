from typing import Any

import pytest

from pipelines.bundle.graph import (
    EXCLUDED,
    FAILED,
    SUCCEEDED,
    UPSTREAM_FAILED,
    Condition,
    Job,
    Loop,
    Script,
    Task,
    compared,
    filled,
    inputs_of,
    job_of,
    job_state,
    ordered,
    state_before,
)
from pipelines.errors import InputError

NOTHING = Script("jobs/x.py", ())


def task(key: str, *needs: str, run_if: str = "ALL_SUCCESS") -> Task:
    return Task(key, NOTHING, tuple((need, None) for need in needs), run_if)


@pytest.mark.parametrize(
    ("run_if", "found", "expected"),
    [
        ("ALL_SUCCESS", "SS", None),
        ("ALL_SUCCESS", "SX", None),  # what is excluded counts as a success
        ("ALL_SUCCESS", "SF", UPSTREAM_FAILED),
        ("ALL_SUCCESS", "SU", UPSTREAM_FAILED),
        ("ALL_SUCCESS", "XX", EXCLUDED),
        ("AT_LEAST_ONE_SUCCESS", "SF", None),
        ("AT_LEAST_ONE_SUCCESS", "FX", None),
        ("AT_LEAST_ONE_SUCCESS", "FU", UPSTREAM_FAILED),
        ("NONE_FAILED", "SX", None),
        ("NONE_FAILED", "SF", UPSTREAM_FAILED),
        ("ALL_DONE", "FU", None),
        ("ALL_DONE", "XX", EXCLUDED),
        ("AT_LEAST_ONE_FAILED", "SF", None),
        ("AT_LEAST_ONE_FAILED", "SS", EXCLUDED),
        ("ALL_FAILED", "FU", None),
        ("ALL_FAILED", "SF", EXCLUDED),
    ],
)
def test_a_task_runs_or_not_by_what_became_of_those_before_it(
    run_if: str, found: str, expected: str | None
) -> None:
    words = {"S": SUCCEEDED, "F": FAILED, "U": UPSTREAM_FAILED, "X": EXCLUDED}
    states = {str(number): words[letter] for number, letter in enumerate(found)}
    assert state_before(task("t", *states, run_if=run_if), states, {}) == expected


def test_a_task_that_waits_for_none_runs() -> None:
    assert state_before(task("t"), {}, {}) is None


@pytest.mark.parametrize(
    ("state", "outcomes", "expected"),
    [
        (SUCCEEDED, {"is_new": "true"}, None),
        (SUCCEEDED, {"is_new": "false"}, EXCLUDED),
        (UPSTREAM_FAILED, {}, UPSTREAM_FAILED),  # it was not asked: that is no answer
        (FAILED, {}, UPSTREAM_FAILED),
        (EXCLUDED, {}, EXCLUDED),
    ],
)
def test_only_the_branch_of_a_conditions_outcome_runs(
    state: str, outcomes: dict[str, str], expected: str | None
) -> None:
    behind = Task("t", NOTHING, (("is_new", "true"),))
    assert state_before(behind, {"is_new": state}, outcomes) == expected


def test_tasks_stand_behind_those_that_they_wait_for() -> None:
    assert [one.key for one in ordered("j", [task("c", "a", "b"), task("b", "a"), task("a")])] == [
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (
            [task("a", "b"), task("b", "a")],
            r"job j: expected tasks without a cycle, found [ab] -> [ab] -> [ab]\.",
        ),
        ([task("a", "b")], r"job j, task a: expected the task b, which it waits for, found none\."),
        ([task("a"), task("a")], r"job j: expected a task_key for each task, found a twice\."),
    ],
)
def test_a_graph_that_cannot_run_is_refused(tasks: list[Task], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ordered("j", tasks)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"a": SUCCEEDED, "b": SUCCEEDED}, SUCCEEDED),
        ({"a": FAILED, "b": SUCCEEDED}, SUCCEEDED),  # b mended it: b alone stands at the end
        ({"a": SUCCEEDED, "b": FAILED}, FAILED),
        ({"a": FAILED, "b": UPSTREAM_FAILED}, FAILED),
        ({"a": SUCCEEDED, "b": EXCLUDED}, SUCCEEDED),
    ],
)
def test_a_job_is_judged_by_the_tasks_at_its_end(states: dict[str, str], expected: str) -> None:
    assert job_state(Job("j", {}, (task("a"), task("b", "a"))), states) == expected


def test_words_are_filled_in_as_text_or_json() -> None:
    words = {"job.parameters.run": "r1", "tasks.curate.values.gold_version": 3, "input": {"a": 1}}
    text = "{{job.parameters.run}} {{ tasks.curate.values.gold_version }} {{input}}"
    assert filled(text, words) == 'r1 3 {"a": 1}'
    with pytest.raises(
        InputError,
        match=r"^\{\{job\.parameters\.x\}\}: expected a job parameter or a value that an ea",
    ):
        filled("{{job.parameters.x}}", words)


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        ("EQUAL_TO", "12", "12", "true"),
        ("EQUAL_TO", "12.0", "12", "false"),  # texts
        ("NOT_EQUAL", "a", "b", "true"),
        ("GREATER_THAN_OR_EQUAL", "12.0", "12", "true"),  # numbers
        ("GREATER_THAN", "10.0", "12", "false"),
        ("LESS_THAN", "9", "10", "true"),
        ("LESS_THAN_OR_EQUAL", "10", "9", "false"),
    ],
)
def test_a_condition_compares_texts_for_equality_and_numbers_for_order(
    op: str, left: str, right: str, expected: str
) -> None:
    assert compared(Condition(op, "{{input}}", right), {"input": left}) == expected


def test_an_order_of_texts_is_refused() -> None:
    with pytest.raises(InputError, match=r"^LESS_THAN: expected two numbers, found 'a' and '1'\.$"):
        compared(Condition("LESS_THAN", "a", "1"), {})


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ('["a", 2]', [{"input": "a"}, {"input": 2}]),
        ('[{"x": 1}]', [{"input": {"x": 1}, "input.x": 1}]),
        ("{{job.parameters.list}}", [{"input": "b"}]),
        ("[]", []),
    ],
)
def test_a_loop_has_a_turn_for_each_entry(inputs: str, expected: list[dict[str, Any]]) -> None:
    assert inputs_of(Loop(inputs, NOTHING), {"job.parameters.list": '["b"]'}) == expected


@pytest.mark.parametrize("inputs", ["a, b", '{"a": 1}'])
def test_a_loop_over_no_array_is_refused(inputs: str) -> None:
    with pytest.raises(InputError, match="for_each_task: expected inputs as a JSON array, found '"):
        inputs_of(Loop(inputs, NOTHING), {})


def test_a_job_is_read_from_its_definition() -> None:
    turn = {
        "task_key": "t",
        "spark_python_task": {"python_file": "./jobs/b.py", "parameters": ["{{input}}"]},
    }
    loop = {"inputs": "[1]", "task": turn}
    waits = [{"task_key": "a", "outcome": "true"}]
    entry = {
        "parameters": [{"name": "run", "default": 7}],
        "tasks": [
            {"task_key": "b", "depends_on": waits, "run_if": "ALL_DONE", "for_each_task": loop},
            {"task_key": "a", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}},
        ],
    }
    assert job_of({"resources": {"jobs": {"j": entry}}}, "j") == Job(
        "j",
        {"run": "7"},
        (
            Task("a", Condition("EQUAL_TO", "1", "1")),
            Task(
                "b", Loop("[1]", Script("jobs/b.py", ("{{input}}",))), (("a", "true"),), "ALL_DONE"
            ),
        ),
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"task_key": "a", "notebook_task": {}},
            "job j, task a: expected a spark_python_task, a condition_task or a loop",
        ),
        (
            {"task_key": "a", "run_if": "NEVER", "condition_task": {}},
            "job j, task a: expected run_if as one of ALL_SUCC",
        ),
        (
            {"task_key": "a", "condition_task": {"op": "EQUALS"}},
            "expected op as one of EQUAL_TO, .*, found 'EQUALS'",
        ),
        (
            {
                "task_key": "a",
                "depends_on": [{"task_key": "b", "outcome": True}],
                "condition_task": {},
            },
            "job j, task a: expected outcome as one of true, false, as text, found True",
        ),
    ],
)
def test_a_task_that_would_mean_something_else_is_refused(
    entry: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        job_of({"resources": {"jobs": {"j": {"tasks": [entry]}}}}, "j")
    with pytest.raises(
        InputError, match=r"databricks\.yml: expected a job k, found j\. Pass one of these\."
    ):
        job_of({"resources": {"jobs": {"j": {}}}}, "k")
