"""Run programs alternately, each in its own process that prints its figures; take the medians."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]  # it has no stubs in the lock

RUNS = 5
POLL_S = 1.0
MEMORY_FIGURES = ("driver_mib", "jvm_mib", "workers_mib")
Figures = dict[str, float]  # by name, such as "seconds"


@dataclass(frozen=True)
class Program:
    """A program to compare: the module of tests.benchmarks that runs it, and its arguments.

    The last line that it prints is JSON with at least `seconds`, the time to compare.
    """

    name: str  # in the table
    module: str
    arguments: Sequence[str]

    def run(self) -> Figures:
        """Return the figures of one run, and the peak memory in MiB of driver, JVM and workers."""
        with (
            subprocess.Popen(
                self._command, stdout=subprocess.PIPE, text=True, env=self._environment
            ) as process,
            peaks_of(process.pid) as peaks,
        ):
            printed, _ = process.communicate()
        if process.returncode != 0:
            command = " ".join(self._command)
            raise RuntimeError(f"{command}: expected exit code 0, found {process.returncode}")
        figures: Figures = json.loads(printed.splitlines()[-1])
        return figures | peaks.mib

    def prepare(self) -> None:
        """Run the program for its files; its figures are ignored."""
        subprocess.run(self._command, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", f"tests.benchmarks.{self.module}", *self.arguments]

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def alternate(programs: Sequence[Program], runs: int = RUNS) -> dict[str, Figures]:
    """Run programs in the order A B C A B C …; return the medians of each by its name.

    A slow minute of the machine then affects all programs.
    """
    figures: dict[str, list[Figures]] = {program.name: [] for program in programs}
    for number in range(1, runs + 1):
        for program in programs:
            measured = program.run()
            figures[program.name].append(measured)
            progress = f"run {number}/{runs}  {program.name}: {measured['seconds']:.1f} s"
            print(f"  {progress}", file=sys.stderr)
    return {name: medians(runs_of_program) for name, runs_of_program in figures.items()}


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def medians(runs: Sequence[Mapping[str, float]]) -> Figures:
    """Return the median of each figure over the runs."""
    return {name: statistics.median(figures[name] for figures in runs) for name in runs[0]}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table whose columns after the first hold figures."""
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows)]


def table_of_growth(head: str, medians_by_name: Mapping[str, Figures]) -> list[str]:
    """Return a table of time, also relative to the first program, and of peak memory."""
    first = next(iter(medians_by_name.values()))
    rows = []
    for name, figures in medians_by_name.items():
        times = [f"{figures['seconds']:.1f}", f"{figures['seconds'] / first['seconds']:.2f}"]
        rows.append([name, *times, *[f"{figures[kind]:,.0f}" for kind in MEMORY_FIGURES]])
    heads = [head, "s", "relative time", "driver MiB", "JVM MiB", "workers MiB"]
    return table(heads, rows)


@dataclass
class Peaks:
    """The highest resident memory of a process and its descendants, by kind of process."""

    mib: Figures = field(default_factory=lambda: dict.fromkeys(MEMORY_FIGURES, 0.0))

    def update(self, pid: int) -> None:
        """Measure the present sizes and keep the higher ones."""
        sizes = dict.fromkeys(MEMORY_FIGURES, 0.0)
        try:
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                kind = "driver_mib" if process.pid == pid else _kind(process)
                sizes[kind] += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            return
        for kind, size in sizes.items():
            self.mib[kind] = max(self.mib[kind], size)


def _kind(process: psutil.Process) -> str:
    return "jvm_mib" if process.name() == "java" else "workers_mib"


@contextmanager
def peaks_of(pid: int) -> Iterator[Peaks]:
    """Measure the memory of a process and its descendants while the block runs."""
    peaks = Peaks()
    is_over = threading.Event()

    def poll() -> None:
        while not is_over.wait(POLL_S):
            peaks.update(pid)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        is_over.set()
        thread.join()
