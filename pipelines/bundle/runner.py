"""Running a job's tasks one after another on this machine, as the cloud would run them."""

import contextlib
import dataclasses
import json
import logging
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import program
from pipelines.bundle import task_values
from pipelines.bundle.graph import (
    FAILED,
    SUCCEEDED,
    Condition,
    Job,
    Loop,
    Script,
    Task,
    compared,
    filled,
    inputs_of,
    job_state,
    state_before,
)
from pipelines.errors import InputError

log = logging.getLogger("reviewlake")
Execute = Callable[[Path, Script], int]  # from the root of the checkout; gives the exit code


@dataclass(frozen=True)
class TaskResult:
    """What became of a task."""

    state: str
    ran: list[list[str]] = field(
        default_factory=list
    )  # each call: file and arguments, or what was compared
    exit_code: int = 0
    duration_s: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)
    outcome: str | None = None  # of a condition


def run_job(
    root: Path,
    job: Job,
    parameters: Mapping[str, str],
    execute: Execute,
    before: Mapping[str, TaskResult],
    on_done: Callable[[Mapping[str, TaskResult]], None] = lambda _: None,
) -> dict[str, TaskResult]:
    """Run the tasks in order; what a failed one leaves behind is not run. `on_done` gets all there is after each task.

    before  tasks of an earlier, failed run: one that succeeded with the same arguments is not run again, unless
            something that it waits for is
    """
    done: dict[str, TaskResult] = {}
    kept: set[str] = set()
    started_s = time.monotonic()
    for task in job.tasks:
        states = {key: one.state for key, one in done.items()}
        blocked = state_before(
            task, states, {key: one.outcome for key, one in done.items() if one.outcome}
        )
        words = words_of(job, parameters, done)
        if blocked:
            done[task.key] = TaskResult(blocked)
        elif kept.issuperset(key for key, _ in task.needs) and _stands(
            before.get(task.key), task, words
        ):
            done[task.key] = before[task.key]
            kept.add(task.key)
            log.info("%s: done in the run before", task.key)
        else:
            log.info("\n[%3.0f s] %s", time.monotonic() - started_s, task.key)
            done[task.key] = _run_task(root, task, words, execute)
        on_done(done)
    return done


def words_of(
    job: Job, parameters: Mapping[str, str], done: Mapping[str, TaskResult]
) -> dict[str, Any]:
    """What {{…}} stands for once these tasks are done."""
    words: dict[str, Any] = {
        f"job.parameters.{name}": value for name, value in {**job.parameters, **parameters}.items()
    }
    for key, one in done.items():
        words |= {f"tasks.{key}.values.{name}": value for name, value in one.values.items()}
    return words


def calls_of(task: Task, words: Mapping[str, Any]) -> list[Script]:
    """The scripts that a task runs, every word filled in; none for a condition."""
    if isinstance(task.work, Condition):
        return []
    script = task.work.script if isinstance(task.work, Loop) else task.work
    turns = inputs_of(task.work, words) if isinstance(task.work, Loop) else [{}]
    return [
        Script(script.file, tuple(filled(text, {**words, **turn}) for text in script.argv))
        for turn in turns
    ]


def submitted(root: Path, script: Script) -> int:
    """Run a script by spark-submit, in a process of its own."""
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    environment.pop("PYSPARK_GATEWAY_PORT", None)  # the JVM is to be the script's own
    return subprocess.run(
        submit_command(root, script), cwd=root, env=environment, check=False
    ).returncode


def submit_command(root: Path, script: Script) -> list[str]:
    """The command line of spark-submit for a script, run from the root of the checkout."""
    program = Path(sys.executable).parent / "spark-submit"
    return [
        str(program),
        "--properties-file",
        str(root / "spark-defaults.conf"),
        script.file,
        *script.argv,
    ]


def in_process(root: Path, script: Script) -> int:
    """Run a script's main here, so that all tasks share one JVM."""
    try:
        with contextlib.chdir(
            root
        ):  # as spark-submit does: a relative path means the same both ways
            return program.attempt(
                runpy.run_path(str(root / script.file))["main"], list(script.argv)
            )
    except SystemExit as ended:  # argparse: the arguments are none
        return ended.code if isinstance(ended.code, int) else 1


def exit_code(job: Job, done: Mapping[str, TaskResult]) -> int:
    """0 where the job succeeded, else that of the task which failed first."""
    if job_state(job, {key: one.state for key, one in done.items()}) == SUCCEEDED:
        return 0
    return next(one.exit_code for one in done.values() if one.state == FAILED)


def summary(job: Job, done: Mapping[str, TaskResult]) -> list[str]:
    """A line a task, and one for the job."""
    width = max(len(task.key) for task in job.tasks)
    lines = [f"  {'task':<{width}}  state            exit  seconds"]
    for key, one in done.items():
        outcome = f" ({one.outcome})" if one.outcome else ""
        lines.append(
            f"  {key:<{width}}  {one.state + outcome:<15}  {one.exit_code:>4}  {one.duration_s:>7.0f}"
        )
    return [
        *lines,
        f"  {job.name}: {job_state(job, {key: one.state for key, one in done.items()})}",
    ]


def plan(job: Job, parameters: Mapping[str, str]) -> list[str]:
    """What would be run, in order; what only an earlier task will say stays {{…}}."""
    lines = []
    given = {f"{{{{{name}}}}}": value for name, value in words_of(job, parameters, {}).items()}
    for number, task in enumerate(job.tasks, 1):
        after = ", ".join(
            key if wanted is None else f"{key} = {wanted}" for key, wanted in task.needs
        )
        run_if = "" if task.run_if == "ALL_SUCCESS" else f" if {task.run_if}"
        lines.append(f"{number} {task.key}{f', after {after}' if after else ''}{run_if}")
        work = task.work
        if isinstance(work, Condition):
            lines.append(
                f"    {given.get(work.left, work.left)} {work.op} {given.get(work.right, work.right)}"
            )
            continue
        script = work.script if isinstance(work, Loop) else work
        argv = tuple(given.get(text, text) for text in script.argv)
        lines.append(f"    {shlex.join([script.file, *argv])}")
        if isinstance(work, Loop):
            lines[-1] += f"   for each of {work.inputs}"
    return lines


def load_state(file: Path) -> dict[str, TaskResult]:
    """What the last run of a job left; nothing where there was none, or where it cannot be read."""
    try:
        return {
            key: TaskResult(**one)
            for key, one in json.loads(file.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        log.info("%s: no run before that can be read; every task runs", file)
        return {}


def save_state(file: Path, done: Mapping[str, TaskResult]) -> None:
    """Keep what became of each task."""
    write_json(file, {key: dataclasses.asdict(one) for key, one in done.items()})


def write_json(file: Path, value: object) -> None:
    """Write a value as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(partial, file)


def _run_task(root: Path, task: Task, words: Mapping[str, Any], execute: Execute) -> TaskResult:
    try:
        ran = _ran(task, words)
        if isinstance(task.work, Condition):
            return TaskResult(SUCCEEDED, ran, outcome=compared(task.work, words))
    except (
        InputError
    ) as error:  # a word that no task told, an order of texts: this task's fault, not the runner's
        log.error("InputError: task %s: %s", task.key, error)
        return TaskResult(FAILED, exit_code=error.exit_code)
    started_s, code = time.monotonic(), 0
    values: dict[str, Any] = {}
    for script in calls_of(task, words):
        log.info("%s", shlex.join([script.file, *script.argv]))
        with _values_file() as file:
            code = execute(root, script)
            values |= task_values.read_values(file)
        if code:
            break
    return TaskResult(
        FAILED if code else SUCCEEDED, ran, code, time.monotonic() - started_s, values
    )


def _ran(task: Task, words: Mapping[str, Any]) -> list[list[str]]:
    if isinstance(task.work, Condition):
        return [[filled(task.work.left, words), task.work.op, filled(task.work.right, words)]]
    return [[script.file, *script.argv] for script in calls_of(task, words)]


def _stands(before: TaskResult | None, task: Task, words: Mapping[str, Any]) -> bool:
    return before is not None and before.state == SUCCEEDED and before.ran == _ran(task, words)


@contextlib.contextmanager
def _values_file() -> Iterator[Path]:
    """Where a task's values go while it runs."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "values"
        os.environ[task_values.FILE] = str(file)
        try:
            yield file
        finally:
            del os.environ[task_values.FILE]
