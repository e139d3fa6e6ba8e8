"""Training rows on disk: one memory-mapped Arrow file of gold.reviews, and flat token arrays made from it."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.errors import ContractError, IntegrityError
from pipelines.lake.delta_errors import reading
from pipelines.lake.frames import content_hash
from pipelines.lake.staging import staged
from pipelines.lake.tables import TableStore
from schemas import GOLD_REVIEWS

SPLITS = ("train", "validation", "test")
ARROW_TYPES = {"string": pa.string(), "int": pa.int32(), "boolean": pa.bool_()}
SCHEMA = pa.schema(
    [
        pa.field(column.name, ARROW_TYPES[column.type.simpleString()], column.nullable)
        for column in GOLD_REVIEWS.columns
    ]
)


@contextmanager
def snapshot_of(store: TableStore, version: int) -> Iterator[tuple[Path, str]]:
    """gold.reviews at one version as a file for `open_snapshot`, with its content hash.

    Raises IntegrityError (exit 3) unless the rows on disk are the rows of that version.
    """
    gold = store.read(GOLD_REVIEWS, version)
    with reading(
        f"gold.reviews version {version}", "jobs/doctor.py names it and what depends on it."
    ):
        expected = content_hash(gold)
    with (
        staged(store, gold.orderBy("review_id"), "snapshot") as rows,
        tempfile.TemporaryDirectory(prefix="snapshot-", dir=store.config.landing_path) as directory,
    ):
        found = content_hash(rows.select(*gold.columns))
        if found != expected:
            raise IntegrityError(
                f"gold.reviews version {version}: expected content hash {expected}, found {found} in what was read. "
                "Run the stage again; if it comes back, look at the disk."
            )
        # Spark names the parts in the order of the sort.
        files = sorted(Path(unquote(urlsplit(name).path)) for name in rows.inputFiles())
        write_snapshot(files, Path(directory) / "gold.arrow")
        yield Path(directory) / "gold.arrow", expected


def write_snapshot(parquet_files: Sequence[Path], target: Path) -> None:
    """Stream the rows of gold.reviews, given in order of review_id, into one Arrow file; whole or not at all.

    Each record batch written holds one split only, so that `rows_of` need not copy; order holds within a split.
    """
    partial = target.with_name(target.name + ".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for batch in _ordered_batches(parquet_files):
            splits = np.asarray(batch["split"])
            for split in SPLITS:
                rows = batch.filter(pa.array(splits == split))
                if rows.num_rows:
                    writer.write_batch(rows)
    os.replace(partial, target)


def open_snapshot(path: Path) -> pa.Table:
    """The snapshot, memory-mapped: text stays on disk until it is read."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def rows_of(snapshot: pa.Table, split: str) -> pa.Table:
    """The rows of one split in order of review_id; no text is copied."""
    batches = [batch for batch in snapshot.to_batches() if batch["split"][0].as_py() == split]
    return pa.Table.from_batches(batches, schema=snapshot.schema)


def labels_of(rows: pa.Table) -> NDArray[np.int64]:
    """Labels 0 and 1 of a split."""
    return np.asarray(rows["label"].to_numpy(), dtype=np.int64)


def _ordered_batches(parquet_files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """Every record batch, its columns checked against the contract and its order against the one before."""
    last = ""
    for file in parquet_files:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:  # type: ignore[no-untyped-call]
            _check_columns(parquet.schema_arrow)
            for batch in parquet.iter_batches(columns=SCHEMA.names):
                for review_id in batch["review_id"].to_pylist():
                    if review_id <= last:
                        raise IntegrityError(
                            f"{file.name}: expected review_id in ascending order without repeats, found {review_id} "
                            f"after {last}. Sort gold.reviews by review_id before taking the snapshot."
                        )
                    last = review_id
                yield pa.RecordBatch.from_arrays(
                    [batch[name] for name in SCHEMA.names], schema=SCHEMA
                )


def _check_columns(found: pa.Schema) -> None:
    for field in SCHEMA:
        if field.name not in found.names:
            raise ContractError(
                f"{GOLD_REVIEWS.name}.{field.name}: expected {field.type}, found no such column. "
                f"Columns given: {', '.join(found.names)}."
            )
        if found.field(field.name).type != field.type:
            raise ContractError(
                f"{GOLD_REVIEWS.name}.{field.name}: expected {field.type}, found {found.field(field.name).type}."
            )
