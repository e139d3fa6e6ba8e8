"""One delivered file, staged as a job does it, without Spark."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.ingest.files import FoundFile
from pipelines.ingest.reading import HashedFile, StagedFile, staged_files
from pipelines.ingest.sources import Delivery

NO_SPARK: Any = None  # a single file is read in this process


@contextmanager
def staged_delivery(
    delivery: Delivery, file: Path, sha256: str, landing: Path
) -> Iterator[StagedFile]:
    """Stage a file of this SHA-256 below `landing`; raise the error for which it is refused."""
    with staged_files(NO_SPARK, delivery, [HashedFile(FoundFile.at(file), sha256)], landing) as [
        staged
    ]:
        if staged.error:
            raise staged.error
        yield staged
