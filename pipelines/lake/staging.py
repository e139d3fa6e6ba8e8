"""Parquet files between two steps, so that Spark computes a frame once for several writes.

`persist` is no option: serverless compute has none, and a MERGE would run the Python function again
for each of its passes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pyspark.sql import DataFrame
from tqdm import tqdm

from pipelines.lake.locks import hold_in_java
from pipelines.lake.scratch import scratch
from pipelines.lake.tables import TableStore


@contextmanager
def staged(store: TableStore, frame: DataFrame, name: str) -> Iterator[DataFrame]:
    """Compute the frame once and read it back from Parquet."""
    with staged_parts(store, [frame], name) as rows:
        yield rows


@contextmanager
def staged_parts(store: TableStore, frames: Sequence[DataFrame], name: str) -> Iterator[DataFrame]:
    """Compute frames of one schema in turn, with a progress bar, and read them back as one."""
    config = store.config
    hold = partial(hold_in_java, store.spark if config.is_local else None)
    with scratch(config.landing_path, f"staging/{name}", hold) as directory:
        location = config.readable(directory / "rows")
        for frame in tqdm(frames, desc=name, unit=" parts", disable=len(frames) < 2):
            frame.write.mode("append").parquet(location)
        yield store.spark.read.parquet(location)
