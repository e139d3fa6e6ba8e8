"""Run all or some benchmarks and write their results into BENCHMARKS.md.

    python -m tests.benchmarks                       # all: two hours on two cores
    python -m tests.benchmarks --only tables,rerun   # two of them

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
from tests.benchmarks import delivery, presets, rerun, scoring, tables, training
from tests.benchmarks.compare import RUNS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "BENCHMARKS.md"
HEAD = """\
# Benchmarks

Written by `make bench`. Each comparison runs its programs alternately, each run in its own process,
so that a slow minute of the machine affects all of them. A figure is the median of its runs.
Compare the ratios: the seconds depend on the machine, which is named below each table.
"""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Flags of the benchmarks."""

    only: str = flag("benchmarks to run, comma-separated; empty = all", "")
    runs: int = flag("runs of each program, of which the median is reported", RUNS)

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"--runs must be 1 or more, got {self.runs}")
        unknown = sorted(set(self.names) - set(BENCHMARKS))
        if unknown:
            known = ", ".join(BENCHMARKS)
            raise ValueError(f"--only must be one or more of {known}, got {', '.join(unknown)}")

    @property
    def names(self) -> list[str]:
        """The benchmarks to run, in the order given; all if none is given."""
        given = [name.strip() for name in self.only.split(",") if name.strip()]
        return given or list(BENCHMARKS)


# By the name for --only, the section's title and a function that returns its lines.
BENCHMARKS: dict[str, tuple[str, Callable[[Path, int], list[str]]]] = {
    "training": ("Training", training.bench),
    "scoring": ("Scoring", scoring.bench),
    "tables": ("Ingest to gold", tables.bench),
    "growth": ("Ten times the rows", tables.bench_growth),
    "delivery": ("A delivery of 1,000 reviews", delivery.bench),
    "presets": ("Quality per minute", presets.bench),
    "rerun": ("A finished pipeline, run again", rerun.bench),
}


def machine() -> str:
    """Describe processor, cores, memory and system, as far as they are known."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    flags = ", ".join(name for name in cpu_flags() if "bf16" in name) or "no bf16"
    system = f"{memory_gb:.0f} GB, {platform.system()}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {processor()} ({flags}), {system}"


def processor() -> str:
    """Return the processor's model name, or its architecture where the name is unknown."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        model_name = re.search(r"model name\s*: (.*)", listing.read_text(encoding="utf-8"))
        if model_name:
            return model_name[1]
    return platform.processor() or platform.machine()


def commit_label() -> str:
    """Name the commit of the code that runs, and say if the checkout has changes."""
    changes = ", with changes" if git_is_dirty() else ""
    return f"commit {(git_commit() or 'unknown')[:10]}{changes}"


def with_section(page: str, title: str, body: Sequence[str]) -> str:
    """Return the page with one section replaced, or added at the end if it is new."""
    section = "\n".join([f"## {title}", "", *body, ""])
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: section + "\n", page).rstrip() + "\n"
    return page.rstrip() + "\n\n" + section


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks; write each section as soon as its benchmark has finished."""
    config = cli.parse(BenchmarkConfig, argv, __doc__)
    commit = commit_label()  # before the page is written, which makes the checkout dirty
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
