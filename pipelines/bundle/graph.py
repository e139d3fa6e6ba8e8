"""A job's tasks as the runner sees them: what each does, what it waits for, in which order, with which words."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pipelines.errors import InputError

DYNAMIC = re.compile(r"\{\{\s*([\w.\-]+)\s*\}\}")
SUCCEEDED, FAILED, UPSTREAM_FAILED, EXCLUDED = "succeeded", "failed", "upstream failed", "excluded"
RUN_IF = (
    "ALL_SUCCESS",
    "AT_LEAST_ONE_SUCCESS",
    "NONE_FAILED",
    "ALL_DONE",
    "AT_LEAST_ONE_FAILED",
    "ALL_FAILED",
)
NUMERIC = {
    "GREATER_THAN": lambda left, right: left > right,
    "GREATER_THAN_OR_EQUAL": lambda left, right: left >= right,
    "LESS_THAN": lambda left, right: left < right,
    "LESS_THAN_OR_EQUAL": lambda left, right: left <= right,
}
OPERATORS = ("EQUAL_TO", "NOT_EQUAL", *NUMERIC)


@dataclass(frozen=True)
class Script:
    """Run a Python file with these arguments."""

    file: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """Compare two texts; the outcome, true or false, decides which tasks behind it run."""

    op: str
    left: str
    right: str


@dataclass(frozen=True)
class Loop:
    """Run a script once for each entry of a JSON array."""

    inputs: str
    script: Script


@dataclass(frozen=True)
class Task:
    """A node of the graph. `needs` are tasks by key, with the outcome wanted of a condition."""

    key: str
    work: Script | Condition | Loop
    needs: tuple[tuple[str, str | None], ...] = ()
    run_if: str = "ALL_SUCCESS"


@dataclass(frozen=True)
class Job:
    """A job: its parameters with their defaults, its tasks in an order in which they can run."""

    name: str
    parameters: Mapping[str, str]
    tasks: tuple[Task, ...]


def job_of(definition: Mapping[str, Any], name: str) -> Job:
    """One job of a resolved definition. InputError where there is none, or its tasks wait for each other."""
    jobs = definition.get("resources", {}).get("jobs", {})
    if name not in jobs:
        raise InputError(
            f"databricks.yml: expected a job {name}, found {', '.join(jobs) or 'none'}. Pass one of these."
        )
    parameters = {
        entry["name"]: str(entry["default"]) for entry in jobs[name].get("parameters", [])
    }
    return Job(
        name, parameters, ordered(name, [_task(name, entry) for entry in jobs[name]["tasks"]])
    )


def ordered(job: str, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The tasks, each behind those that it waits for; as given where that is left open."""
    by_key = {task.key: task for task in tasks}
    if len(by_key) < len(tasks):
        keys = [task.key for task in tasks]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"job {job}: expected a task_key for each task, found {twice} twice.")
    for task in tasks:
        for key, _ in task.needs:
            if key not in by_key:
                raise InputError(
                    f"job {job}, task {task.key}: expected the task {key}, which it waits for, found none."
                )
    graph = {task.key: [key for key, _ in task.needs] for task in tasks}
    try:
        return tuple(by_key[key] for key in TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise InputError(
            f"job {job}: expected tasks without a cycle, found {' -> '.join(error.args[1])}."
        ) from error


def state_before(task: Task, states: Mapping[str, str], outcomes: Mapping[str, str]) -> str | None:
    """None where the task is to run; else the state that what it waits for leaves it in.

    A condition that came out otherwise excludes; what is excluded is treated as successful, unless all is excluded.
    Source: Databricks, "Configure task dependencies"; it leaves open whether NONE_FAILED wants one that was run.
    """
    if not task.needs:
        return None
    found = [
        EXCLUDED
        if states[key] == SUCCEEDED and wanted not in (None, outcomes.get(key))
        else states[key]
        for key, wanted in task.needs
    ]
    if all(state == EXCLUDED for state in found):
        return EXCLUDED
    n_failed = sum(state in (FAILED, UPSTREAM_FAILED) for state in found)
    is_met = {
        "ALL_SUCCESS": n_failed == 0,
        "AT_LEAST_ONE_SUCCESS": n_failed < len(found),
        "NONE_FAILED": n_failed == 0 and SUCCEEDED in found,
        "ALL_DONE": True,
        "AT_LEAST_ONE_FAILED": n_failed > 0,
        "ALL_FAILED": n_failed == len(found),
    }[task.run_if]
    if is_met:
        return None
    return EXCLUDED if task.run_if in ("AT_LEAST_ONE_FAILED", "ALL_FAILED") else UPSTREAM_FAILED


def job_state(job: Job, states: Mapping[str, str]) -> str:
    """A job failed if a task behind which none waits did; what failed before may have been mended."""
    waited_for = {key for task in job.tasks for key, _ in task.needs}
    leaves = [states[task.key] for task in job.tasks if task.key not in waited_for]
    return FAILED if any(state in (FAILED, UPSTREAM_FAILED) for state in leaves) else SUCCEEDED


def filled(text: str, words: Mapping[str, Any]) -> str:
    """A text with {{job.parameters.x}}, {{tasks.t.values.v}} and {{input}} replaced by what they stand for."""

    def word(match: re.Match[str]) -> str:
        if match[1] not in words:
            raise InputError(
                f"{match[0]}: expected a job parameter or a value that an earlier task set, found none."
            )
        return as_text(words[match[1]])

    return DYNAMIC.sub(word, text)


def as_text(value: Any) -> str:
    """A task value as an argument: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def compared(condition: Condition, words: Mapping[str, Any]) -> str:
    """true or false: texts for equality, numbers for order."""
    left, right = filled(condition.left, words), filled(condition.right, words)
    if condition.op in NUMERIC:
        try:
            return str(NUMERIC[condition.op](float(left), float(right))).lower()
        except ValueError as error:
            raise InputError(
                f"{condition.op}: expected two numbers, found {left!r} and {right!r}."
            ) from error
    return str((left == right) == (condition.op == "EQUAL_TO")).lower()


def inputs_of(loop: Loop, words: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The words of each turn of a loop: {{input}}, or {{input.x}} for each field of an object."""
    text = filled(loop.inputs, words)
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"for_each_task: expected inputs as a JSON array, found {text!r}."
        ) from error
    if not isinstance(entries, list):
        raise InputError(f"for_each_task: expected inputs as a JSON array, found {text!r}.")
    fields = [
        {f"input.{k}": v for k, v in one.items()} if isinstance(one, dict) else {}
        for one in entries
    ]
    return [{"input": one, **more} for one, more in zip(entries, fields, strict=True)]


def _task(job: str, entry: Mapping[str, Any]) -> Task:
    needs = tuple((need["task_key"], need.get("outcome")) for need in entry.get("depends_on", []))
    run_if = entry.get("run_if", RUN_IF[0])
    where = f"job {job}, task {entry['task_key']}"
    _require_one_of(where, "run_if", run_if, RUN_IF)
    for _, outcome in needs:
        _require_one_of(where, "outcome", outcome, (None, "true", "false"))
    return Task(entry["task_key"], _work(job, entry), needs, run_if)


def _work(job: str, entry: Mapping[str, Any]) -> Script | Condition | Loop:
    where = f"job {job}, task {entry['task_key']}"
    if "spark_python_task" in entry:
        script = entry["spark_python_task"]
        return Script(
            script["python_file"].removeprefix("./"), tuple(map(str, script.get("parameters", [])))
        )
    if "condition_task" in entry:
        condition = entry["condition_task"]
        _require_one_of(where, "op", condition.get("op"), OPERATORS)
        return Condition(condition["op"], str(condition["left"]), str(condition["right"]))
    if "for_each_task" in entry:
        inner = _work(job, entry["for_each_task"]["task"])
        if isinstance(inner, Script):
            return Loop(str(entry["for_each_task"]["inputs"]), inner)
    raise InputError(
        f"{where}: expected a spark_python_task, a condition_task or a loop over one, found another kind."
    )


def _require_one_of(where: str, key: str, found: object, expected: Sequence[object]) -> None:
    if found not in expected:
        listing = ", ".join(str(one) for one in expected if one is not None)
        raise InputError(f"{where}: expected {key} as one of {listing}, as text, found {found!r}.")
