"""A fault of a lake, as jobs/doctor.py prints it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from pipelines.errors import ConflictError, JobError, SetupError
from pipelines.lake.delta_errors import file_fault

RESTORE = "Restore it from a backup"


@dataclass(frozen=True)
class Fault:
    """A fault: its place, the problem, and how to fix it."""

    where: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.fix}."


def caught(where: str, read: Callable[[], object], fix: str) -> Iterator[Fault]:
    """Yield the fault that `read` raises, without review text; nothing if it succeeds."""

    def faults() -> Iterator[Fault]:
        read()
        yield from ()

    yield from guarded(where, faults(), fix)


def guarded(where: str, faults: Iterable[Fault], fix: str) -> Iterator[Fault]:
    """Yield faults, and as the last one the error that ends the search for more of them.

    An error of this machine, or a lock that another process holds, is no fault of the lake.
    """
    try:
        yield from faults
    except (SetupError, ConflictError):
        raise
    except JobError as error:
        yield Fault(where, str(error).rstrip("."), fix)
    except (PySparkException, Py4JError) as error:
        yield Fault(where, file_fault(error), fix)
