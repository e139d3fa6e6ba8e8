"""Programs run in turn, each in a process of its own that says what it measured; medians and their ratios."""

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

import psutil  # type: ignore[import-untyped]

RUNS = 5
POLL_S = 1.0
Figures = dict[str, float]


@dataclass(frozen=True)
class Program:
    """A program of a comparison: what it is called, and the module of tests.benchmarks that runs it, with its words.

    The last line that it prints is JSON: at least `seconds`, the span that counts.
    """

    name: str
    module: str
    words: Sequence[str]

    def run(self) -> Figures:
        """What one run measured, and the peak memory in MiB of its process, of its JVM and of its Python workers."""
        with (
            subprocess.Popen(
                self._command, stdout=subprocess.PIPE, text=True, env=self._environment
            ) as process,
            peaks_of(process.pid) as peaks,
        ):
            printed, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(
                f"{' '.join(self._command)}: expected exit code 0, found {process.returncode}"
            )
        figures: Figures = json.loads(printed.splitlines()[-1])
        return figures | peaks.mib

    def prepare(self) -> None:
        """Run it for what it leaves, not for its figures."""
        subprocess.run(self._command, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", f"tests.benchmarks.{self.module}", *self.words]

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def alternate(programs: Sequence[Program], runs: int = RUNS) -> dict[str, Figures]:
    """The median of each figure of each program, by its name; run A B C A B C …, so that a slow minute hits all."""
    found: dict[str, list[Figures]] = {program.name: [] for program in programs}
    for number in range(1, runs + 1):
        for program in programs:
            found[program.name].append(program.run())
            print(
                f"  run {number}/{runs}  {program.name}: {found[program.name][-1]['seconds']:.1f} s",
                file=sys.stderr,
            )
    return {name: medians(figures) for name, figures in found.items()}


def seconds_of(run: Callable[[], object]) -> float:
    """Time that a call takes."""
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s


def medians(figures: Sequence[Mapping[str, float]]) -> Figures:
    """The median of each figure over the runs."""
    return {key: statistics.median(one[key] for one in figures) for key in figures[0]}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; all columns but the first are figures."""
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, ruler, *rows)]


@dataclass
class Peaks:
    """Highest resident memory seen of a process and of those below it, by what they are."""

    mib: Figures = field(
        default_factory=lambda: {"driver_mib": 0.0, "jvm_mib": 0.0, "workers_mib": 0.0}
    )

    def look(self, pid: int) -> None:
        """Take the sizes of now."""
        now = dict.fromkeys(self.mib, 0.0)
        try:
            root = psutil.Process(pid)
            for process in [root, *root.children(recursive=True)]:
                kind = "driver_mib" if process.pid == pid else _kind(process)
                now[kind] += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            return
        for kind, size in now.items():
            self.mib[kind] = max(self.mib[kind], size)


def _kind(process: psutil.Process) -> str:
    return "jvm_mib" if process.name() == "java" else "workers_mib"


@contextmanager
def peaks_of(pid: int) -> Iterator[Peaks]:
    """The peaks of a process tree, filled while the block runs."""
    peaks, is_over = Peaks(), threading.Event()

    def poll() -> None:
        while not is_over.wait(POLL_S):
            peaks.look(pid)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        is_over.set()
        thread.join()
