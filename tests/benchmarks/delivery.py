"""A delivery of new reviews on a small and on a large lake: clean, curate, the search for unscored.

    python -m tests.benchmarks.delivery prepare DIRECTORY 10000
    python -m tests.benchmarks.delivery increment DIRECTORY 10000

`prepare` builds DIRECTORY/lake-10000. Each run delivers 1,000 reviews to a copy of it.
"""

import dataclasses
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs import clean, curate, ingest
from pipelines import score
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore, open_lake
from schemas import GOLD_SCORES, SILVER_REVIEWS
from tests.benchmarks.compare import Program, alternate, seconds_of, table_of_growth
from tests.benchmarks.reviews import packaged_reviews

N_PACKAGED = 25_000
N_FILES = 20
N_NEW = 1_000
SMALL, LARGE = 10_000, 1_000_000
MODEL = ("review_classifier", 1)


def write_reviews(directory: Path, first: int, n: int, n_files: int) -> None:
    """Write `n` packaged reviews as Parquet; each copy of them has words of its own.

    first  number of the first one: other numbers give other texts
    """
    texts, labels = packaged_reviews(N_PACKAGED)
    directory.mkdir(parents=True)
    per_file = -(-n // n_files)
    for start in range(first, first + n, per_file):
        numbers = range(start, min(start + per_file, first + n))
        copies = [divmod(number, N_PACKAGED) for number in numbers]
        columns = {
            "text": [f"Copy {copy}. {texts[row]}" for copy, row in copies],
            "label": [labels[row] for _, row in copies],
        }
        pd.DataFrame(columns).to_parquet(directory / f"{start}.parquet")


def run_stages(lake: Path, reviews: Path, *flags: str) -> None:
    """Ingest the files, clean and curate."""
    place = ["--lake", str(lake)]
    source = ["--source", "parquet", "--path", str(reviews), "--name", "imdb"]
    ingest.main([*place, *source, "--label-column", "label"])
    clean.main([*place, *flags])
    curate.main([*place, *flags])


def prepare(directory: Path, n_reviews: int) -> None:
    """Build a lake of so many reviews, all of them scored but for the model's forward pass."""
    reviews = directory / f"reviews-{n_reviews}"
    write_reviews(reviews, 0, n_reviews, N_FILES)
    lake = directory / f"lake-{n_reviews}"
    run_stages(lake, reviews)
    store = open_lake("bench", LakeConfig(lake=str(lake)))
    version = store.version(SILVER_REVIEWS)
    store.merge(GOLD_SCORES, scores_of(store, version))
    shutil.rmtree(reviews)
    write_reviews(directory / f"new-{n_reviews}", n_reviews, N_NEW, 1)


def scores_of(store: TableStore, silver_version: int) -> DataFrame:
    """Return a row of gold.scores for each review of silver, with a score that no model made."""
    name, version = MODEL
    rows = store.read(SILVER_REVIEWS, silver_version).selectExpr(
        "review_id",
        f"'{name}' AS model_name",
        f"{version} AS model_version",
        "CAST(0.5 AS DOUBLE) AS probability",
        "1 AS prediction",
        "false AS is_truncated",
        "CAST(NULL AS STRING) AS score_error",
        "'bench' AS run_id",
        f"CAST({silver_version} AS BIGINT) AS silver_version",
        "source",
        "origins",
    )
    return rows.withColumn("scored_at", F.lit(datetime.now(UTC)))


def increment(directory: Path, n_reviews: int, kind: str) -> float:
    """Deliver the new reviews to a copy of the lake; return the seconds with a warm session."""
    lake = directory / f"copy-{n_reviews}"
    shutil.rmtree(lake, ignore_errors=True)
    shutil.copytree(directory / f"lake-{n_reviews}", lake)
    new = directory / f"new-{n_reviews}"
    store = open_lake("bench", LakeConfig(lake=str(lake)))
    before = store.version(SILVER_REVIEWS)
    store.spark.sql("SELECT count(*) FROM silver.reviews").collect()

    def deliver() -> None:
        run_stages(lake, new, *(["--full"] if kind == "full" else []))
        name, version = MODEL
        latest = store.version(SILVER_REVIEWS)
        since = None if kind == "full" else before
        reviews, _ = score.new_reviews(store, latest, since)
        waiting = score.unscored(reviews, store.read(GOLD_SCORES), name, version)
        n_waiting = waiting.count()
        if n_waiting != N_NEW:
            raise RuntimeError(f"expected {N_NEW} unscored reviews, found {n_waiting}")

    return seconds_of(deliver)


def bench(directory: Path, runs: int) -> list[str]:
    """Compare a delivery on a large lake with the same on a small one, and with a full run."""
    sizes = (SMALL, LARGE)
    for size in sizes:
        Program("prepare", "delivery", ["prepare", str(directory), str(size)]).prepare()
    program = Program("", "delivery", ["increment", str(directory), str(SMALL)])
    compared = [
        dataclasses.replace(
            program, name=f"{size:,}", arguments=["increment", str(directory), str(size)]
        )
        for size in sizes
    ]
    medians = alternate(compared, runs)
    full = Program("full", "delivery", ["full", str(directory), str(LARGE)]).run()
    medians[f"{LARGE:,}, all rows again (one run)"] = full
    words = (
        f"A Parquet file with {N_NEW:,} new reviews on lakes of two sizes: ingest, clean, curate, "
        "and the search for reviews without a score, in one warm session. The large lake holds the "
        "packaged reviews many times, each copy with words of its own. Peak resident memory of the "
        f"driver's Python process, of the JVM and of the workers. Medians of {runs} runs."
    )
    return [words, "", *table_of_growth("reviews in bronze", medians)]


def main(key: str, directory: Path, n_reviews: int) -> None:
    """Run one program."""
    if key == "prepare":
        prepare(directory, n_reviews)
    else:
        print(json.dumps({"seconds": increment(directory, n_reviews, key)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
