"""Every benchmark, or those named, into BENCHMARKS.md.

    python -m tests.benchmarks                    # all: two hours on two cores
    python -m tests.benchmarks --only tables,rerun

Reads   the packaged reviews and backbone
Writes  BENCHMARKS.md; lakes and models in a temporary directory
"""

import datetime
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines import cli, program
from pipelines.cli import flag
from pipelines.provenance import git_commit, git_is_dirty
from pipelines.train.environment import cpu_flags
from tests.benchmarks import presets, rerun, scoring, tables, training
from tests.benchmarks.compare import RUNS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "BENCHMARKS.md"
HEAD = """\
# Benchmarks

Written by `make bench`. Each comparison runs its programs in turn, each run in a process of its own, so that a slow
minute of the machine hits all of them; a figure is the median of its runs. Read the ratios; the seconds are those of
the machine named below each table.
"""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Flags of the benchmarks."""

    only: str = flag("benchmarks to run, comma-separated; default all", "")
    runs: int = flag("runs of each program; their median counts", RUNS)

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"--runs must be 1 or more, got {self.runs}")
        if unknown := set(self.names) - set(BENCHMARKS):
            raise ValueError(
                f"--only must be of {', '.join(BENCHMARKS)}, got {', '.join(sorted(unknown))}"
            )

    @property
    def names(self) -> list[str]:
        """The benchmarks asked for, in the order given."""
        asked = [name.strip() for name in self.only.split(",") if name.strip()]
        return asked or list(BENCHMARKS)


BENCHMARKS: dict[str, tuple[str, Callable[[Path, int], list[str]]]] = {
    "training": ("Training", training.bench),
    "scoring": ("Scoring", scoring.bench),
    "tables": ("Ingest to gold", tables.bench),
    "growth": ("Ten times the rows", tables.bench_growth),
    "presets": ("Quality per minute", presets.bench),
    "rerun": ("A finished pipeline, run again", rerun.bench),
}


def machine() -> str:
    """Processor, cores and system, as far as the machine tells."""
    listing = Path("/proc/cpuinfo")
    found = (
        re.search(r"model name\s*: (.*)", listing.read_text(encoding="utf-8"))
        if listing.exists()
        else None
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    flags = ", ".join(name for name in cpu_flags() if "bf16" in name) or "no bf16"
    name = found[1] if found else platform.processor() or platform.machine()
    system = f"{memory_gb:.0f} GB, {platform.system()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {name} ({flags}), {system}"


def with_section(page: str, title: str, body: Sequence[str]) -> str:
    """The page with one section replaced, or added at the end."""
    section = "\n".join([f"## {title}", "", *body, ""])
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: section + "\n", page).rstrip() + "\n"
    return page.rstrip() + "\n\n" + section


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks and write each one's section as soon as it is done."""
    config = cli.parse(BenchmarkConfig, argv, __doc__)
    # Asked before the page is written: that alone would make the checkout dirty.
    commit = (
        f"commit {(git_commit() or 'unknown')[:10]}{', with changes' if git_is_dirty() else ''}"
    )
    for name in config.names:
        title, bench = BENCHMARKS[name]
        print(title, file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            body = bench(Path(directory), config.runs)
        stamp = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {commit}. {machine()}."
        page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else HEAD
        PAGE.write_text(with_section(page, title, [*body, "", stamp]), encoding="utf-8")
        print("\n".join(body))


if __name__ == "__main__":
    program.run(main)
