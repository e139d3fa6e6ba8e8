"""Parquet files between two steps, so that Spark computes a frame once for several writes.

`persist` is no option: serverless compute has none, and a MERGE would run the Python function again
for each of its passes.
"""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import DataFrame
from tqdm import tqdm

from pipelines.lake.tables import TableStore

# Copies of reviews and models that runs leave below the landing directory; a vacuum clears them.
LEFTOVERS = ("staging/*", "models/*", "ingest-*", "snapshot-*")


@contextmanager
def staged(store: TableStore, frame: DataFrame, name: str) -> Iterator[DataFrame]:
    """Compute the frame once and read it back from Parquet."""
    with staged_parts(store, [frame], name) as rows:
        yield rows


@contextmanager
def staged_parts(store: TableStore, frames: Sequence[DataFrame], name: str) -> Iterator[DataFrame]:
    """Compute frames of one schema in turn, with a progress bar, and read them back as one."""
    directory = staging_directory(store.config.landing_path, name)
    location = store.config.readable(directory)
    try:
        for frame in tqdm(frames, desc=name, unit=" parts", disable=len(frames) < 2):
            frame.write.mode("append").parquet(location)
        yield store.spark.read.parquet(location)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def staging_directory(landing: Path, name: str) -> Path:
    """Return a new name below the landing directory."""
    return landing / "staging" / f"{name}-{uuid.uuid4().hex}"
