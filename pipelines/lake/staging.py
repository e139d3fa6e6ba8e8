"""Parquet between two steps: what is computed once, though several tables are written from it."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyspark.sql import DataFrame
from tqdm import tqdm

from pipelines.lake.tables import TableStore


@contextmanager
def staged(store: TableStore, frame: DataFrame, name: str) -> Iterator[DataFrame]:
    """The frame, computed once and read back from Parquet.

    Not `persist`: serverless has none, and a MERGE would run the Python function again for each pass.
    """
    with staged_parts(store, [frame], name) as rows:
        yield rows


@contextmanager
def staged_parts(store: TableStore, frames: Sequence[DataFrame], name: str) -> Iterator[DataFrame]:
    """Frames of one schema, computed in turn with a progress bar and read back as one from Parquet."""
    directory = store.config.landing_path / "staging" / f"{name}-{uuid.uuid4().hex}"
    try:
        for frame in tqdm(frames, desc=name, unit=" parts", disable=len(frames) < 2):
            frame.write.mode("append").parquet(store.config.readable(directory))
        yield store.spark.read.parquet(store.config.readable(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
