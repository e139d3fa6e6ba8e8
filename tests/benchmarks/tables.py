"""From a file to gold.reviews: three jobs compared with a copy from CSV to Parquet by Spark alone.

    python -m tests.benchmarks.tables prepare DIRECTORY 25000
    python -m tests.benchmarks.tables ours DIRECTORY 25000

DIRECTORY holds reviews-25000.csv, which `prepare` writes.
"""

import csv
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from jobs import clean, curate, ingest
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from tests.benchmarks.compare import Program, alternate, seconds_of, table, table_of_growth
from tests.benchmarks.reviews import packaged_reviews

N_REVIEWS = 25_000
SMALL = 10_000
LARGE = 100_000
COLUMNS = ("text", "label")


def prepare(directory: Path, n_reviews: int) -> None:
    """Write packaged reviews as CSV, repeated as needed; each copy has its own first word."""
    texts, labels = packaged_reviews(N_REVIEWS)
    with (directory / f"reviews-{n_reviews}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(n_reviews):
            copy, row = divmod(number, N_REVIEWS)
            writer.writerow((f"copy{copy} {texts[row]}", labels[row]))


def ours(file: Path, target: Path) -> Callable[[], Any]:
    """Prepare jobs/ingest.py, jobs/clean.py and jobs/curate.py in one process."""
    get_session("bench", LakeConfig(lake=str(target)))
    lake = ["--lake", str(target)]
    source = ["--source", "csv", "--path", str(file), "--name", "imdb", "--label-column", "label"]

    def run_jobs() -> None:
        ingest.main([*lake, *source])
        clean.main(lake)
        curate.main(lake)

    return run_jobs


def plain(file: Path, target: Path) -> Callable[[], Any]:
    """Prepare a copy by Spark's CSV reader to Parquet that only checks each text and label."""
    spark = get_session("bench", LakeConfig(lake=str(target)))

    def copy_rows() -> None:
        label = F.col("label").cast("int").alias("label")
        reading = spark.read.csv(str(file), header=True, multiLine=True, escape='"')
        rows = reading.select("text", label)
        is_valid = F.col("text").isNotNull() & (F.length("text") > 0) & F.col("label").isin(0, 1)
        check = F.assert_true(is_valid, F.lit("a row breaks a check")).isNull()
        checked = rows.withColumn("is_valid", check)
        checked.where("is_valid").drop("is_valid").write.parquet(str(target / "reviews"))

    return copy_rows


# By key, the name in the table and a function that prepares one run.
PROGRAMS: dict[str, tuple[str, Callable[[Path, Path], Callable[[], Any]]]] = {
    "ours": ("ingest, clean, curate", ours),
    "plain": ("Spark, CSV to Parquet with checks", plain),
}


def program(key: str, directory: Path, n_reviews: int) -> Program:
    """Return one of the programs, to run over the first `n_reviews` reviews."""
    return Program(PROGRAMS[key][0], "tables", [key, str(directory), str(n_reviews)])


def bench(directory: Path, runs: int) -> list[str]:
    """Compare the three jobs with a plain copy."""
    Program("prepare", "tables", ["prepare", str(directory), str(N_REVIEWS)]).prepare()
    medians = alternate([program(key, directory, N_REVIEWS) for key in PROGRAMS], runs)
    copy_name, _ = PROGRAMS["plain"]
    copy_seconds = medians[copy_name]["seconds"]
    rows = [
        [name, f"{figures['seconds']:.1f}", f"{figures['seconds'] / copy_seconds:.2f}"]
        for name, figures in medians.items()
    ]
    words = (
        f"{N_REVIEWS:,} reviews from a CSV file to gold.reviews. The jobs write five tables and "
        f"the ledger. Medians of {runs} runs."
    )
    return [words, "", *table(["", "s", "relative time"], rows)]


def bench_growth(directory: Path, runs: int) -> list[str]:
    """Compare the three jobs over some reviews with the same jobs over ten times as many."""
    compared = []
    for n_reviews in (SMALL, LARGE):
        Program("prepare", "tables", ["prepare", str(directory), str(n_reviews)]).prepare()
        jobs = program("ours", directory, n_reviews)
        compared.append(dataclasses.replace(jobs, name=f"{n_reviews:,} reviews"))
    medians = alternate(compared, runs)
    words = (
        f"From a CSV file to gold.reviews. The {LARGE:,} reviews are the packaged ones four times, "
        "each copy with its own first word. Time, and peak resident memory of the driver's Python "
        f"process, of the JVM and of the workers. Medians of {runs} runs."
    )
    return [words, "", *table_of_growth("", medians)]


def main(key: str, directory: Path, n_reviews: int) -> None:
    """Run one program into an empty directory; Spark starts before the clock does."""
    target = directory / f"lake-{key}"
    shutil.rmtree(target, ignore_errors=True)
    _, prepare_run = PROGRAMS[key]
    run = prepare_run(directory / f"reviews-{n_reviews}.csv", target)
    print(json.dumps({"seconds": seconds_of(run)}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
