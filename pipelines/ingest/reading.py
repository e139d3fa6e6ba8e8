"""Read delivered files into Parquet files for Spark: one file here, several by Spark's tasks."""

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from tqdm import tqdm

from pipelines import errors
from pipelines.errors import ContractError, InputError, IntegrityError, JobError
from pipelines.ingest.fetch import require_readable
from pipelines.ingest.files import FoundFile
from pipelines.ingest.labels import LabelColumn
from pipelines.ingest.records import Record, shown_names
from pipelines.ingest.sources import Delivery, disk_errors_reported, read_records
from pipelines.lake.scratch import scratch
from pipelines.lake.tables import TableStore
from pipelines.provenance import same_code, sha256_of

log = logging.getLogger("reviewlake")

BATCH_ROWS = 2_000  # small, so that Spark has several row groups for its cores
MAX_TASKS = 10_000
STAGED = pa.schema(
    [
        ("ordinal", pa.int64()),  # from 1 over the rows of the file
        ("source_sha256", pa.string()),
        ("source_file", pa.string()),
        ("row_number", pa.int64()),
        ("raw_text", pa.string()),
        ("raw_label", pa.string()),
        ("label_meaning", pa.string()),
        ("source_split", pa.string()),
        ("read_fault", pa.string()),
    ]
)
# One row per file, from a task to the driver.
OUTCOME = "number int, n_rows long, meanings string, error string, words string"


class ChangedError(IntegrityError):
    """The file is still being written."""


@dataclass(frozen=True)
class HashedFile:
    """A file to ingest, and the SHA-256 of its bytes."""

    found: FoundFile
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.found.path


@dataclass(frozen=True)
class StagedFile:
    """The records of one file as Parquet, or the error for which it was refused."""

    file: HashedFile
    parquet: Path
    n_rows: int = 0  # counted by the strict reader
    meanings: Mapping[str, int] | None = None  # rows by the meaning of their label
    error: JobError | None = None


@contextmanager
def staged_files(
    store: TableStore, delivery: Delivery, files: Sequence[HashedFile], landing: Path
) -> Iterator[list[StagedFile]]:
    """Write the records of each file to a Parquet file below `landing`, removed at the end.

    A file is staged whole or refused whole; one that is refused stops no other.
    """
    with ExitStack() as stack:
        with disk_errors_reported(landing):
            folder = stack.enter_context(scratch(landing, "ingest"))
        if len(files) == 1:
            staged = [stage_or_refuse(delivery, files[0], folder / "0.parquet")]
        else:
            staged = _staged_by_tasks(store.spark, delivery, files, folder)
        for file in staged:
            if file.meanings is not None:
                counts = [f"{n:,} {meaning}" for meaning, n in sorted(file.meanings.items())]
                log.info("%s: labels: %s", file.file.path.name, ", ".join(counts))
        yield staged


def stage_or_refuse(delivery: Delivery, file: HashedFile, parquet: Path) -> StagedFile:
    """Stage one file; an error of the file, not of this machine, is returned with it."""
    try:
        return stage_file(delivery, file, parquet)
    except (InputError, ContractError, IntegrityError) as error:
        return StagedFile(file, parquet, error=error)


def stage_file(delivery: Delivery, file: HashedFile, parquet: Path) -> StagedFile:
    """Write a file's records to `parquet`; archives are unpacked beside it.

    Raises InputError, ContractError or IntegrityError for what is wrong with the file.
    """
    labels = LabelColumn(delivery.label_map)
    require_readable(file.path)
    with disk_errors_reported(parquet.parent), scratch(parquet.parent, "unpacked") as unpacked:
        records = read_records(delivery, file.path, scratch=unpacked)
        n_rows = write_records(records, labels, file=file, parquet=parquet)
        sha256_after = sha256_of(file.path)
    if sha256_after != file.sha256:
        raise ChangedError(
            f"{file.path.name}: the file changed while it was read: SHA-256 {file.sha256} "
            f"before, {sha256_after} after. Nothing of it was written; "
            "ingest it once it is complete."
        )
    require_one_scheme(delivery, file.path.name, labels)
    return StagedFile(file, parquet, n_rows, dict(labels.meanings))


def write_records(
    records: Iterator[Record], labels: LabelColumn, *, file: HashedFile, parquet: Path
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
                    file=file,
                    label_meaning=labels.meaning_of(record.label),
                )
                for ordinal, record in enumerate(batch, start=n_rows + 1)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=STAGED))
            n_rows += len(batch)
            bar.update(len(batch))
    return n_rows


def staged_row(
    record: Record, *, ordinal: int, file: HashedFile, label_meaning: str
) -> dict[str, int | str | None]:
    """Return a record as a row of STAGED."""
    name = file.path.name
    return {
        "ordinal": ordinal,
        "source_sha256": file.sha256,
        "source_file": f"{name}!{record.member}" if record.member else name,
        "row_number": record.row_number,
        "raw_text": record.text,
        "raw_label": record.label,
        "label_meaning": label_meaning,
        "source_split": record.split,
        "read_fault": record.fault,
    }


def require_one_scheme(delivery: Delivery, name: str, labels: LabelColumn) -> None:
    """Raise ContractError unless the meaning of the labels is clear.

    Nothing is written then: what a label means cannot be corrected in bronze, which is append-only.
    """
    if fault := labels.fault():
        column = f", column {shown_names([delivery.label_column])}" if delivery.label_column else ""
        raise ContractError(f"{name}{column}: {fault}.")


def _staged_by_tasks(
    spark: SparkSession, delivery: Delivery, files: Sequence[HashedFile], folder: Path
) -> list[StagedFile]:
    """Stage each file in a Spark task of its own, so that all cores read."""

    @same_code
    def stage(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for numbers in batches:
            for number in numbers["id"]:
                done = stage_or_refuse(delivery, files[number], folder / f"{number}.parquet")
                row = {
                    "number": number,
                    "n_rows": done.n_rows,
                    "meanings": json.dumps(done.meanings),
                    "error": type(done.error).__name__ if done.error else "",
                    "words": str(done.error or ""),
                }
                yield pd.DataFrame([row])

    numbers = spark.range(0, len(files), 1, min(len(files), MAX_TASKS))
    rows = sorted(numbers.mapInPandas(stage, OUTCOME).collect(), key=lambda row: row["number"])
    if [row["number"] for row in rows] != list(range(len(files))):
        raise IntegrityError(
            f"ingest: expected an outcome for each of {len(files):,} files, found {len(rows):,}. "
            "Nothing was written; run it again."
        )
    return [_staged_file(files[row["number"]], folder, row.asDict()) for row in rows]


def _staged_file(file: HashedFile, folder: Path, row: Mapping[str, Any]) -> StagedFile:
    parquet = folder / f"{row['number']}.parquet"
    if not row["error"]:
        return StagedFile(file, parquet, row["n_rows"], json.loads(row["meanings"]))
    kinds = vars(errors) | {ChangedError.__name__: ChangedError}
    return StagedFile(file, parquet, error=kinds[row["error"]](row["words"]))
