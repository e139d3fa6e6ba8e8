"""The demo's pipeline on few reviews: run once to prepare, then again for what it costs to find all done.

python -m tests.benchmarks.rerun noted LAKE
"""

import json
import subprocess
import sys
from pathlib import Path

from pipelines import finished
from pipelines.lake.config import LakeConfig
from tests.benchmarks.compare import Program, alternate, seconds_of, table

DEMO = Path(__file__).resolve().parents[2] / "jobs" / "demo.py"
PROGRAMS = {
    "noted": "jobs/demo.py, all as the last one noted it",
    "asked": "jobs/demo.py without its note: every stage asks the ledger, by Spark",
}


def bench(directory: Path, runs: int) -> list[str]:
    """The whole pipeline where all is done already."""
    lake = str(directory / "lake")
    Program("prepare", "rerun", ["noted", lake]).prepare()
    timed = alternate([Program(name, "rerun", [key, lake]) for key, name in PROGRAMS.items()], runs)
    noted = timed[PROGRAMS["noted"]]["seconds"]
    rows = [
        [name, f"{one['seconds']:.1f}", f"{one['seconds'] / noted:.2f}"]
        for name, one in timed.items()
    ]
    return [
        f"On a lake where it has run before, start of Python and Spark included; medians of {runs} runs.",
        "",
        *table(["", "s", "times"], rows),
    ]


def main(key: str, lake: str) -> None:
    """Run the demo in a process of its own, from the start of Python to its end."""
    if key == "asked":
        (LakeConfig(lake=lake).landing_path / finished.FILE).unlink()
    command = [sys.executable, str(DEMO), "--lake", lake, "--max-rows", "2000"]
    seconds = seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
