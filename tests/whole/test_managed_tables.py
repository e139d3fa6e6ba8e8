"""Every job works with --catalog, without the cloud. Needs Spark, a tiny encoder.

Managed tables of Spark's own catalog take the place of those in Unity Catalog.
"""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.tracking import registry
from pipelines.tracking.store import connect
from schemas import GOLD_LINEAGE, GOLD_REJECTS, OPS_MODELS, TABLES
from tests.support.every_job import FULL_LINEAGE, encoder_of_reviews, run_every_job

SCHEMAS = "cat_bronze,cat_silver,cat_gold,cat_ops"
MODEL = "cat.cat_gold.review_classifier"


@pytest.fixture
def mlflow_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """MLflow at the URI in its standard variable, as with a catalog outside a workspace."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # MLflow sets it itself, so an earlier test of this process may have left its own store there.
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    return uri


def config_of(tmp_path: Path, schemas: str) -> LakeConfig:
    return LakeConfig(catalog="spark_catalog", landing=str(tmp_path / "landing"), schemas=schemas)


@pytest.mark.slow
def test_a_reader_of_a_catalog_does_not_create_schemas_and_views_that_exist(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, "read_bronze,read_silver,read_gold,read_ops")
    writer = TableStore(spark, config)
    for table in TABLES:
        writer.create(table)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    assert writer.append(GOLD_REJECTS, rows).version == 1
    statements: list[str] = []
    run_sql: Any = type(spark).sql

    def recorded(session: SparkSession, text: str) -> Any:
        statements.append(text)
        return run_sql(session, text)

    monkeypatch.setattr(type(spark), "sql", recorded)
    reader = TableStore(spark, config)
    assert reader.exists(GOLD_LINEAGE)
    assert (reader.version(GOLD_REJECTS), reader.read(GOLD_REJECTS, 1).count()) == (1, 1)
    assert statements[0] == "SET CATALOG spark_catalog"
    assert [text for text in statements if text.startswith(("CREATE", "DROP", "ALTER"))] == []
    assert not list(tmp_path.rglob("locks"))  # the catalog's commits are atomic without locks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_job_works_with_managed_tables_and_an_mlflow_store_outside_the_lake(
    spark: SparkSession, tmp_path: Path, mlflow_uri: str
) -> None:
    landing = str(tmp_path / "landing")
    place = ["--catalog", "spark_catalog", "--landing", landing, "--schemas", SCHEMAS]
    printed = run_every_job(place, encoder_of_reviews(tmp_path / "encoder"), MODEL)
    assert printed["query"] == FULL_LINEAGE
    assert printed["promote"].startswith(f"GateRefusedError: {MODEL} version 1: ")
    assert printed["reproduce"].endswith("verdict  bit-identical\n")
    assert printed["doctor"] == ""
    store = TableStore(spark, config_of(tmp_path, SCHEMAS))
    details = [store.sql(f"DESCRIBE DETAIL {table.name}").collect()[0] for table in TABLES]
    locations = [detail["location"] for detail in details]
    assert [place for place in locations if "/spark-warehouse/cat_" not in place] == []
    [model_row] = store.read(OPS_MODELS).collect()
    client = connect(store.config)
    model_version = registry.resolve(client, model_row["model_name"], "challenger")
    assert (model_version.name, model_version.run_id) == (MODEL, model_row["run_id"])
    run = client.get_run(model_row["run_id"])
    assert run.info.artifact_uri.startswith((tmp_path / "landing" / "mlflow").as_uri())
    assert mlflow_uri.endswith("mlflow.db")
    assert not (Path.cwd() / "lake").exists()
