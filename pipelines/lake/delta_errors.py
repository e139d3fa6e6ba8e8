"""Delta and Spark errors as JobErrors: one line, without the row, which may be a review."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from pipelines.errors import ConflictError, IntegrityError, JobError
from pipelines.program import from_disk
from schemas import Table

CHECK = re.compile(r"CHECK constraint (\w+)")
NOT_NULL = re.compile(r"NOT NULL constraint violated for column: ([\w.]*\w)")
DATA_FILE = re.compile(r"\w:/+(\S+?\.(?:parquet|json))")
MISSING = re.compile(
    r"does not exist|FILE_NOT_EXIST|FileNotFound|no such file", flags=re.IGNORECASE
)


def write_error(error: PySparkException | Py4JJavaError, table: Table) -> Exception:
    """Return the error to raise for a refused write; an unknown one is returned as it is."""
    message = str(error)
    rule = None
    if check := CHECK.search(message):
        rule = check[1]
    elif not_null := NOT_NULL.search(message):
        rule = f"{not_null[1]} NOT NULL"
    if rule:
        return IntegrityError(
            f"{table.name}: expected rows that satisfy {rule}, found one that does not. "
            "Nothing was written. Fix the transformation, or change the contract in schemas/."
        )
    if "DELTA_CONCURRENT" in message:
        return ConflictError(f"{table.name}: another writer committed first. Run the stage again.")
    return error


@contextmanager
def reading(what: str, advice: str) -> Iterator[None]:
    """Raise IntegrityError if the files of a table version cannot be read inside this block."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        if isinstance(disk_error := from_disk(error), JobError):
            raise disk_error from error
        raise IntegrityError(f"{what}: a data file cannot be read. {advice}") from error


def file_fault(error: BaseException) -> str:
    """Return which data file is missing or damaged, from a message of Spark or Delta."""
    message = str(error)
    file = DATA_FILE.search(message)
    name = file[1].rpartition("/")[2] if file else "a file"
    if "checksum" in message.lower():
        return f"{name} is damaged: its checksum does not match"
    return f"{name} is missing" if MISSING.search(message) else f"{name} cannot be read"
