"""Which versions of which tables must stay readable, and which files no one of them needs."""

import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors import InputError, IntegrityError, SetupError
from pipelines.lake.tables import TableStore
from pipelines.tracking.model_table import ModelRecord
from schemas import BRONZE_REVIEWS, GOLD_REVIEWS, SILVER_REVIEWS, Table

RECENT = "latest or recent"


@dataclass(frozen=True)
class Pin:
    """A table version that must stay readable, and for whom."""

    table: str
    version: int
    reason: str


def pins_of_model(model: ModelRecord) -> list[Pin]:
    """What a model learned from: gold, and the silver and bronze behind it where the ledger knew them."""
    read = {
        GOLD_REVIEWS.name: model.gold_version,
        SILVER_REVIEWS.name: model.silver_version,
        BRONZE_REVIEWS.name: model.bronze_version,
    }
    return [
        Pin(table, version, str(model)) for table, version in read.items() if version is not None
    ]


def require_known(live: set[tuple[str, int]], known: set[tuple[str, int]], names: set[str]) -> None:
    """Raise IntegrityError where registry and ops.models do not tell of the same models: a pin may be lost.

    A version that is gone from the registry was deleted; a name that is gone means that the registry itself was lost.
    """
    unrecorded = [
        f"{name} version {version} in the registry only" for name, version in sorted(live - known)
    ]
    lost = [f"{name} in ops.models only" for name in sorted({name for name, _ in known} - names)]
    if unrecorded or lost:
        raise IntegrityError(
            f"models: expected the same in the registry and in ops.models, found {'; '.join(unrecorded + lost)}. "
            "Nothing was deleted; jobs/doctor.py says what to do."
        )


def versions_kept(table: str, forget: str, latest: int, pins: Sequence[Pin]) -> set[int]:
    """The versions that must stay readable: those pinned, or, where --forget names some, all but those.

    Raises InputError where --forget names a version that somebody needs (and says who), or that there never was.
    """
    if not forget:
        return {pin.version for pin in pins}
    asked = set(_versions_asked(forget, latest))
    if losing := sorted({(pin.version, pin.reason) for pin in pins if pin.version in asked}):
        listing = ", ".join(f"version {version} ({reason})" for version, reason in losing)
        raise InputError(
            f"--forget: expected versions of {table} that nobody needs, found {listing}. Nothing was deleted. "
            "Delete those model versions in the registry, or take the tag keep off the runs, if they are to go."
        )
    return set(range(latest + 1)) - asked


def _versions_asked(forget: str, latest: int) -> range:
    first, _, last = forget.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise InputError(
            f"--forget must be a version or a range of them, as 3 or 3-7, got {forget!r}"
        )
    asked = range(int(first), int(last or first) + 1)
    if not asked or asked[-1] > latest:
        raise InputError(
            f"--forget must name versions of 0-{latest}, the first one first, got {forget}"
        )
    return asked


def plain_path(uri: str) -> str:
    """A file's path as Spark's listing writes it: file:/a b, not file:///a%20b."""
    path = unquote(uri)
    return f"file:/{path.removeprefix('file:').lstrip('/')}" if path.startswith("file:") else path


def unneeded(inventory: DataFrame, needed: DataFrame, before_ms: int) -> DataFrame:
    """The files of an inventory that no pinned version needs and that are older than `before_ms` (epoch).

    inventory  path, length, modificationTime        returns  what VACUUM USING INVENTORY takes
    A younger file may belong to a write that has not committed yet.
    """
    left = inventory.join(needed, "path", "left_anti").where(
        F.unix_millis("modificationTime") < before_ms
    )
    is_dir = F.expr(
        "nullif(false, true)"
    )  # false, of a nullable column: VACUUM compares the schema to the letter
    modified_ms = F.unix_millis("modificationTime").alias("modificationTime")
    return left.select("path", "length", is_dir.alias("isDir"), modified_ms)


def summary(table: str, pins: Sequence[Pin], n_files: int, n_bytes: int, is_dry_run: bool) -> str:
    """A table's line: what goes, and which versions are needed by whom."""
    reasons: dict[int, list[str]] = {}
    for pin in sorted(pins, key=lambda pin: (pin.version, pin.reason)):
        reasons.setdefault(pin.version, []).append(pin.reason)
    needed = "; ".join(
        f"version {version} ({', '.join(dict.fromkeys(who))})" for version, who in reasons.items()
    )
    verb = "would be deleted" if is_dry_run else "deleted"
    return f"{table}: {n_files:,} files, {n_bytes:,} bytes {verb}; needed: {needed}"


NO_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
VACUUM_COMMITS = "spark.databricks.delta.vacuum.logging.enabled"


def vacuum_table(
    store: TableStore,
    table: Table,
    pins: Sequence[Pin],
    *,
    before_ms: int,
    forget: str,
    is_dry_run: bool,
) -> str:
    """Delete the files of a table that no needed version reads; return the line that reports it.

    pins       versions that models and runs need
    before_ms  epoch; versions that were current since then, and younger files, are kept
    """
    with store.lock(table):
        recent = [
            Pin(table.name, version, RECENT) for version in current_since(store, table, before_ms)
        ]
        needed = [*pins, *recent]
        kept = versions_kept(table.name, forget, store.version(table), needed)
        needed_files = files_read_by(store, table, {pin.version for pin in needed})
        require_present(store, table, needed_files)
        kept_files = files_read_by(store, table, kept) if forget else needed_files
        unneeded_files = unneeded(inventory(store, table), kept_files, before_ms)
        n_files, n_bytes = size_of(unneeded_files)
        if n_files and not is_dry_run:
            delete_files(store, table, unneeded_files)
            require_present(store, table, needed_files)
    return summary(table.name, needed, n_files, n_bytes, is_dry_run)


def inventory(store: TableStore, table: Table) -> DataFrame:
    """Every data file below the table's directory: path, length in bytes, modificationTime. The log is left out."""
    detail = store.sql(f"DESCRIBE DETAIL {table.name}").select("location").collect()[0]
    listing = store.spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    files = listing.option("pathGlobFilter", "*.parquet").load(
        detail["location"]
    )  # no content is read
    return files.where("NOT contains(path, '/_delta_log/')").select(
        "path", "length", "modificationTime"
    )


def files_read_by(store: TableStore, table: Table, versions: Iterable[int]) -> DataFrame:
    """The files that these versions read: path. Taken from the log alone, so it names missing ones too."""
    paths = {
        plain_path(uri)
        for version in sorted(set(versions))
        for uri in store.read(table, version).inputFiles()
    }
    return store.spark.createDataFrame([(path,) for path in sorted(paths)], "path string")


def current_since(store: TableStore, table: Table, time_ms: int) -> list[int]:
    """The versions that were the latest one at some time since `time_ms` (epoch): a reader may still be at them."""
    history = store.sql(f"DESCRIBE HISTORY {table.name}").selectExpr(
        "version", "lead(unix_millis(timestamp)) OVER (ORDER BY version) AS replaced_ms"
    )
    recent = history.where(
        F.col("replaced_ms").isNull() | (F.col("replaced_ms") >= time_ms)
    ).select("version")
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
    total = files.agg(
        F.count("*").alias("n_files"), F.coalesce(F.sum("length"), F.lit(0)).alias("n_bytes")
    ).collect()
    return int(total[0]["n_files"]), int(total[0]["n_bytes"])


def delete_files(store: TableStore, table: Table, files: DataFrame) -> None:
    """Delete these files of a table, as path, length, isDir, modificationTime; never one that the latest version reads.

    By VACUUM over an inventory, which considers only the listed files: the retention of ten years, which keeps a
    plain VACUUM from all of them, is set aside for this statement.
    """
    name = f"unneeded_{uuid.uuid4().hex}"
    files.createOrReplaceTempView(name)
    settings = {
        NO_RETENTION_CHECK: "false",
        VACUUM_COMMITS: "false",
    }  # a vacuum changes no rows: no version for it
    try:
        for setting, value in settings.items():
            store.spark.conf.set(setting, value)
    except PySparkException as error:
        found = str(error).strip().splitlines()[0]
        advice = "Serverless compute takes none: run jobs/vacuum.py on a cluster."
        raise SetupError(
            f"vacuum: expected Spark to take {', '.join(settings)}, found: {found} {advice}"
        ) from error
    try:
        store.sql(f"VACUUM {table.name} USING INVENTORY (SELECT * FROM {name}) RETAIN 0 HOURS")
    finally:
        for setting in settings:
            store.spark.conf.unset(setting)
        store.spark.catalog.dropTempView(name)
