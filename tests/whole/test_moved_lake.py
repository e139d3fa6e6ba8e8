"""Every job works after the lake was moved, or copied and the original deleted. Needs Spark."""

import hashlib
import shutil
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.tracking.store import connect
from schemas import GOLD_SCORES
from tests.support.every_job import (
    N_REVIEWS,
    SETTINGS,
    encoder_of_reviews,
    run_every_job,
    run_in_process,
)

pytestmark = pytest.mark.slow
NAME = "review_classifier"
MODEL = f"models:/{NAME}@challenger"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A lake on which every job has run, and the encoder that it uses."""
    root = tmp_path_factory.mktemp("lakes")
    encoder = encoder_of_reviews(root / "encoder")
    printed = run_every_job(["--lake", str(root / "lake a")], encoder)
    assert printed["doctor"] == ""
    return root / "lake a", encoder


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def require_working(spark: SparkSession, lake: Path, encoder: str) -> None:
    """Train and score on this lake; assert that everything new is in it, and doctor is silent."""
    place = ["--lake", str(lake)]
    models = lake / "mlflow" / "artifacts" / "models"
    n_models = len(list(models.iterdir()))
    flags = ["--backbone", encoder, *SETTINGS, "--seed", "7"]
    assert run_in_process("train", *flags, *place) == ""
    assert len(list(models.iterdir())) == n_models + 1
    assert run_in_process("score", "--model", "challenger", *place) == ""
    scores = TableStore(spark, LakeConfig(lake=str(lake))).read(GOLD_SCORES)
    scored = scores.where("model_version = 2 AND score_error IS NULL")
    assert scored.count() == N_REVIEWS
    assert run_in_process("doctor", *place) == ""
    client = connect(LakeConfig(lake=str(lake)))
    places = {run.info.artifact_uri for run in client.search_runs(["1"])}
    assert len(places) >= 3
    assert [place for place in places if not place.startswith(f"{lake.as_uri()}/mlflow/")] == []


def load_by_plain_mlflow(spark: SparkSession) -> None:
    """Load the model as others do: MLflow and Python then write beside its files."""
    mlflow.pyfunc.load_model(MODEL).predict(pd.DataFrame({"text": ["good"]}))
    udf = mlflow.pyfunc.spark_udf(spark, MODEL, result_type="double", env_manager="local")
    texts = spark.createDataFrame([("good",)], "text string")
    assert texts.select(udf("text")).count() == 1


def test_a_copied_and_a_moved_lake_work_also_after_plain_mlflow_has_loaded_the_model(
    spark: SparkSession, original: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, encoder = original
    before = hashes(lake)
    require_working(spark, Path(shutil.copytree(lake, tmp_path / "copy")), encoder)
    assert hashes(lake) == before

    damaged = Path(shutil.copytree(lake, tmp_path / "damaged"))
    for weights in (damaged / "mlflow").rglob("model.safetensors"):
        weights.unlink()
    printed = run_in_process("doctor", "--lake", str(damaged))
    assert "model.safetensors: the manifest says a file, found no such file" in printed
    assert hashes(lake) == before

    moved = lake.rename(tmp_path / "moved")
    connect(LakeConfig(lake=str(moved)))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load_by_plain_mlflow(spark)
    names = {path.name for path in (moved / "mlflow").rglob("*")}
    assert {"registered_model_meta", "__pycache__"} <= names
    place = ["--lake", str(moved)]
    assert "verdict  bit-identical" in run_in_process("reproduce", MODEL, *place)
    require_working(spark, moved, encoder)
    printed = run_in_process("promote", *place)  # refused: so few reviews
    assert printed.startswith(f"GateRefusedError: {NAME} version 2: ")
    assert "needed: version" in run_in_process("vacuum", "--dry-run", *place)
    assert not lake.exists()
