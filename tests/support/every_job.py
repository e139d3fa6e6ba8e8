"""Run every job on 60 real reviews with a tiny encoder, in this process or in subprocesses.

    python -m tests.support.every_job LAKE ENCODER

Prints a report in JSON: what each job printed, and hashes of what they wrote. Needs Spark.
"""

import contextlib
import importlib
import io
import json
import os
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
from tests.support.processes import own_environment, run_to_end

N_REVIEWS = 60
N_WORD_SOURCES = 500  # reviews whose words are the tiny encoder's vocabulary
# Columns that differ between two equal runs: times, and IDs from MLflow or from a clock.
RUN_COLUMNS = {
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
    "run_id",
    "code_commit",
    "gold_version",
    "silver_version",
    "bronze_version",
    "source_sha256",
    "row_number",
)
LINK_COUNTS = ", ".join(f"count({link}) AS {link}" for link in LINKS)
LINEAGE = f"SELECT count(*) AS n, {LINK_COUNTS} FROM gold.lineage"
# The answer to LINEAGE as CSV where every scored review has every link.
FULL_LINEAGE = f"n,{','.join(LINKS)}\n{','.join([str(N_REVIEWS)] * (1 + len(LINKS)))}\n"


def encoder_of_reviews(directory: Path) -> str:
    """Build a tiny encoder whose vocabulary is the words of real reviews; return its directory."""
    texts = pd.read_csv(packaged_file()[0], nrows=N_WORD_SOURCES)["text"].tolist()
    return str(tiny_encoder.build(directory, texts))


def run_in_process(job: str, *argv: str) -> str:
    """Run a job in this process; return what it prints, with its error if it ends in one."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            importlib.import_module(f"jobs.{job}").main([*argv])
        except JobError as error:
            print(f"{type(error).__name__}: {error}")
    return printed.getvalue()


def run_every_job(
    place: list[str], encoder: str, model: str = "review_classifier"
) -> dict[str, str]:
    """Run every job in this process with the flags `place`; return what each printed, by job."""
    argv = {
        "ingest": ["--max-rows", str(N_REVIEWS)],
        "clean": [],
        "curate": ["--backbone", encoder],
        "train": ["--backbone", encoder, "--model-name", model, *SETTINGS],
        "promote": ["--model-name", model],  # refused: so few reviews do not beat the baseline
        "score": ["--model-name", model, "--model", "challenger"],
        "query": ["--sql", LINEAGE, "--format", "csv"],
        "diff": ["--table", "gold.reviews"],
        "reproduce": [f"models:/{model}@challenger"],
        "vacuum": ["--older-than-hours", "0"],
        "doctor": [],
    }
    return {job: run_in_process(job, *flags, *place) for job, flags in argv.items()}


def submit(job: str, *argv: str, code: int = 0) -> str:
    """Run a job by spark-submit; return what it prints. Its exit code must be `code`."""
    programs = Path(sys.executable).parent
    command = [
        str(programs / "spark-submit"),
        "--properties-file",
        "spark-defaults.conf",
        f"jobs/{job}.py",
        *argv,
    ]
    environment = own_environment() | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
    }
    process = run_to_end(command, environment=environment, exit_code=code, timeout_s=280)
    return process.stdout  # spark-submit writes both streams of Python there


def run_bundle_job(job: str, *argv: str, code: int = 0) -> str:
    """Run a job of databricks.yml, each of its tasks by spark-submit; return what it prints."""
    command = [sys.executable, "-m", "pipelines.bundle", "run", job, *argv]
    process = run_to_end(command, environment=own_environment(), exit_code=code)
    return process.stderr + process.stdout


def hashes(store: TableStore) -> dict[str, str]:
    """Return each table's content hash without RUN_COLUMNS; the tables of `ops` are left out."""
    by_table: dict[str, str] = {}
    for table in TABLES:
        if table.name.startswith("ops."):
            continue
        compared = [name for name in table.column_names if name not in RUN_COLUMNS]
        rows = store.read(table).select(*compared)
        if "probability" in compared:  # its last bits depend on how rows fell into batches
            rows = rows.withColumn("probability", F.round("probability", 5))
        by_table[table.name] = content_hash(rows)
    return by_table


def main(lake: str, encoder: str) -> None:
    """Run every job on one lake and print the report; tests/whole/test_connect.py reads it."""
    printed = run_every_job(["--lake", lake], encoder)
    config = LakeConfig(lake=lake)
    store = TableStore(get_session("look", config), config)
    weights = store.sql("SELECT weights_sha256 FROM ops.models").collect()[0][0]
    report = {
        "session": type(store.spark).__module__,
        "has_gateway": SparkContext._gateway is not None,
        "printed": printed,
        "hashes": hashes(store),
        "weights": weights,
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
