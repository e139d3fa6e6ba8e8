"""Aliases read from a local store are those that MLflow knows. Needs MLflow, no Spark."""

import shutil
import sqlite3

import pytest
from mlflow.tracking import MlflowClient

from pipelines.errors import InputError
from pipelines.lake.config import LakeConfig
from pipelines.tracking import aliases, registry
from pipelines.tracking.names import CHALLENGER, CHAMPION, MODEL_NAME
from pipelines.tracking.store import connect


@pytest.fixture
def client(lake: LakeConfig) -> MlflowClient:
    """A store with two versions: the champion, and the challenger; and another model's champion."""
    client = connect(lake)
    for name in (MODEL_NAME, "other"):
        client.create_registered_model(name)
        for alias in (CHAMPION, CHALLENGER):
            version = client.create_model_version(name, source=str(lake.lake_path / "model"))
            client.set_registered_model_alias(name, alias, version.version)
    client.set_registered_model_alias("other", CHAMPION, "2")
    return client


def test_the_aliases_of_a_model_are_read_without_mlflow(
    client: MlflowClient, lake: LakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {
        alias: registry.version_number(client, MODEL_NAME, alias)
        for alias in ("champion", "challenger")
    }
    monkeypatch.setattr("pipelines.tracking.store.connect", lambda _: pytest.fail("asked MLflow"))
    assert aliases.versions_by_alias(lake, MODEL_NAME) == {CHAMPION: 1, CHALLENGER: 2} == expected
    assert aliases.versions_by_alias(lake, "unknown") == {}
    assert aliases.version_number(lake, MODEL_NAME, CHALLENGER) == 2
    assert aliases.version_number(lake, MODEL_NAME, "7") == 7  # scoring looks whether it exists


def test_a_lake_without_a_store_has_no_aliases_and_gets_no_store(lake: LakeConfig) -> None:
    assert aliases.versions_by_alias(lake, MODEL_NAME) == {}
    assert not lake.lake_path.exists()


def test_an_alias_that_is_not_set_is_an_error_with_advice(
    client: MlflowClient, lake: LakeConfig
) -> None:
    client.delete_registered_model_alias(MODEL_NAME, CHAMPION)
    assert aliases.versions_by_alias(lake, MODEL_NAME) == {CHALLENGER: 2}
    with pytest.raises(InputError, match=r"version or alias champion.* Run jobs/promote\.py first"):
        aliases.version_number(lake, MODEL_NAME, CHAMPION)


def test_a_database_with_other_tables_is_left_to_mlflow(
    client: MlflowClient, lake: LakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = LakeConfig(lake=f"{lake.lake_path}-copy")
    (copied.lake_path / "mlflow").mkdir(parents=True)
    database = copied.lake_path / "mlflow" / "mlflow.db"
    shutil.copy(lake.lake_path / "mlflow" / "mlflow.db", database)
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE registered_model_aliases RENAME TO renamed")
    asked = []

    def connected(config: LakeConfig) -> MlflowClient:
        asked.append(config)
        return client  # of the store whose tables are as MLflow makes them

    monkeypatch.setattr("pipelines.tracking.store.connect", connected)
    assert aliases.versions_by_alias(copied, MODEL_NAME) == {CHAMPION: 1, CHALLENGER: 2}
    assert asked == [copied]
