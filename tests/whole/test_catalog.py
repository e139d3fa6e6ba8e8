"""Every job with --catalog: managed tables in the session's own catalog stand in for Unity Catalog's."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.tracking import registry
from pipelines.tracking.store import connect
from schemas import GOLD_LINEAGE, GOLD_REJECTS, OPS_MODELS, TABLES
from tests.support.every_job import FEW, LINKS, encoder_in, run_every_job

NAMES = "cat_bronze,cat_silver,cat_gold,cat_ops"


@pytest.fixture
def mlflow_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """MLflow where its standard variable says, as under a catalog without a workspace."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def config_of(tmp_path: Path, names: str) -> LakeConfig:
    return LakeConfig(catalog="spark_catalog", landing=str(tmp_path / "landing"), schemas=names)


@pytest.mark.slow
def test_a_reader_of_a_catalog_creates_neither_schemas_nor_views_that_are_there(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, "read_bronze,read_silver,read_gold,read_ops")
    writer = TableStore(spark, config)
    for table in TABLES:
        writer.create(table)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    assert writer.append(GOLD_REJECTS, rows).version == 1
    statements: list[str] = []
    ask: Any = type(spark).sql

    def recorded(session: SparkSession, text: str) -> Any:
        statements.append(text)
        return ask(session, text)

    monkeypatch.setattr(type(spark), "sql", recorded)
    reader = TableStore(spark, config)
    assert reader.exists(GOLD_LINEAGE)
    assert (reader.version(GOLD_REJECTS), reader.read(GOLD_REJECTS, 1).count()) == (1, 1)
    assert statements[0] == "SET CATALOG spark_catalog"
    assert [text for text in statements if text.startswith(("CREATE", "DROP", "ALTER"))] == []
    assert not list(tmp_path.rglob("locks"))  # the catalog's own commits need none


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_job_works_with_managed_tables_and_mlflow_elsewhere(
    spark: SparkSession, tmp_path: Path, mlflow_elsewhere: str
) -> None:
    place = [
        "--catalog",
        "spark_catalog",
        "--landing",
        str(tmp_path / "landing"),
        "--schemas",
        NAMES,
    ]
    printed = run_every_job(
        place, encoder_in(tmp_path / "encoder"), "cat.cat_gold.review_classifier"
    )
    assert printed["query"] == f"n,{','.join(LINKS)}\n{','.join([str(FEW)] * (len(LINKS) + 1))}\n"
    assert printed["promote"].startswith(
        "GateRefusedError: cat.cat_gold.review_classifier version 1: "
    )
    assert printed["reproduce"].endswith("verdict  bit-identical\n")
    assert printed["doctor"] == ""
    store = TableStore(spark, config_of(tmp_path, NAMES))
    details = [
        store.sql(f"DESCRIBE DETAIL {table.name}").collect()[0]["location"] for table in TABLES
    ]
    assert [place for place in details if "/spark-warehouse/cat_" not in place] == []
    [model] = store.read(OPS_MODELS).collect()
    client = connect(store.config)
    version = registry.resolve(client, model["model_name"], "challenger")
    assert (version.name, version.run_id) == ("cat.cat_gold.review_classifier", model["run_id"])
    run = client.get_run(model["run_id"])
    assert run.info.artifact_uri.startswith((tmp_path / "landing" / "mlflow").as_uri())
    assert mlflow_elsewhere.endswith("mlflow.db")
    assert not (Path.cwd() / "lake").exists()
