"""Jobs with nothing to do: how long each takes to say so, and how long if it asks through Spark.

python -m tests.benchmarks.rerun clean LAKE
"""

import json
import subprocess
import sys
from pathlib import Path

from pyspark.sql import functions as F

from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from schemas import OPS_RUNS, SILVER_REVIEWS
from tests.benchmarks.compare import Program, alternate, seconds_of, table

JOBS = Path(__file__).resolve().parents[2] / "jobs"
BASELINE = "the ledger and one table asked through Spark, as until 2026-11-27"
FLAGS = {
    "ingest": ["--max-rows", "2000"],
    "clean": [],
    "curate": [],
    "train": ["--batch-size", "8"],
    "score": ["--model", "challenger"],
    "demo": ["--max-rows", "2000"],
}


def bench(directory: Path, runs: int) -> list[str]:
    """Compare each finished job, and the whole finished demo, with the baseline."""
    lake = str(directory / "lake")
    Program("prepare", "rerun", ["demo", lake]).prepare()
    programs = [Program(f"jobs/{job}.py", "rerun", [job, lake]) for job in FLAGS]
    timed = alternate([*programs, Program(BASELINE, "rerun", ["spark", lake])], runs)
    baseline_s = timed[BASELINE]["seconds"]
    rows = []
    for name, figures in timed.items():
        seconds = figures["seconds"]
        rows.append([name, f"{seconds:.1f}", f"{seconds / baseline_s:.2f}"])
    return [
        "On a lake of 2,000 reviews where every stage is done, from the start of Python to its "
        f"end; medians of {runs} runs.",
        "",
        *table(["", "s", "times"], rows),
    ]


def ask_through_spark(lake: str) -> None:
    """Open the lake in Spark and ask the ledger for a run: what a job did before its first work."""
    config = LakeConfig(lake=lake)
    store = TableStore(get_session("rerun", config), config)
    latest = store.read(OPS_RUNS).where(F.col("stage") == "clean").orderBy(F.desc("finished_at"))
    row = latest.select("output_versions").first()
    assert row is not None
    assert row["output_versions"][SILVER_REVIEWS.name] == store.version(SILVER_REVIEWS)


def main(program: str, lake: str) -> None:
    """Run one program in a process of its own and print the seconds that it took."""
    command = [sys.executable, "-m", "tests.benchmarks.rerun", "ask", lake]
    if program in FLAGS:
        command = [sys.executable, str(JOBS / f"{program}.py"), "--lake", lake, *FLAGS[program]]
    seconds = seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    program_name, lake_directory = sys.argv[1:]
    if program_name == "ask":
        ask_through_spark(lake_directory)
    else:
        main(program_name, lake_directory)
