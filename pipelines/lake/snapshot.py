"""One version of gold.reviews as one memory-mapped Arrow file, for training."""

import os
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
from pipelines.lake.scratch import scratch
from pipelines.lake.staging import staged
from pipelines.lake.tables import TableStore
from schemas import GOLD_REVIEWS, SPLITS, Table

ARROW_TYPES = {"string": pa.string(), "int": pa.int32(), "boolean": pa.bool_()}
SCHEMA = pa.schema(
    [
        pa.field(column.name, ARROW_TYPES[column.type], column.nullable)
        for column in GOLD_REVIEWS.columns
    ]
)


def data_tags(store: TableStore, table: Table, version: int, content_hash: str) -> dict[str, str]:
    """Return the tags of a run that read this version: table, id, version, content hash."""
    detail = store.sql(f"DESCRIBE DETAIL {table.name}").select("id").first()
    return {
        "delta.table": table.name,
        "delta.table_id": detail["id"] if detail else "",
        "delta.version": str(version),
        "content_hash": content_hash,
    }


@contextmanager
def snapshot_of(store: TableStore, version: int) -> Iterator[tuple[Path, str]]:
    """Yield gold.reviews at one version as a file for `open_snapshot`, and its content hash.

    Raises IntegrityError (exit 3) unless the rows in the file are the rows of that version.
    """
    gold = store.read(GOLD_REVIEWS, version)
    advice = "jobs/doctor.py names it and the models that depend on it."
    with reading(f"gold.reviews version {version}", advice):
        expected_hash = content_hash(gold)
    with (
        staged(store, gold.orderBy("review_id"), "snapshot") as rows,
        scratch(store.config.landing_path, "snapshot") as directory,
    ):
        actual_hash = content_hash(rows.select(*gold.columns))
        if actual_hash != expected_hash:
            raise IntegrityError(
                f"gold.reviews version {version}: expected content hash {expected_hash}, found "
                f"{actual_hash} in the rows that were read. Run the stage again; if it happens "
                "again, check the disk."
            )
        # Spark names the part files in the order of the sort.
        parts = sorted(Path(unquote(urlsplit(uri).path)) for uri in rows.inputFiles())
        snapshot = directory / "gold.arrow"
        write_snapshot(parts, snapshot)
        yield snapshot, expected_hash


def write_snapshot(parquet_files: Sequence[Path], target: Path) -> None:
    """Stream gold.reviews, sorted by review_id, into one Arrow file; whole or not at all.

    Each record batch holds one split, so that `rows_of` copies nothing. Within a split the order
    stays that of review_id.
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
    """Return the memory-mapped snapshot: text stays on disk until it is read."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def rows_of(snapshot: pa.Table, split: str) -> pa.Table:
    """Return the rows of one split, sorted by review_id; no text is copied."""
    batches = [batch for batch in snapshot.to_batches() if batch["split"][0].as_py() == split]
    return pa.Table.from_batches(batches, schema=snapshot.schema)


def labels_of(rows: pa.Table) -> NDArray[np.int64]:
    """Return the labels 0 and 1 of a split, (n_rows,)."""
    return np.asarray(rows["label"].to_numpy(), dtype=np.int64)


def _ordered_batches(parquet_files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """Yield every record batch, its columns checked against the contract and its order checked."""
    last_id = ""
    for file in parquet_files:
        with pq.ParquetFile(  # type: ignore[no-untyped-call]  # pyarrow has no types
            file, page_checksum_verification=True
        ) as parquet:
            _check_columns(parquet.schema_arrow)
            for batch in parquet.iter_batches(columns=SCHEMA.names):
                for review_id in batch["review_id"].to_pylist():
                    if review_id <= last_id:
                        raise IntegrityError(
                            f"{file.name}: expected review_id in ascending order without repeats, "
                            f"found {review_id} after {last_id}. Sort gold.reviews by review_id "
                            "before taking the snapshot."
                        )
                    last_id = review_id
                columns = [batch[name] for name in SCHEMA.names]
                yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _check_columns(schema: pa.Schema) -> None:
    for field in SCHEMA:
        where = f"{GOLD_REVIEWS.name}.{field.name}"
        if field.name not in schema.names:
            raise ContractError(
                f"{where}: expected {field.type}, found no such column. "
                f"Columns given: {', '.join(schema.names)}."
            )
        actual = schema.field(field.name).type
        if actual != field.type:
            raise ContractError(f"{where}: expected {field.type}, found {actual}.")
