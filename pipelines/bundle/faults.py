"""What is wrong with databricks.yml, found without a workspace: names, references, files, flags, the graph."""

import ast
import dataclasses
import re
import runpy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines import cli
from pipelines.bundle.graph import DYNAMIC, Job, Loop, Script, Task, job_of
from pipelines.bundle.keys import unknown_keys
from pipelines.bundle.resolve import load, place, references, targets_of
from pipelines.errors import InputError

SOMEBODY = "somebody@example.com"
VALUE = re.compile(r"tasks\.([\w-]+)\.values\.([\w-]+)")


def examine(file: Path) -> Iterator[str]:
    """Every fault of the definition, for every target; none of a sound one."""
    yield from unknown_keys(file)
    for target in targets_of(file):
        try:
            definition = load(file, target, {}, SOMEBODY)
            jobs = [job_of(definition, name) for name in definition["resources"]["jobs"]]
        except InputError as error:
            yield f"target {target}: {error}"
            continue
        for path, text in references(definition):
            if "${" in text:
                yield f"target {target}: {place(path)}: expected every ${{…}} resolved, found {text}"
        for job in jobs:
            where = f"target {target}, job {job.name}"
            entries = definition["resources"]["jobs"][job.name]
            yield from (
                f"{where}: {fault}"
                for fault in (*declared(entries), *graph_faults(job, file.parent))
            )


def graph_faults(job: Job, root: Path) -> Iterator[str]:
    """Words that nothing stands behind, files that are not there, arguments that a script does not take."""
    for task in job.tasks:
        script = task.work.script if isinstance(task.work, Loop) else task.work
        texts = [text for _, text in references(dataclasses.asdict(task.work))]
        yield from (f"task {task.key}: {fault}" for fault in word_faults(job, task, texts, root))
        if isinstance(script, Script):
            yield from (
                f"task {task.key}: {fault}" for fault in script_faults(script, job.parameters, root)
            )


def word_faults(job: Job, task: Task, texts: list[str], root: Path) -> Iterator[str]:
    """{{…}} that is no parameter of the job and no value that a task before it sets: a run here knows no other."""
    before, parameters = (
        upstream(job, task.key),
        {f"job.parameters.{name}" for name in job.parameters},
    )
    for word in (word for text in texts for word in DYNAMIC.findall(text)):
        if word in parameters:
            continue
        if isinstance(task.work, Loop) and word.split(".")[0] == "input":
            continue
        if (value := VALUE.fullmatch(word)) is None:
            has = ", ".join(job.parameters) or "none"
            yield f"{{{{{word}}}}}: expected a parameter of the job ({has}) or a task value"
        elif value[1] not in before:
            yield f"{{{{{word}}}}}: expected a task that it waits for, found {value[1]}"
        elif value[2] not in values_told(root, before[value[1]]):
            yield f"{{{{{word}}}}}: expected a value that task {value[1]} sets, found none: task_values.set_value in its job"


def script_faults(script: Script, parameters: Mapping[str, str], root: Path) -> Iterator[str]:
    """A script that is not there, or that refuses the arguments; the script's own parser is asked."""
    if not (root / script.file).is_file():
        yield f"{script.file}: expected a file, found none"
        return
    words = {f"{{{{job.parameters.{name}}}}}": value for name, value in parameters.items()}
    argv = [words.get(text, DYNAMIC.sub("1", text)) for text in script.argv]
    if complaint := cli.complaint(config_of(root / script.file), argv):
        yield f"{script.file}: expected arguments that it takes, found: {complaint}"


def declared(entry: Mapping[str, Any]) -> Iterator[str]:
    """Environments and clusters that a job's tasks name and the job does not have."""
    has = {
        "environment_key": {one["environment_key"] for one in entry.get("environments", [])},
        "job_cluster_key": {one["job_cluster_key"] for one in entry.get("job_clusters", [])},
    }
    for task in entry["tasks"]:
        inner = task.get("for_each_task", {}).get("task", task)
        for key, names in has.items():
            if key in inner and inner[key] not in names:
                listing = ", ".join(sorted(names)) or "none"
                yield f"task {task['task_key']}: {key}: expected one of {listing}, found {inner[key]}"


def upstream(job: Job, key: str) -> dict[str, Task]:
    """Every task that has ended before this one starts."""
    by_key = {task.key: task for task in job.tasks}
    direct = {need: by_key[need] for need, _ in by_key[key].needs}
    return direct | {name: task for need in direct for name, task in upstream(job, need).items()}


def values_told(root: Path, task: Task) -> set[str]:
    """The names that a task's script gives to task_values.set_value."""
    if not isinstance(task.work, Script) or not (root / task.work.file).is_file():
        return set()
    calls = [
        node
        for node in ast.walk(ast.parse((root / task.work.file).read_text("utf-8")))
        if isinstance(node, ast.Call)
    ]
    named = [
        call.args[0]
        for call in calls
        if ast.unparse(call.func) == "task_values.set_value" and call.args
    ]
    return {str(name.value) for name in named if isinstance(name, ast.Constant)}


@cache
def config_of(script: Path) -> type[Any]:
    """The dataclass whose fields are a script's flags: the one that it defines itself, by the name …Config."""
    names = runpy.run_path(str(script), run_name=script.stem)
    own = [
        one
        for name, one in names.items()
        if name.endswith("Config") and one.__module__ == script.stem
    ]
    return next(one for one in own if isinstance(one, type) and dataclasses.is_dataclass(one))
