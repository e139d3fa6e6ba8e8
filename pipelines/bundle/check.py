"""Check databricks.yml without a workspace: references, the graph, files and flags of every target.

The rules that need tables of their own (keys of the bundle's schema, values that tasks set) are
tests: tests/rules/bundle_faults.py.
"""

import dataclasses
import runpy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.bundle.graph import DYNAMIC, Job, Script, filled_where_known, job_of
from pipelines.bundle.resolve import load, targets_of
from pipelines.errors import InputError

SOMEBODY = "somebody@example.com"


def faults_of(file: Path) -> Iterator[str]:
    """Yield each fault of the definition as a line, for every target."""
    for target in targets_of(file):
        try:
            jobs = jobs_of(load(file, target, variables={}, user=SOMEBODY))
        except InputError as error:
            yield f"target {target}: {error}"
            continue
        for job in jobs:
            for fault in script_faults(job, file.parent):
                yield f"target {target}, job {job.name}: {fault}"


def jobs_of(definition: Mapping[str, Any]) -> list[Job]:
    """Return the jobs of a resolved definition."""
    return [job_of(definition, name) for name in definition["resources"]["jobs"]]


def script_faults(job: Job, root: Path) -> Iterator[str]:
    """Yield the tasks whose script is missing, or refuses its arguments."""
    parameters = {f"job.parameters.{name}": value for name, value in job.parameters.items()}
    for task in job.tasks:
        if not isinstance(task.work, Script):
            continue
        file = root / task.work.file
        if not file.is_file():
            yield f"task {task.key}: {task.work.file} does not exist. Correct python_file."
            continue
        known = [filled_where_known(text, parameters) for text in task.work.argv]
        argv = [DYNAMIC.sub("1", text) for text in known]  # only a run knows a task value
        if complaint := cli.complaint(config_of(file), argv):
            yield f"task {task.key}: {task.work.file} refuses its arguments: {complaint}"


@cache
def config_of(script: Path) -> type[Any]:
    """Return the dataclass of a script's flags: the one defined in it whose name ends in Config."""
    names = runpy.run_path(str(script), run_name=script.stem)
    own = [value for value in names.values() if getattr(value, "__module__", "") == script.stem]
    classes = [
        value for value in own if isinstance(value, type) and dataclasses.is_dataclass(value)
    ]
    return next(value for value in classes if value.__name__.endswith("Config"))
