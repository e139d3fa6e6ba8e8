"""A table's data files: what lies in its directory, what a version needs, and the deleting of what nobody does."""

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors import IntegrityError, SetupError
from pipelines.lake.tables import TableStore
from pipelines.operate.vacuum import plain_path
from schemas import Table

NO_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
VACUUM_COMMITS = "spark.databricks.delta.vacuum.logging.enabled"


def inventory(store: TableStore, table: Table) -> DataFrame:
    """Every data file below the table's directory: path, length in bytes, modificationTime. The log is left out."""
    detail = store.sql(f"DESCRIBE DETAIL {table.name}").select("location").collect()[0]
    listing = store.spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    files = listing.option("pathGlobFilter", "*.parquet").load(detail["location"])  # no content is read
    return files.where("NOT contains(path, '/_delta_log/')").select("path", "length", "modificationTime")


def needed(store: TableStore, table: Table, versions: Iterable[int]) -> DataFrame:
    """The files that these versions read: path. Taken from the log alone, so it names missing ones too."""
    paths = {plain_path(uri) for version in sorted(set(versions)) for uri in store.read(table, version).inputFiles()}
    return store.spark.createDataFrame([(path,) for path in sorted(paths)], "path string")


def current_since(store: TableStore, table: Table, time_ms: int) -> list[int]:
    """The versions that were the latest one at some time since `time_ms` (epoch): a reader may still be at them."""
    history = store.sql(f"DESCRIBE HISTORY {table.name}").selectExpr(
        "version", "lead(unix_millis(timestamp)) OVER (ORDER BY version) AS replaced_ms"
    )
    recent = history.where(F.col("replaced_ms").isNull() | (F.col("replaced_ms") >= time_ms)).select("version")
    return [row["version"] for row in recent.orderBy("version").collect()]


def clear_staging(landing: Path, before_ms: int) -> None:
    """Remove what runs left in the landing directory: copies of reviews and models, older than `before_ms`."""
    for pattern in ("staging/*", "models/*", "ingest-*", "snapshot-*"):
        for left in landing.glob(pattern):
            if left.stat().st_mtime * 1_000 < before_ms:
                shutil.rmtree(left, ignore_errors=True)


def require_present(store: TableStore, table: Table, needed: DataFrame) -> None:
    """Raise IntegrityError where a needed file is not in the table's directory."""
    missing = needed.join(inventory(store, table), "path", "left_anti").limit(1).collect()
    if missing:
        raise IntegrityError(
            f"{table.name}: expected the file {missing[0]['path']}, which a needed version reads, found none. "
            "Nothing more was deleted; jobs/doctor.py says which models it concerns."
        )


def size_of(files: DataFrame) -> tuple[int, int]:
    """How many files, and their bytes together."""
    total = files.agg(F.count("*").alias("n_files"), F.coalesce(F.sum("length"), F.lit(0)).alias("n_bytes")).collect()
    return int(total[0]["n_files"]), int(total[0]["n_bytes"])


def delete(store: TableStore, table: Table, files: DataFrame) -> None:
    """Delete these files of a table, as path, length, isDir, modificationTime; never one that the latest version reads.

    By VACUUM over an inventory, which considers only the listed files: the retention of ten years, which keeps a
    plain VACUUM from all of them, is set aside for this statement.
    """
    name = f"unneeded_{uuid.uuid4().hex}"
    files.createOrReplaceTempView(name)
    settings = {NO_RETENTION_CHECK: "false", VACUUM_COMMITS: "false"}  # a vacuum changes no rows: no version for it
    try:
        for setting, value in settings.items():
            store.spark.conf.set(setting, value)
    except PySparkException as error:
        found = str(error).strip().splitlines()[0]
        advice = "Serverless compute takes none: run jobs/vacuum.py on a cluster."
        raise SetupError(f"vacuum: expected Spark to take {', '.join(settings)}, found: {found} {advice}") from error
    try:
        store.sql(f"VACUUM {table.name} USING INVENTORY (SELECT * FROM {name}) RETAIN 0 HOURS")
    finally:
        for setting in settings:
            store.spark.conf.unset(setting)
        store.spark.catalog.dropTempView(name)
