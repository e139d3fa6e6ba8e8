"""Delivered records to bronze rows: staged for Spark, counted twice, compare_with_bronze with what is there."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from tqdm import tqdm

from pipelines.errors import InputError, IntegrityError
from pipelines.ingest.readers import Record
from pipelines.ingest.sources import Delivery, disk_faults_worded, read_records
from pipelines.provenance import sha256_of
from schemas import BRONZE_REVIEWS

BATCH_ROWS = 2_000  # few enough that Spark has several row groups for its cores
TEXTS = ("raw_text", "raw_label", "source_split", "read_fault")
STAGED = pa.schema(  # ordinal: from 1 over the staged rows, whatever their row_number
    [("ordinal", pa.int64()), ("source_file", pa.string()), ("row_number", pa.int64())]
    + [(name, pa.string()) for name in TEXTS]
)


@dataclass(frozen=True)
class StagedDelivery:
    """The records of one delivered file as Parquet, and what the strict reader counted."""

    parquet: Path
    source: str
    source_file: str
    source_sha256: str
    n_rows: int


@contextmanager
def staged_delivery(
    delivery: Delivery, file: Path, source_sha256: str, landing: Path
) -> Iterator[StagedDelivery]:
    """The delivered file's records in one Parquet file below `landing`, removed at the end; nothing on an error."""
    with disk_faults_worded(landing):
        landing.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="ingest-", dir=landing)
    with scratch as folder:
        parquet = Path(folder) / "records.parquet"
        with disk_faults_worded(landing):
            n_rows = write_records(read_records(delivery, file, Path(folder)), file.name, parquet)
            if (found := sha256_of(file)) != source_sha256:
                expected = (
                    f"expected SHA-256 {source_sha256} all the while, found {found} after reading"
                )
                raise IntegrityError(
                    f"{file.name}: {expected}. Nothing was written; ingest it once it is complete."
                )
        source = delivery.name or delivery.source.removesuffix("-zip").replace("-", "_")
        yield StagedDelivery(parquet, source, file.name, source_sha256, n_rows)


def write_records(records: Iterator[Record], file_name: str, parquet: Path) -> int:
    """Write the records in batches of BATCH_ROWS; returns how many there were."""
    n_rows = 0
    with (
        pq.ParquetWriter(parquet, STAGED, compression="zstd") as writer,  # type: ignore[no-untyped-call]
        tqdm(desc="read", unit=" rows", delay=2, disable=None) as bar,
    ):
        while batch := list(itertools.islice(records, BATCH_ROWS)):
            rows = [
                (n, "!".join(filter(None, (file_name, r.member))), r.row_number, r.text, r.label, r.split, r.fault)
                for n, r in enumerate(batch, start=n_rows + 1)
            ]  # fmt: skip
            columns = zip(zip(*rows, strict=True), STAGED, strict=True)
            batched = [pa.array(column, field.type) for column, field in columns]
            writer.write_batch(pa.record_batch(batched, schema=STAGED))
            n_rows += len(batch)
            bar.update(len(batch))
    return n_rows


def require_equal_counts(name: str, n_counted: int, n_read: int) -> None:
    """Raise IntegrityError unless Spark read as many rows as the strict reader counted."""
    if n_counted != n_read:
        raise IntegrityError(
            f"{name}: strict count found {n_counted:,} rows, Spark read {n_read:,}. "
            "Nothing was written. Check the disk under --landing, and ingest again."
        )


def evenly_spread(records: DataFrame, n_rows: int, max_rows: int) -> DataFrame:
    """Exactly `max_rows` of the `n_rows` records, evenly spread (files are sorted by label); all where it is 0."""
    if not 0 < max_rows < n_rows:
        return records
    nth = f"ordinal * {max_rows:d}L div {n_rows:d}L"
    before = f"(ordinal - 1) * {max_rows:d}L div {n_rows:d}L"
    return records.where(F.expr(f"{nth} > {before}"))


def bronze_rows(
    records: DataFrame, staged: StagedDelivery, batch_id: str, ingested_at: datetime
) -> DataFrame:
    """StagedDelivery records as rows of bronze.reviews."""
    constants = {
        "source": F.lit(staged.source), "source_sha256": F.lit(staged.source_sha256),
        "batch_id": F.lit(batch_id), "ingested_at": F.lit(ingested_at),
    }  # fmt: skip
    return records.select(
        *(constants.get(name, F.col(name)).alias(name) for name in BRONZE_REVIEWS.column_names)
    )


def compare_with_bronze(rows: DataFrame, bronze: DataFrame) -> dict[str, int]:
    """How many rows bronze lacks (added), holds (already_there), and holds with other columns (differing).

    A row is known by its file's content and its number: the same content under any name is the same row.
    """
    given = ("raw_text", "raw_label", "source_split")
    stored = bronze.select(
        *BRONZE_REVIEWS.key, *(F.col(c).alias(f"stored_{c}") for c in given), F.lit(1).alias("here")
    )
    differs = " OR ".join(f"NOT ({column} <=> stored_{column})" for column in given)
    counted = rows.join(stored, list(BRONZE_REVIEWS.key), "left").agg(
        F.expr("count_if(here IS NULL)").alias("added"),
        F.expr("count_if(here = 1)").alias("already_there"),
        F.expr(f"count_if(here = 1 AND ({differs}))").alias("differing"),
    )
    return counted.collect()[0].asDict()


def require_same(name: str, n_differing: int) -> None:
    """Raise InputError where bronze holds a record of the same file as other columns gave it: it is append-only."""
    if n_differing:
        raise InputError(
            f"{name}: expected the text, label and split that bronze.reviews has of it, found others in "
            f"{n_differing:,} rows. Name the columns as before; to correct them, use another --lake."
        )
