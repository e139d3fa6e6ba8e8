"""From a file to gold.reviews: the three jobs against a copy from CSV to Parquet by Spark alone.

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
from tests.benchmarks.compare import Program, alternate, seconds_of, table
from tests.benchmarks.reviews import packaged_reviews

N_REVIEWS = 25_000
FEW, MANY = 10_000, 100_000
COLUMNS = ("text", "label")


def prepare(directory: Path, n_reviews: int) -> None:
    """So many packaged reviews, from the first again where they do not suffice; a copy's first word tells it apart."""
    texts, labels = packaged_reviews(N_REVIEWS)
    with (directory / f"reviews-{n_reviews}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in range(n_reviews):
            copy, of = divmod(row, N_REVIEWS)
            writer.writerow((f"copy{copy} {texts[of]}", labels[of]))


def ours(file: Path, target: Path) -> Callable[[], Any]:
    """jobs/ingest.py, jobs/clean.py and jobs/curate.py in one process."""
    get_session("bench", LakeConfig(lake=str(target)))

    def run() -> None:
        ingest.main(
            [
                "--lake",
                str(target),
                "--source",
                "csv",
                "--path",
                str(file),
                "--name",
                "imdb",
                "--label-column",
                "label",
            ]
        )
        clean.main(["--lake", str(target)])
        curate.main(["--lake", str(target)])

    return run


def plain(file: Path, target: Path) -> Callable[[], Any]:
    """Spark's CSV reader to Parquet, each row held against the checks of a text and a label; nothing else."""
    spark = get_session("bench", LakeConfig(lake=str(target)))

    def run() -> None:
        rows = spark.read.csv(str(file), header=True, multiLine=True, escape='"').select(
            "text", F.col("label").cast("int").alias("label")
        )
        is_sound = F.col("text").isNotNull() & (F.length("text") > 0) & F.col("label").isin(0, 1)
        checked = rows.withColumn(
            "is_sound", F.assert_true(is_sound, F.lit("a row breaks a check")).isNull()
        )
        checked.where("is_sound").drop("is_sound").write.parquet(str(target / "reviews"))

    return run


PROGRAMS = {
    "ours": ("ingest, clean, curate", ours),
    "plain": ("Spark, CSV to Parquet with checks", plain),
}


def program(key: str, directory: Path, n_reviews: int) -> Program:
    """One of the programs over so many reviews."""
    return Program(PROGRAMS[key][0], "tables", [key, str(directory), str(n_reviews)])


def bench(directory: Path, runs: int) -> list[str]:
    """The three jobs against a plain copy."""
    Program("prepare", "tables", ["prepare", str(directory), str(N_REVIEWS)]).prepare()
    timed = alternate([program(key, directory, N_REVIEWS) for key in PROGRAMS], runs)
    plain = timed[PROGRAMS["plain"][0]]["seconds"]
    rows = [
        [name, f"{one['seconds']:.1f}", f"{one['seconds'] / plain:.2f}"]
        for name, one in timed.items()
    ]
    words = (
        f"{N_REVIEWS:,} reviews from a CSV file to gold.reviews, five tables and the ledger on the way; "
        f"medians of {runs} runs."
    )
    return [words, "", *table(["", "s", "times the copy"], rows)]


def bench_growth(directory: Path, runs: int) -> list[str]:
    """The three jobs over some reviews, and over ten times as many."""
    named = {}
    for n_reviews in (FEW, MANY):
        Program("prepare", "tables", ["prepare", str(directory), str(n_reviews)]).prepare()
        named[n_reviews] = dataclasses.replace(
            program("ours", directory, n_reviews), name=f"{n_reviews:,} reviews"
        )
    timed = alternate(list(named.values()), runs)
    few = timed[named[FEW].name]["seconds"]
    rows = [
        [name, f"{one['seconds']:.1f}", f"{one['seconds'] / few:.2f}"]
        + [f"{one[kind]:,.0f}" for kind in ("driver_mib", "jvm_mib", "workers_mib")]
        for name, one in timed.items()
    ]
    words = (
        f"From a CSV file to gold.reviews; {MANY:,} are the packaged reviews four times over, each copy with a word of "
        f"its own. Medians of {runs} runs: time, and peak resident memory in MiB of the driver's Python, the JVM and "
        "the workers."
    )
    return [words, "", *table(["", "s", "times", "driver", "JVM", "workers"], rows)]


def main(key: str, directory: Path, n_reviews: int) -> None:
    """Run one program into an empty place; the session stands before the clock starts."""
    target = directory / f"lake-{key}"
    shutil.rmtree(target, ignore_errors=True)
    print(
        json.dumps(
            {
                "seconds": seconds_of(
                    PROGRAMS[key][1](directory / f"reviews-{n_reviews}.csv", target)
                )
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
