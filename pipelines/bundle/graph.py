"""A job as a graph of tasks: what each task runs or compares, its dependencies, its arguments.

Supports only the kinds of task in databricks.yml: Python files and comparisons of two texts.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pipelines.errors import InputError

DYNAMIC = re.compile(r"\{\{\s*([\w.\-]+)\s*\}\}")  # {{job.parameters.x}}, {{tasks.t.values.v}}
SUCCEEDED = "succeeded"
FAILED = "failed"
UPSTREAM_FAILED = "upstream failed"
EXCLUDED = "excluded"
EQUAL_TO = "EQUAL_TO"
OPERATORS = (EQUAL_TO, "NOT_EQUAL")
OUTCOMES = ("true", "false")


@dataclass(frozen=True)
class Script:
    """Run a Python file with these arguments."""

    file: str
    argv: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """The file and the arguments."""
        return [self.file, *self.argv]


@dataclass(frozen=True)
class Condition:
    """Compare two texts. The outcome, true or false, decides which dependents run."""

    op: str
    left: str
    right: str

    @property
    def texts(self) -> list[str]:
        """The comparison as it is read."""
        return [self.left, self.op, self.right]

    @property
    def outcome(self) -> str:
        """The outcome, once the texts hold no {{...}}."""
        return str((self.left == self.right) == (self.op == EQUAL_TO)).lower()


@dataclass(frozen=True)
class Need:
    """A dependency: the key of a task and, if that task is a condition, the outcome to wait for."""

    key: str
    outcome: str | None = None


@dataclass(frozen=True)
class Task:
    """A node of the graph."""

    key: str
    work: Script | Condition
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Job:
    """A job: its parameters with their defaults, its tasks in an order in which they can run."""

    name: str
    parameters: Mapping[str, str]
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class TaskResult:
    """The result of a task. `texts` are those of its work, with every {{...}} replaced."""

    state: str
    texts: list[str] = field(default_factory=list)
    exit_code: int = 0
    duration_s: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)  # set by the task
    outcome: str | None = None  # of a condition


def job_of(definition: Mapping[str, Any], name: str) -> Job:
    """Return a job of a resolved definition. Raises InputError if it is missing or cannot run."""
    jobs = definition.get("resources", {}).get("jobs", {})
    if name not in jobs:
        names = ", ".join(jobs) or "none"
        raise InputError(f"databricks.yml: no job {name}; it has {names}. Pass one of them.")
    entries = jobs[name].get("parameters", [])
    parameters = {entry["name"]: str(entry["default"]) for entry in entries}
    tasks = [_task(f"job {name}, task {entry['task_key']}", entry) for entry in jobs[name]["tasks"]]
    return Job(name, parameters, ordered(name, tasks))


def ordered(job: str, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Return the tasks with each one after its dependencies, otherwise in the given order."""
    by_key = {task.key: task for task in tasks}
    if len(by_key) < len(tasks):
        keys = [task.key for task in tasks]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"job {job}: task_key {repeated} is used twice. Rename one of the tasks.")
    graph = {task.key: [need.key for need in task.needs] for task in tasks}
    for key, need_keys in graph.items():
        if missing := [need_key for need_key in need_keys if need_key not in by_key]:
            raise InputError(
                f"job {job}, task {key}: depends on the task {missing[0]}, which does not exist. "
                "Correct depends_on."
            )
    try:
        return tuple(by_key[key] for key in TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise InputError(
            f"job {job}: tasks depend on each other: {cycle}. Remove one depends_on."
        ) from error


def state_before(task: Task, results: Mapping[str, TaskResult]) -> str | None:
    """Return None if the task may run, else the state it gets because of its dependencies.

    A dependency counts as excluded if it is a condition with the other outcome. An excluded
    dependency counts as successful, unless all of them are excluded.
    Source: Databricks, "Configure task dependencies".
    """
    states = [_state_of(need, results[need.key]) for need in task.needs]
    if FAILED in states or UPSTREAM_FAILED in states:
        return UPSTREAM_FAILED
    return EXCLUDED if states and set(states) == {EXCLUDED} else None


def job_state(results: Mapping[str, TaskResult]) -> str:
    """Return failed if a task failed, else succeeded."""
    has_failed = any(result.state == FAILED for result in results.values())
    return FAILED if has_failed else SUCCEEDED


def filled(text: str, values: Mapping[str, Any]) -> str:
    """Replace each {{name}} in a text by its value. Raises InputError if one is missing."""
    names = DYNAMIC.findall(text)
    if missing := [name for name in names if name not in values]:
        raise InputError(
            f"{{{{{missing[0]}}}}} is no parameter of the job and no value that an earlier task "
            "has set. Declare the parameter, or set the value."
        )
    return filled_where_known(text, values)


def filled_where_known(text: str, values: Mapping[str, Any]) -> str:
    """Return a text; replace each {{name}} that has a value."""

    def value_text(match: re.Match[str]) -> str:
        return as_text(values[match[1]]) if match[1] in values else match[0]

    return DYNAMIC.sub(value_text, text)


def as_text(value: Any) -> str:
    """Return a value as an argument: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def filled_work(work: Script | Condition, fill: Callable[[str], str]) -> Script | Condition:
    """Return the work with `fill` applied to each of its texts that may hold {{name}}."""
    if isinstance(work, Condition):
        return Condition(work.op, fill(work.left), fill(work.right))
    return Script(work.file, tuple(fill(text) for text in work.argv))


def _state_of(need: Need, result: TaskResult) -> str:
    is_other_branch = need.outcome is not None and need.outcome != result.outcome
    return EXCLUDED if result.state == SUCCEEDED and is_other_branch else result.state


def _task(where: str, entry: Mapping[str, Any]) -> Task:
    _require_one_of(where, "run_if", entry.get("run_if", "ALL_SUCCESS"), ("ALL_SUCCESS",))
    needs = [Need(need["task_key"], need.get("outcome")) for need in entry.get("depends_on", [])]
    for need in needs:
        if need.outcome is not None:
            _require_one_of(where, "outcome", need.outcome, OUTCOMES)
    return Task(entry["task_key"], _work(where, entry), tuple(needs))


def _work(where: str, entry: Mapping[str, Any]) -> Script | Condition:
    if "spark_python_task" in entry:
        script = entry["spark_python_task"]
        argv = tuple(str(text) for text in script.get("parameters", []))
        return Script(script["python_file"].removeprefix("./"), argv)
    if "condition_task" in entry:
        condition = entry["condition_task"]
        _require_one_of(where, "op", condition.get("op"), OPERATORS)
        return Condition(condition["op"], str(condition["left"]), str(condition["right"]))
    kinds = [name for name in entry if name.endswith("_task")] or ["a task of no kind"]
    raise InputError(
        f"{where}: {kinds[0]} is not supported. Use spark_python_task or condition_task."
    )


def _require_one_of(where: str, key: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(
            f"{where}: {key} must be {' or '.join(allowed)}, as text, got {value!r}: "
            "nothing else is supported."
        )
