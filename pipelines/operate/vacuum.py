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
from pipelines.program import first_cause
from pipelines.tracking.model_table import ModelRecord
from schemas import BRONZE_REVIEWS, GOLD_REVIEWS, SILVER_REVIEWS, Table

RECENT = "latest or recent"
LEFTOVERS = ("staging/*", "models/*", "ingest-*", "snapshot-*")  # below the landing directory
NO_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
VACUUM_COMMITS = "spark.databricks.delta.vacuum.logging.enabled"


@dataclass(frozen=True)
class Pin:
    """A table version that must stay readable, and for whom."""

    table: str
    version: int
    reason: str


def pins_of_model(model: ModelRecord) -> list[Pin]:
    """What a model learned from: gold, and the silver and bronze behind it where the ledger knew them."""
    versions = {
        GOLD_REVIEWS.name: model.gold_version,
        SILVER_REVIEWS.name: model.silver_version,
        BRONZE_REVIEWS.name: model.bronze_version,
    }
    return [
        Pin(table, version, str(model))
        for table, version in versions.items()
        if version is not None
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
        recent_versions = current_since(store, table, before_ms)
        recent = [Pin(table.name, version, RECENT) for version in recent_versions]
        needed = [*pins, *recent]
        kept_versions = versions_kept(table.name, forget, store.version(table), needed)
        needed_files = files_read_by(store, table, {pin.version for pin in needed})
        require_present(store, table, needed_files)
        kept_files = files_read_by(store, table, kept_versions) if forget else needed_files
        unneeded_files = unneeded(data_files(store, table), kept_files, before_ms)
        n_files, n_bytes = size_of(unneeded_files)
        if n_files and not is_dry_run:
            delete_files(store, table, unneeded_files)
            require_present(store, table, needed_files)
    return summary(table.name, needed, n_files=n_files, n_bytes=n_bytes, is_dry_run=is_dry_run)


def current_since(store: TableStore, table: Table, time_ms: int) -> list[int]:
    """The versions that were the latest one at some time since `time_ms` (epoch): a reader may still be at them."""
    history = store.sql(f"DESCRIBE HISTORY {table.name}").selectExpr(
        "version", "lead(unix_millis(timestamp)) OVER (ORDER BY version) AS replaced_ms"
    )
    is_latest = F.col("replaced_ms").isNull()
    recent = history.where(is_latest | (F.col("replaced_ms") >= time_ms))
    return [row["version"] for row in recent.select("version").orderBy("version").collect()]


def versions_kept(table: str, forget: str, latest: int, pins: Sequence[Pin]) -> set[int]:
    """The versions that must stay readable: those pinned, or, where --forget names some, all but those.

    Raises InputError where --forget names a version that somebody needs (and says who), or that there never was.
    """
    if not forget:
        return {pin.version for pin in pins}
    forgotten = set(_versions_of(forget, latest))
    needed = sorted({(pin.version, pin.reason) for pin in pins if pin.version in forgotten})
    if needed:
        listing = ", ".join(f"version {version} ({reason})" for version, reason in needed)
        raise InputError(
            f"--forget: expected versions of {table} that nobody needs, found {listing}. Nothing was deleted. "
            "Delete those model versions in the registry, or take the tag keep off the runs, if they are to go."
        )
    return set(range(latest + 1)) - forgotten


def _versions_of(forget: str, latest: int) -> range:
    """The versions that --forget names: a number, or a first and a last one."""
    first, _, last = forget.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        raise InputError(
            f"--forget must be a version or a range of them, as 3 or 3-7, got {forget!r}"
        )
    versions = range(int(first), int(last or first) + 1)
    if not versions or versions[-1] > latest:
        raise InputError(
            f"--forget must name versions of 0-{latest}, the first one first, got {forget}"
        )
    return versions


def files_read_by(store: TableStore, table: Table, versions: Iterable[int]) -> DataFrame:
    """The files that these versions read: path. Taken from the log alone, so it names missing ones too."""
    paths: set[str] = set()
    for version in sorted(set(versions)):
        paths.update(plain_path(uri) for uri in store.read(table, version).inputFiles())
    return store.spark.createDataFrame([(path,) for path in sorted(paths)], "path string")


def plain_path(uri: str) -> str:
    """A file's path as Spark's listing writes it: file:/a b, not file:///a%20b."""
    path = unquote(uri)
    return f"file:/{path.removeprefix('file:').lstrip('/')}" if path.startswith("file:") else path


def require_present(store: TableStore, table: Table, files: DataFrame) -> None:
    """Raise IntegrityError where one of these files is not in the table's directory."""
    missing = files.join(data_files(store, table), "path", "left_anti").limit(1).collect()
    if missing:
        raise IntegrityError(
            f"{table.name}: expected the file {missing[0]['path']}, which a needed version reads, found none. "
            "Nothing more was deleted; jobs/doctor.py says which models it concerns."
        )


def data_files(store: TableStore, table: Table) -> DataFrame:
    """Every data file below the table's directory: path, length in bytes, modificationTime. The log is left out."""
    detail = store.sql(f"DESCRIBE DETAIL {table.name}").select("location").collect()[0]
    listing = store.spark.read.format("binaryFile").options(
        recursiveFileLookup="true", pathGlobFilter="*.parquet"
    )
    files = listing.load(detail["location"]).where("NOT contains(path, '/_delta_log/')")
    return files.select("path", "length", "modificationTime")  # no content is read


def unneeded(files: DataFrame, kept: DataFrame, before_ms: int) -> DataFrame:
    """The files that no kept version reads and that are older than `before_ms` (epoch).

    files      path, length, modificationTime        returns  what VACUUM USING INVENTORY takes
    kept       path
    A younger file may belong to a write that has not committed yet.
    """
    modified_ms = F.unix_millis("modificationTime")
    old = files.join(kept, "path", "left_anti").where(modified_ms < before_ms)
    # false, of a nullable column: VACUUM compares the schema to the letter
    is_dir = F.expr("nullif(false, true)")
    return old.select(
        "path", "length", is_dir.alias("isDir"), modified_ms.alias("modificationTime")
    )


def size_of(files: DataFrame) -> tuple[int, int]:
    """How many files, and their bytes together."""
    n_bytes = F.coalesce(F.sum("length"), F.lit(0))
    total = files.agg(F.count("*").alias("n_files"), n_bytes.alias("n_bytes")).collect()[0]
    return int(total["n_files"]), int(total["n_bytes"])


def delete_files(store: TableStore, table: Table, files: DataFrame) -> None:
    """Delete these files of a table, as path, length, isDir, modificationTime; never one that the latest version reads.

    By VACUUM over an inventory, which considers only the listed files: the retention of ten years, which keeps a
    plain VACUUM from all of them, is set aside for this statement.
    """
    view = f"unneeded_{uuid.uuid4().hex}"
    files.createOrReplaceTempView(view)
    # A vacuum changes no rows: no version for it.
    settings = {NO_RETENTION_CHECK: "false", VACUUM_COMMITS: "false"}
    try:
        for setting, value in settings.items():
            store.spark.conf.set(setting, value)
    except PySparkException as error:
        raise SetupError(
            f"vacuum: expected Spark to take {', '.join(settings)}, found: {first_cause(error)} "
            "Serverless compute takes none: run jobs/vacuum.py on a cluster."
        ) from error
    try:
        store.sql(f"VACUUM {table.name} USING INVENTORY (SELECT * FROM {view}) RETAIN 0 HOURS")
    finally:
        for setting in settings:
            store.spark.conf.unset(setting)
        store.spark.catalog.dropTempView(view)


def summary(
    table: str, pins: Sequence[Pin], *, n_files: int, n_bytes: int, is_dry_run: bool
) -> str:
    """A table's line: what goes, and which versions are needed by whom."""
    reasons: dict[int, list[str]] = {}
    for pin in sorted(pins, key=lambda pin: (pin.version, pin.reason)):
        of_version = reasons.setdefault(pin.version, [])
        if pin.reason not in of_version:
            of_version.append(pin.reason)
    needed = "; ".join(f"version {version} ({', '.join(who)})" for version, who in reasons.items())
    verb = "would be deleted" if is_dry_run else "deleted"
    return f"{table}: {n_files:,} files, {n_bytes:,} bytes {verb}; needed: {needed}"


def clear_staging(landing: Path, before_ms: int) -> None:
    """Remove what runs left in the landing directory: copies of reviews and models, older than `before_ms`."""
    for pattern in LEFTOVERS:
        for directory in landing.glob(pattern):
            if directory.stat().st_mtime * 1_000 < before_ms:
                shutil.rmtree(directory, ignore_errors=True)
