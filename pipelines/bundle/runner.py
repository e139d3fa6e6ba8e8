"""Run a job's tasks one after another on this machine, as Databricks would."""

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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pipelines import program
from pipelines.bundle import task_values
from pipelines.bundle.graph import (
    FAILED,
    SUCCEEDED,
    Condition,
    Job,
    Script,
    Task,
    TaskResult,
    filled,
    filled_where_known,
    filled_work,
    job_state,
    state_before,
)
from pipelines.errors import InputError
from pipelines.java_noise import Forwarder
from pipelines.lake.links import inside, write_whole
from pipelines.provenance import ROOT

log = logging.getLogger("reviewlake")
CHUNK_BYTES = 65_536
# Runs a script. Arguments: the root of the checkout, the script, the file for its task values.
# Returns the exit code.
Execute = Callable[[Path, Script, Path], int]


def run_local(
    definition: Mapping[str, Any],
    job: Job,
    parameters: Mapping[str, str],
    execute: Execute,
    *,
    resume: bool,
) -> dict[str, TaskResult]:
    """Run a job of target local. Its results are kept in <landing>/runs, for --resume."""
    variables = definition["variables"]
    lake = Path(variables["lake"]).absolute()
    landing = Path(variables["landing"]).absolute() if variables["landing"] else None
    file = (landing or inside(lake, lake / "landing")) / "runs" / f"{job.name}.json"
    return run_job(
        ROOT,
        job,
        parameters=parameters,
        execute=execute,
        before=load_state(file) if resume else {},
        on_done=partial(save_state, file),
    )


def run_job(
    root: Path,
    job: Job,
    *,
    parameters: Mapping[str, str],
    execute: Execute,
    before: Mapping[str, TaskResult],
    on_done: Callable[[Mapping[str, TaskResult]], None] = lambda _: None,
) -> dict[str, TaskResult]:
    """Run the tasks in order and return their results. Dependents of a failed task do not run.

    before   results of an earlier run. A task that succeeded there with the same arguments is not
             run again, unless one of its dependencies is
    on_done  gets all results so far after each task
    """
    results: dict[str, TaskResult] = {}
    kept: set[str] = set()  # tasks that keep their earlier result
    started_s = time.monotonic()
    for task in job.tasks:
        if blocked := state_before(task, results):
            results[task.key] = TaskResult(blocked)
        else:
            log.info("\n[%3.0f s] %s", time.monotonic() - started_s, task.key)
            has_same_inputs = kept.issuperset(need.key for need in task.needs)
            earlier = before.get(task.key) if has_same_inputs else None
            values = values_of(job, parameters, results)
            results[task.key] = _run_task(task, values, earlier, partial(execute, root))
            if results[task.key] is earlier:
                kept.add(task.key)
        on_done(results)
    return results


def values_of(
    job: Job, parameters: Mapping[str, str], results: Mapping[str, TaskResult]
) -> dict[str, Any]:
    """Return the value of each {{name}}: the job's parameters and the values set by its tasks."""
    values: dict[str, Any] = {}
    for name, value in {**job.parameters, **parameters}.items():
        values[f"job.parameters.{name}"] = value
    for key, result in results.items():
        for name, value in result.values.items():
            values[f"tasks.{key}.values.{name}"] = value
    return values


def submitted(root: Path, script: Script, values_file: Path) -> int:
    """Run a script by spark-submit, in a process of its own."""
    from pipelines.lake.own_spark import own_spark

    program.set_environment(own_spark(os.environ))
    environment = {**os.environ, task_values.FILE: str(values_file)}
    command = submit_command(root, script)
    stderr = Forwarder(shows_download=True)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, bufsize=0) as process:
        try:
            while process.stderr and (chunk := process.stderr.read(CHUNK_BYTES)):
                _show(stderr.feed(chunk))
        except BaseException:  # as subprocess.run does: an interrupted runner leaves no JVM behind
            process.kill()
            raise
    _show(stderr.rest())
    return process.returncode


def submit_command(root: Path, script: Script) -> list[str]:
    """Return the command line of spark-submit for a script; it works in every directory."""
    from pipelines.lake.own_spark import spark_home
    from pipelines.lake.session import driver_options  # pyspark, which --help does not need

    folder = spark_home() or Path(sys.executable).parent.parent
    return [
        str(folder / "bin" / "spark-submit"),
        "--properties-file",
        str(root / "spark-defaults.conf"),
        "--conf",  # spark-defaults.conf names this file relative to the root of the checkout
        f"spark.driver.extraJavaOptions={driver_options()}",
        str(root / script.file),
        *script.argv,
    ]


def in_process(root: Path, script: Script, values_file: Path) -> int:
    """Run a script's main in this process, so that all tasks share one JVM."""
    with program.environment(**{task_values.FILE: str(values_file)}):
        try:
            main = runpy.run_path(str(root / script.file))["main"]
            return program.attempt(main, list(script.argv))
        except SystemExit as ended:  # argparse refused the arguments
            return ended.code if isinstance(ended.code, int) else 1


def exit_code(job: Job, results: Mapping[str, TaskResult]) -> int:
    """Return 0 if the job succeeded, else the exit code of the first task that failed."""
    ordered_results = (results[task.key] for task in job.tasks)
    return next((result.exit_code for result in ordered_results if result.state == FAILED), 0)


def summary(job: Job, results: Mapping[str, TaskResult]) -> list[str]:
    """Return the lines of a table of the results, and a last line for the job."""
    rows = []
    for key, result in results.items():
        state = f"{result.state} ({result.outcome})" if result.outcome else result.state
        rows.append((key, state, result.exit_code, result.duration_s))
    table = tabulate(rows, ("task", "state", "exit", "seconds"), tablefmt="plain", floatfmt=".0f")
    return [f"  {line}" for line in [*table.splitlines(), f"{job.name}: {job_state(results)}"]]


def plan(job: Job, parameters: Mapping[str, str]) -> list[str]:
    """Return what would run, in order. Values that only an earlier task can set stay {{name}}."""
    fill = partial(filled_where_known, values=values_of(job, parameters, {}))
    lines = []
    for number, task in enumerate(job.tasks, 1):
        needs = [
            f"{need.key} = {need.outcome}" if need.outcome else need.key for need in task.needs
        ]
        lines.append(f"{number} {task.key}" + (f", after {', '.join(needs)}" if needs else ""))
        work = filled_work(task.work, fill)
        is_script = isinstance(work, Script)
        lines.append("    " + (shlex.join(work.texts) if is_script else " ".join(work.texts)))
    return lines


def load_state(file: Path) -> dict[str, TaskResult]:
    """Return the results of the job's last run; empty if none can be read."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {key: TaskResult(**entry) for key, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        log.info("%s: no earlier run can be read; every task runs", file)
        return {}


def save_state(file: Path, results: Mapping[str, TaskResult]) -> None:
    """Write the results for a later --resume, whole or not at all."""
    entries = {key: dataclasses.asdict(result) for key, result in results.items()}
    inside(file.parent.parent, file.with_name(file.name + ".partial"))
    write_whole(file, json.dumps(entries, indent=1))


def _run_task(
    task: Task,
    values: Mapping[str, Any],
    earlier: TaskResult | None,
    execute: Callable[[Script, Path], int],
) -> TaskResult:
    """Run a task, unless its earlier result is a success with the same arguments."""
    try:
        work = filled_work(task.work, partial(filled, values=values))
    except InputError as error:  # a missing value fails this task, not the runner
        log.error("InputError: task %s: %s", task.key, error)
        return TaskResult(FAILED, exit_code=error.exit_code)
    if earlier and earlier.state == SUCCEEDED and earlier.texts == work.texts:
        log.info("%s: done in the run before", task.key)
        return earlier
    if isinstance(work, Condition):
        return TaskResult(SUCCEEDED, work.texts, outcome=work.outcome)
    log.info("%s", shlex.join(work.texts))
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        values_file = Path(directory) / "values"
        code = execute(work, values_file)
        set_values = task_values.read_values(values_file)
    return TaskResult(
        state=FAILED if code else SUCCEEDED,
        texts=work.texts,
        exit_code=code,
        duration_s=time.monotonic() - started_s,
        values=set_values,
    )


def _show(text: bytes) -> None:
    sys.stderr.buffer.write(text)
    sys.stderr.flush()
