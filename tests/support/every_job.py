"""Every job in its order, on a few dozen real reviews and a tiny encoder, and what the tables hold afterwards."""

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path

import pandas as pd
from pyspark import SparkContext
from pyspark.sql import functions as F

from pipelines.errors import JobError
from pipelines.ingest.sources import packaged_file
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import content_hash
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from schemas import TABLES
from tests.support import tiny_encoder

FEW = 60
# What differs between two runs of the same: times, and ids that MLflow or a clock gave.
OWN = {
    "ingested_at",
    "scored_at",
    "run_id",
    "finished_at",
    "duration_s",
    "registered_at",
    "decided_at",
}
SETTINGS = ["--max-tokens", "32", "--epochs", "2", "--precision", "fp32"]
LINKS = (
    "code_commit",
    "gold_version",
    "silver_version",
    "bronze_version",
    "source_sha256",
    "row_number",
)
LINEAGE = f"SELECT count(*) AS n, {', '.join(f'count({link}) AS {link}' for link in LINKS)} FROM gold.lineage"


def job(name: str, *argv: str) -> str:
    """What a job prints, run in this process; of a job that ends in an error, that error too."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            importlib.import_module(f"jobs.{name}").main([*argv])
        except JobError as error:
            print(f"{type(error).__name__}: {error}")
    return printed.getvalue()


def encoder_in(directory: Path) -> str:
    texts = pd.read_csv(packaged_file()[0], nrows=500)["text"].tolist()
    return str(tiny_encoder.build(directory, texts))


def run_every_job(
    place: list[str], encoder: str, model: str = "review_classifier"
) -> dict[str, str]:
    """What each job printed, by its name."""
    argv = {
        "ingest": ["--max-rows", str(FEW)],
        "clean": [],
        "curate": ["--backbone", encoder],
        "train": ["--backbone", encoder, "--model-name", model, *SETTINGS],
        "promote": ["--model-name", model],  # refused: so few reviews beat no baseline
        "score": ["--model-name", model, "--model", "challenger"],
        "query": ["--sql", LINEAGE, "--format", "csv"],
        "diff": ["--table", "gold.reviews"],
        "reproduce": [f"models:/{model}@challenger"],
        "vacuum": ["--older-than-hours", "0"],
        "doctor": [],
    }
    return {name: job(name, *flags, *place) for name, flags in argv.items()}


def hashes(store: TableStore) -> dict[str, str]:
    """The content hash of every table but the ledger and the models, without what two equal runs differ in."""
    found = {}
    for table in TABLES:
        if table.name.startswith("ops."):
            continue
        kept = [name for name in table.column_names if name not in OWN]
        rows = store.read(table).select(*kept)
        if "probability" in kept:  # the last bits depend on how the rows fell into batches
            rows = rows.withColumn("probability", F.round("probability", 5))
        found[table.name] = content_hash(rows)
    return found


if (
    __name__ == "__main__"
):  # lake, encoder -> as JSON what came of it; run by tests/whole/test_connect.py
    lake, encoder = sys.argv[1:]
    printed = run_every_job(["--lake", lake], encoder)
    store = TableStore(get_session("look", LakeConfig(lake=lake)), LakeConfig(lake=lake))
    weights = store.sql("SELECT weights_sha256 FROM ops.models").collect()[0][0]
    report = {
        "session": type(store.spark).__module__,
        "has_gateway": SparkContext._gateway is not None,
        "printed": printed,
        "hashes": hashes(store),
        "weights": weights,
    }
    sys.stdout.write(json.dumps(report))
