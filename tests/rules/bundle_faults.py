"""Rules for databricks.yml beyond `python -m pipelines.bundle check`; none needs a workspace.

Keys of the bundle's schema, parameters and task values that exist, declared environments.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.bundle.check import SOMEBODY, faults_of, jobs_of
from pipelines.bundle.graph import DYNAMIC, Job, Script, Task
from pipelines.bundle.resolve import load, targets_of
from pipelines.errors import InputError
from tests.rules.bundle_keys import unknown_keys

VALUE = re.compile(r"tasks\.([\w-]+)\.values\.([\w-]+)")


def examine(file: Path) -> Iterator[str]:
    """Yield every fault of the definition, for every target."""
    yield from unknown_keys(file)
    yield from faults_of(file)
    for target in targets_of(file):
        try:
            definition = load(file, target, variables={}, user=SOMEBODY)
            jobs = jobs_of(definition)
        except InputError:
            continue  # faults_of has reported it
        for job in jobs:
            entry = definition["resources"]["jobs"][job.name]
            for fault in [*undeclared(entry), *value_faults(job, file.parent)]:
                yield f"target {target}, job {job.name}: {fault}"


def undeclared(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield the environments and clusters that tasks use and their job does not declare."""
    environments = [part["environment_key"] for part in entry.get("environments", [])]
    clusters = [part["job_cluster_key"] for part in entry.get("job_clusters", [])]
    for task in entry["tasks"]:
        for key, names in (("environment_key", environments), ("job_cluster_key", clusters)):
            if key in task and task[key] not in names:
                listing = ", ".join(sorted(names)) or "none"
                where = f"task {task['task_key']}: {key}"
                yield f"{where}: expected one of {listing}, found {task[key]}"


def value_faults(job: Job, root: Path) -> Iterator[str]:
    """Yield each {{name}} that is no parameter of the job and no value set by an upstream task.

    Databricks knows other names; the local runner does not.
    """
    for task in job.tasks:
        names = [name for text in task.work.texts for name in DYNAMIC.findall(text)]
        for name in names:
            if fault := value_fault(job, task, name, root):
                yield f"task {task.key}: {{{{{name}}}}}: {fault}"


def value_fault(job: Job, task: Task, name: str, root: Path) -> str | None:
    """Return what is wrong with the name in {{name}}, None if it is good."""
    if name in {f"job.parameters.{parameter}" for parameter in job.parameters}:
        return None
    parts = VALUE.fullmatch(name)
    if not parts:
        parameters = ", ".join(job.parameters) or "none"
        return f"expected a parameter of the job ({parameters}) or a task value"
    key, value = parts.groups()
    before = upstream(job, task.key)
    if key not in before:
        return f"task {key} is not upstream. Add it to depends_on."
    if value not in values_set(root, before[key]):
        return f"task {key} does not set it with task_values.set_value."
    return None


def upstream(job: Job, key: str) -> dict[str, Task]:
    """Return the direct and indirect dependencies of a task."""
    by_key = {task.key: task for task in job.tasks}
    before: dict[str, Task] = {}
    for need in by_key[key].needs:
        before |= {need.key: by_key[need.key]} | upstream(job, need.key)
    return before


def values_set(root: Path, task: Task) -> set[str]:
    """Return the names with which a task's script calls task_values.set_value."""
    if not isinstance(task.work, Script) or not (root / task.work.file).is_file():
        return set()
    source = (root / task.work.file).read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = set()
    for call in calls:
        is_setter = ast.unparse(call.func) == "task_values.set_value"
        if is_setter and call.args and isinstance(call.args[0], ast.Constant):
            names.add(str(call.args[0].value))
    return names
