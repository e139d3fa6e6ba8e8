"""Staged records become bronze rows: counted, compared with bronze, and added if it lacks them."""

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors import ConflictError, InputError, IntegrityError
from pipelines.ingest.reading import StagedFile
from pipelines.lake.commits import Commit
from pipelines.lake.frames import require_conserved
from pipelines.lake.tables import TableStore
from schemas import BRONZE_REVIEWS

log = logging.getLogger("reviewlake")

ADVICE = "Run it again, which adds only missing rows; report it if it happens again."
RETRIES = 3  # of a commit that another one preceded, in an object store or a catalog
MAX_FILTERED = 1_000  # files named in one filter
Counts = dict[str, int]
Only = tuple[str, list[str]] | None


def records_of(store: TableStore, staged: Sequence[StagedFile]) -> DataFrame:
    """Return the records of all staged files.

    Raises IntegrityError unless Spark reads as many of each file as the strict reader counted.
    """
    parquets = [store.config.readable(file.parquet) for file in staged]
    records = store.spark.read.parquet(*parquets)
    counted = records.groupBy("source_sha256").count().collect()
    n_read = {row["source_sha256"]: row["count"] for row in counted}
    for file in staged:
        require_equal_counts(file.file.path.name, file.n_rows, n_read.get(file.file.sha256, 0))
    return records


def require_equal_counts(name: str, n_counted: int, n_read: int) -> None:
    """Raise IntegrityError unless Spark read as many rows as the strict reader counted."""
    if n_counted != n_read:
        raise IntegrityError(
            f"{name}: the strict reader counted {n_counted:,} rows, Spark read {n_read:,}. "
            "Nothing was written. Check the disk under --landing, and ingest again."
        )


def of_files(rows: DataFrame, sha256s: Collection[str]) -> DataFrame:
    """Return the rows of these files."""
    return rows.where(F.col("source_sha256").isin(*sha256s))


def evenly_spread(records: DataFrame, n_rows: Mapping[str, int], max_rows: int) -> DataFrame:
    """Keep exactly `max_rows` records of each file, evenly spread; 0 keeps all.

    n_rows  records of each file, by its SHA-256
    Files are often sorted by label, so the first rows alone would have one label.
    """
    longer = {sha256: n for sha256, n in n_rows.items() if 0 < max_rows < n}
    if not longer:
        return records
    numbers = F.create_map(*[F.lit(item) for pair in longer.items() for item in pair])
    n = F.try_element_at(numbers, F.col("source_sha256")).cast("long")
    counted = records.withColumn("n", n)
    nth, before = f"ordinal * {max_rows:d}L div n", f"(ordinal - 1) * {max_rows:d}L div n"
    return counted.where(F.expr(f"n IS NULL OR {nth} > {before}")).drop("n")


def bronze_rows(records: DataFrame, source: str, batch_id: str, ingested_at: datetime) -> DataFrame:
    """Return staged records as rows of bronze.reviews."""
    constants = {
        "source": F.lit(source),
        "batch_id": F.lit(batch_id),
        "ingested_at": F.lit(ingested_at),
    }
    return records.withColumns(constants).select(*BRONZE_REVIEWS.column_names)


def compare_with_bronze(rows: DataFrame, bronze: DataFrame) -> dict[str, Counts]:
    """Count by file the rows that bronze lacks (added) and holds (already_there).

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
    compared = rows.join(stored, list(BRONZE_REVIEWS.key), "left").groupBy("source_sha256")
    counted = compared.agg(
        F.expr("count_if(here IS NULL)").alias("added"),
        F.expr("count_if(here = 1)").alias("already_there"),
        F.expr(f"count_if(here = 1 AND ({differs}))").alias("differing"),
    )
    by_file = {row["source_sha256"]: row.asDict() for row in counted.collect()}
    return {
        sha256: {name: n for name, n in row.items() if name != "source_sha256"}
        for sha256, row in by_file.items()
    }


def compare(store: TableStore, rows: DataFrame, n_rows: Mapping[str, int]) -> dict[str, Counts]:
    """Compare with bronze as it is now; of its files only those with rows of these are read.

    n_rows  number of these rows by the SHA-256 of their file
    """
    if store.version(BRONZE_REVIEWS) == 0:  # no row was ever added
        none = {"already_there": 0, "differing": 0}
        return {sha256: {"added": n, **none} for sha256, n in n_rows.items()}
    stored = store.read(BRONZE_REVIEWS)
    return compare_with_bronze(rows, of_files(stored, n_rows) if _only(n_rows) else stored)


def add_missing(
    store: TableStore, rows: DataFrame, n_rows: Mapping[str, int], compared: Mapping[str, Counts]
) -> tuple[Counts, Commit]:
    """Add the rows that bronze lacks; return how many were added and already there.

    n_rows    rows of each file, by its SHA-256
    compared  what `compare` has found for these files
    If another job adds some of them meanwhile, they are compared again; none is added twice.
    """
    n_all = sum(n_rows.values())
    counts = _total(compared)
    _require_known(counts, n_all)
    # Merged, not appended: another job may have added the same rows since they were compared.
    commit = _merge(store, rows, _only(n_rows))
    if commit.n_added != counts["added"]:
        log.info("ingest: another job has added rows of the same files; looking again")
        by_file = compare(store, rows, n_rows)
        if n_differing := sum(counts["differing"] for counts in by_file.values()):
            raise differing_error("ingest", n_differing)
        again = _total(by_file)
        if again["added"]:
            raise IntegrityError(
                f"bronze.reviews: {again['added']:,} rows that were merged are missing. {ADVICE}"
            )
        n_before = again["already_there"] - commit.n_added
        counts = {"added": commit.n_added, "already_there": n_before}
        _require_known(counts, n_all)
    return counts, commit


def differing_error(name: str, n_differing: int) -> InputError:
    """Return the error of a file that bronze, which is append-only, holds with other values."""
    return InputError(
        f"{name}: text, label or split of {n_differing:,} rows differ from bronze.reviews, "
        "which is append-only. Name the columns as before; to correct them, use another --lake."
    )


def _only(sha256s: Collection[str]) -> Only:
    """Return the column and values that choose the rows of these files; None if there are many."""
    few = 0 < len(sha256s) <= MAX_FILTERED
    return ("source_sha256", sorted(sha256s)) if few else None


def _merge(store: TableStore, rows: DataFrame, only: Only) -> Commit:
    """Merge the rows; try again where the store, not our lock, let another job commit first."""
    for _ in range(RETRIES):
        try:
            return store.merge(BRONZE_REVIEWS, rows, only)
        except ConflictError:
            if store.config.is_local:
                raise
    return store.merge(BRONZE_REVIEWS, rows, only)


def _total(compared: Mapping[str, Counts]) -> Counts:
    return {
        name: sum(counts[name] for counts in compared.values())
        for name in ("added", "already_there")
    }


def _require_known(counts: Counts, n_rows: int) -> None:
    require_conserved("bronze.reviews", {"in": n_rows, **counts}, ADVICE)
