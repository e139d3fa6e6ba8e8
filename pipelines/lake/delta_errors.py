"""What Delta says when it refuses a write or cannot read, in one line and without the row."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from pipelines.errors import ConflictError, IntegrityError
from schemas import Table


def worded(error: PySparkException | Py4JJavaError, table: Table) -> Exception:
    """Delta's refusal in one line, without the row that caused it: it may hold a review's text."""
    message = str(error)
    if broken := re.search(
        r"CHECK constraint (\w+)|NOT NULL constraint violated for column: ([\w.]*\w)", message
    ):
        rule = broken.group(1) or f"{broken.group(2)} NOT NULL"
        return IntegrityError(
            f"{table.name}: expected rows that satisfy {rule}, found one that does not. "
            "Nothing was written. Fix the transformation, or change the contract in schemas/."
        )
    if "DELTA_CONCURRENT" in message:
        return ConflictError(f"{table.name}: another writer committed first. Run the stage again.")
    return error


@contextmanager
def reading(what: str, advice: str) -> Iterator[None]:
    """Raise IntegrityError where the rows of a version, which are read inside, are not to be had any more."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise IntegrityError(
            f"{what}: expected files that can be read, found one that cannot. {advice}"
        ) from error
