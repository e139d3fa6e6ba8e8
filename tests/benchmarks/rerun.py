"""The demo's pipeline on few reviews: run once to prepare, then again for what it costs to find all done.

python -m tests.benchmarks.rerun LAKE
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.compare import Program, alternate, seconds_of, table

DEMO = Path(__file__).resolve().parents[2] / "jobs" / "demo.py"


def bench(directory: Path, runs: int) -> list[str]:
    """The whole pipeline where all is done already."""
    lake = str(directory / "lake")
    Program("prepare", "rerun", [lake]).prepare()
    timed = alternate([Program("pipeline, all done", "rerun", [lake])], runs)
    rows = [[name, f"{one['seconds']:.1f}"] for name, one in timed.items()]
    return [
        "`jobs/demo.py` on a lake where it has run before, start of Python and Spark included; "
        f"the median of {runs} runs.",
        "",
        *table(["", "s"], rows),
    ]


def main(lake: str) -> None:
    """Run the demo in a process of its own, from the start of Python to its end."""
    command = [sys.executable, str(DEMO), "--lake", lake, "--max-rows", "2000"]
    seconds = seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1])
