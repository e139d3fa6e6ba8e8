"""Turn delivered records into bronze rows: stage them for Spark and compare them with bronze."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from tqdm import tqdm

from pipelines.errors import ConflictError, ContractError, InputError, IntegrityError
from pipelines.ingest.labels import LabelColumn
from pipelines.ingest.records import Record, shown_names
from pipelines.ingest.sources import Delivery, disk_errors_reported, read_records
from pipelines.lake.frames import require_conserved
from pipelines.lake.scratch import scratch
from pipelines.lake.tables import Commit, TableStore
from pipelines.provenance import sha256_of
from schemas import BRONZE_REVIEWS

log = logging.getLogger("reviewlake")

ADVICE = "Run it again, which adds only missing rows; report it if it happens again."
RETRIES = 3  # of a commit that another one preceded, in an object store or a catalog
BATCH_ROWS = 2_000  # small, so that Spark has several row groups for its cores
STAGED = pa.schema(
    [
        ("ordinal", pa.int64()),  # from 1 over the staged rows
        ("source_file", pa.string()),
        ("row_number", pa.int64()),
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
        ("label_meaning", pa.string()),
        ("source_split", pa.string()),
        ("read_fault", pa.string()),
    ]
)


@dataclass(frozen=True)
class StagedDelivery:
    """The records of one delivered file as Parquet."""

    parquet: Path
    source: str
    source_file: str
    source_sha256: str
    n_rows: int  # counted by the strict reader


@contextmanager
def staged_delivery(
    delivery: Delivery, file: Path, source_sha256: str, landing: Path
) -> Iterator[StagedDelivery]:
    """Write the records to one Parquet file below `landing`, which is removed at the end."""
    with ExitStack() as stack:
        with disk_errors_reported(landing):
            folder = stack.enter_context(scratch(landing, "ingest"))
        parquet = folder / "records.parquet"
        with disk_errors_reported(landing):
            records = read_records(delivery, file, scratch=folder)
            labels = LabelColumn(delivery.label_map)
            n_rows = write_records(records, labels, file_name=file.name, parquet=parquet)
            sha256_after = sha256_of(file)
            if sha256_after != source_sha256:
                raise IntegrityError(
                    f"{file.name}: the file changed while it was read: SHA-256 {source_sha256} "
                    f"before, {sha256_after} after. Nothing was written; "
                    "ingest it once it is complete."
                )
        require_one_scheme(delivery, file.name, labels)
        source = delivery.name or delivery.source.removesuffix("-zip").replace("-", "_")
        yield StagedDelivery(
            parquet=parquet,
            source=source,
            source_file=file.name,
            source_sha256=source_sha256,
            n_rows=n_rows,
        )


def write_records(
    records: Iterator[Record], labels: LabelColumn, *, file_name: str, parquet: Path
) -> int:
    """Write the records in batches of BATCH_ROWS and return their number. Counts the labels."""
    n_rows = 0
    with (
        pq.ParquetWriter(parquet, STAGED, compression="zstd") as writer,  # type: ignore[no-untyped-call]  # no stubs
        tqdm(desc="read", unit=" rows", delay=2, disable=None) as bar,
    ):
        while batch := list(itertools.islice(records, BATCH_ROWS)):
            rows = [
                staged_row(
                    record,
                    ordinal=ordinal,
                    file_name=file_name,
                    label_meaning=labels.meaning_of(record.label),
                )
                for ordinal, record in enumerate(batch, start=n_rows + 1)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=STAGED))
            n_rows += len(batch)
            bar.update(len(batch))
    return n_rows


def staged_row(
    record: Record, *, ordinal: int, file_name: str, label_meaning: str
) -> dict[str, int | str | None]:
    """Return a record as a row of STAGED."""
    return {
        "ordinal": ordinal,
        "source_file": f"{file_name}!{record.member}" if record.member else file_name,
        "row_number": record.row_number,
        "raw_text": record.text,
        "raw_label": record.label,
        "label_meaning": label_meaning,
        "source_split": record.split,
        "read_fault": record.fault,
    }


def require_one_scheme(delivery: Delivery, name: str, labels: LabelColumn) -> None:
    """Raise ContractError unless the meaning of the labels is clear; log how many rows have each.

    Nothing is written then: what a label means cannot be corrected in bronze, which is append-only.
    """
    if fault := labels.fault():
        column = f", column {shown_names([delivery.label_column])}" if delivery.label_column else ""
        raise ContractError(f"{name}{column}: {fault}.")
    counts = [f"{n:,} {meaning}" for meaning, n in sorted(labels.meanings.items())]
    log.info("%s: labels: %s", name, ", ".join(counts))


def require_equal_counts(name: str, n_counted: int, n_read: int) -> None:
    """Raise IntegrityError unless Spark read as many rows as the strict reader counted."""
    if n_counted != n_read:
        raise IntegrityError(
            f"{name}: the strict reader counted {n_counted:,} rows, Spark read {n_read:,}. "
            "Nothing was written. Check the disk under --landing, and ingest again."
        )


def evenly_spread(records: DataFrame, n_rows: int, max_rows: int) -> DataFrame:
    """Keep exactly `max_rows` of the `n_rows` records, evenly spread; 0 keeps all.

    Files are often sorted by label, so the first rows alone would have one label.
    """
    if not 0 < max_rows < n_rows:
        return records
    nth = f"ordinal * {max_rows:d}L div {n_rows:d}L"
    before = f"(ordinal - 1) * {max_rows:d}L div {n_rows:d}L"
    return records.where(F.expr(f"{nth} > {before}"))


def bronze_rows(
    records: DataFrame, staged: StagedDelivery, batch_id: str, ingested_at: datetime
) -> DataFrame:
    """Return staged records as rows of bronze.reviews."""
    constants = {
        "source": F.lit(staged.source),
        "source_sha256": F.lit(staged.source_sha256),
        "batch_id": F.lit(batch_id),
        "ingested_at": F.lit(ingested_at),
    }
    return records.withColumns(constants).select(*BRONZE_REVIEWS.column_names)


def compare_with_bronze(rows: DataFrame, bronze: DataFrame) -> dict[str, int]:
    """Count the rows that bronze lacks (added) and holds (already_there).

    `differing` counts those that it holds with another text, label, meaning or split. The key of a
    row is the SHA-256 of its file and its number in it, so the name of the file does not matter.
    """
    delivered = ("raw_text", "raw_label", "source_split")
    stored = bronze.select(
        *BRONZE_REVIEWS.key,
        *[F.col(column).alias(f"stored_{column}") for column in (*delivered, "label_meaning")],
        F.lit(1).alias("here"),
    )
    differs = " OR ".join(f"NOT ({column} <=> stored_{column})" for column in delivered)
    differs += " OR label_meaning != stored_label_meaning"  # which is null in older rows
    counted = rows.join(stored, list(BRONZE_REVIEWS.key), "left").agg(
        F.expr("count_if(here IS NULL)").alias("added"),
        F.expr("count_if(here = 1)").alias("already_there"),
        F.expr(f"count_if(here = 1 AND ({differs}))").alias("differing"),
    )
    return counted.collect()[0].asDict()


def add_missing(
    store: TableStore, name: str, rows: DataFrame, *, n_rows: int
) -> tuple[dict[str, int], Commit]:
    """Add the rows that bronze lacks; return how many were added and already there.

    If another job adds some of them meanwhile, they are compared again; none is added twice.
    """
    compared = compare_with_bronze(rows, store.read(BRONZE_REVIEWS))
    _require_known(name, compared, n_rows)
    # Merged, not appended: another job may have added the same rows since they were compared.
    commit = _merge(store, rows)
    if commit.n_added != compared["added"]:
        log.info("%s: another job has added rows of this file; looking again", name)
        compared = compare_with_bronze(rows, store.read(BRONZE_REVIEWS))
        if compared["added"]:
            raise IntegrityError(
                f"{name}: {compared['added']:,} rows that were merged are missing from "
                f"bronze.reviews. {ADVICE}"
            )
        compared["added"] = commit.n_added
        compared["already_there"] -= commit.n_added
        _require_known(name, compared, n_rows)
    return {"added": compared["added"], "already_there": compared["already_there"]}, commit


def _merge(store: TableStore, rows: DataFrame) -> Commit:
    """Merge the rows; try again where the store, not our lock, let another job commit first."""
    for _ in range(RETRIES):
        try:
            return store.merge(BRONZE_REVIEWS, rows)
        except ConflictError:
            if store.config.is_local:
                raise
    return store.merge(BRONZE_REVIEWS, rows)


def _require_known(name: str, compared: dict[str, int], n_rows: int) -> None:
    require_same(name, compared["differing"])
    counts = {"in": n_rows, "added": compared["added"], "already_there": compared["already_there"]}
    require_conserved(name, counts, ADVICE)


def require_same(name: str, n_differing: int) -> None:
    """Raise InputError if bronze, which is append-only, holds these rows with other values."""
    if n_differing:
        raise InputError(
            f"{name}: text, label or split of {n_differing:,} rows differ from bronze.reviews, "
            "which is append-only. Name the columns as before; to correct them, use another --lake."
        )
