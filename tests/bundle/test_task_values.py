"""Task values: in a Databricks runtime, under the local runner, outside a job. Needs no Spark."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pipelines.bundle import task_values


def test_under_the_local_runner_values_go_to_its_file_and_the_last_of_a_name_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "values"
    assert task_values.read_values(file) == {}
    monkeypatch.setenv(task_values.FILE, str(file))
    for name, value in (("gold_version", 1), ("note", "a\nb"), ("gold_version", 2)):
        task_values.set_value(name, value)
    assert task_values.read_values(file) == {"gold_version": 2, "note": "a\nb"}


def test_outside_a_job_a_value_goes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(task_values.FILE, raising=False)
    monkeypatch.chdir(tmp_path)
    task_values.set_value("gold_version", 1)
    assert list(tmp_path.iterdir()) == []


def test_in_a_databricks_runtime_values_go_to_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, int | str] = {}
    values = SimpleNamespace(set=lambda key, value: sent.update({key: value}))
    dbutils = SimpleNamespace(jobs=SimpleNamespace(taskValues=values))
    runtime = ModuleType("databricks.sdk.runtime")
    monkeypatch.setattr(runtime, "dbutils", dbutils, raising=False)
    monkeypatch.setitem(sys.modules, "databricks.sdk.runtime", runtime)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.5.1")
    task_values.set_value("gold_version", 1)
    assert sent == {"gold_version": 1}
