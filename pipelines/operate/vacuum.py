"""Delete the data files that no needed table version reads."""

import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.errors import InputError, IntegrityError, SetupError
from pipelines.lake.chain import Row
from pipelines.lake.changes import changes_of
from pipelines.lake.links import inside
from pipelines.lake.scratch import LEFTOVERS, is_in_use
from pipelines.lake.tables import TableStore
from pipelines.program import first_cause
from pipelines.tracking.model_table import ModelRecord
from schemas import BRONZE_REVIEWS, GOLD_REVIEWS, SILVER_REVIEWS, Table

CHANGES = "_change_data"  # a directory of Delta
INCREMENTAL = {"ingest", "clean", "curate", "score"}  # stages that read or write by increment
RECENT = "latest or recent"
NO_RETENTION_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
VACUUM_COMMITS = "spark.databricks.delta.vacuum.logging.enabled"


@dataclass(frozen=True)
class Pin:
    """A table version that must stay readable, and the reason."""

    table: str
    version: int
    reason: str


def pins_of_model(model: ModelRecord) -> list[Pin]:
    """Return the versions that a model learned from: gold, and silver and bronze if recorded."""
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


def live_pins(
    models: Iterable[ModelRecord],
    live: Collection[tuple[str, int]],
    kept: Iterable[tuple[str, str, int]],
) -> list[Pin]:
    """Return the pins of registered models, and of the runs kept: run id, table, version."""
    pins = [pin for model in models if model.key in live for pin in pins_of_model(model)]
    return pins + [Pin(table, version, f"run {run_id}, keep") for run_id, table, version in kept]


def changes_read(rows: Iterable[Row], table: Table, version: int) -> int:
    """Return the version since which a stage may ask for changes; if none will, the latest one."""
    ordered = sorted(rows, key=lambda row: row["finished_at"])
    latest = {row["stage"]: row for row in ordered if row["state"] == "done"}
    versions = [
        side[table.name]
        for stage in latest.keys() & INCREMENTAL
        for side in (latest[stage]["input_versions"], latest[stage]["output_versions"])
        if table.name in side
    ]
    return min(versions, default=version)


def require_known(live: set[tuple[str, int]], known: set[tuple[str, int]], names: set[str]) -> None:
    """Raise IntegrityError if registry and ops.models do not match: a pin may be missing.

    A version missing from the registry was deleted; a missing name means a lost registry.
    """
    unrecorded = [
        f"{name} version {version} in the registry only" for name, version in sorted(live - known)
    ]
    lost = [f"{name} in ops.models only" for name in sorted({name for name, _ in known} - names)]
    if unrecorded or lost:
        raise IntegrityError(
            "models: the registry and ops.models do not match: "
            f"{'; '.join(unrecorded + lost)}. "
            "Nothing was deleted; jobs/doctor.py says what to do."
        )


def vacuum_table(
    store: TableStore,
    table: Table,
    pins: Sequence[Pin],
    *,
    before_ms: int,
    forget: str,
    changes_read: int,
    is_dry_run: bool,
    announce: Callable[[], None],
) -> str:
    """Delete the files of a table that no needed version reads; return the line that reports it.

    pins       versions that models and runs use
    before_ms  epoch; versions that were current since then, and newer files, are kept
    forget     versions to give up, such as 3-7; empty = all that are not needed
    announce   called before files are deleted
    """
    with store.lock(table):
        recent_versions = current_since(store, table, before_ms)
        recent = [Pin(table.name, version, RECENT) for version in recent_versions]
        needed = [*pins, *recent]
        kept_versions = versions_kept(table.name, forget, store.version(table), needed)
        needed_files = files_read_by(store, table, {pin.version for pin in needed})
        require_present(store, table, needed_files)
        kept_files = files_read_by(store, table, kept_versions) if forget else needed_files
        kept_files = kept_files.union(change_files(store, table, changes_read)).distinct()
        unneeded_files = unneeded(data_files(store, table), kept_files, before_ms)
        n_files, n_bytes = size_of(unneeded_files)
        if n_files and not is_dry_run:
            announce()
            delete_files(store, table, unneeded_files)
            require_present(store, table, needed_files)
    return summary(table.name, needed, n_files=n_files, n_bytes=n_bytes, is_dry_run=is_dry_run)


def current_since(store: TableStore, table: Table, time_ms: int) -> list[int]:
    """Return the versions that were the latest at some time since `time_ms` (epoch).

    A running job may still read them.
    """
    history = store.sql(f"DESCRIBE HISTORY {table.name}").selectExpr(
        "version", "lead(unix_millis(timestamp)) OVER (ORDER BY version) AS replaced_ms"
    )
    is_latest = F.col("replaced_ms").isNull()
    recent = history.where(is_latest | (F.col("replaced_ms") >= time_ms))
    return [row["version"] for row in recent.select("version").orderBy("version").collect()]


def versions_kept(table: str, forget: str, latest: int, pins: Sequence[Pin]) -> set[int]:
    """Return the versions to keep: the pinned ones, or with --forget all but the versions it names.

    Raises InputError if --forget names a version that is needed or does not exist.
    """
    if not forget:
        return {pin.version for pin in pins}
    forgotten = set(_versions_of(forget, latest))
    needed = sorted({(pin.version, pin.reason) for pin in pins if pin.version in forgotten})
    if needed:
        listing = ", ".join(f"version {version} ({reason})" for version, reason in needed)
        raise InputError(
            f"--forget: {table} versions still needed: {listing}. Nothing was deleted. "
            "To forget them, delete those model versions in the registry, "
            "or remove the tag keep from the runs."
        )
    return set(range(latest + 1)) - forgotten


def _versions_of(forget: str, latest: int) -> range:
    """Return the versions that --forget names; it keeps the rule flag_rules.VERSIONS."""
    first, _, last = forget.partition("-")
    versions = range(int(first), int(last or first) + 1)
    if not versions or versions[-1] > latest:
        raise InputError(
            f"--forget must name versions from 0 to {latest}, the lower one first, got {forget}"
        )
    return versions


def files_read_by(store: TableStore, table: Table, versions: Iterable[int]) -> DataFrame:
    """Return from the log the path of each file of these versions, even if it is missing."""
    paths: set[str] = set()
    for version in sorted(set(versions)):
        paths.update(plain_path(uri) for uri in store.read(table, version).inputFiles())
    return store.spark.createDataFrame([(path,) for path in sorted(paths)], "path string")


def change_files(store: TableStore, table: Table, since: int) -> DataFrame:
    """Return the path of each file, of rows or of changes, with what changed after `since`."""
    changes = changes_of(store, table, since, store.version(table))
    if changes is None:  # not recorded from there on: keep what there is
        return data_files(store, table).where(f"contains(path, '/{CHANGES}/')").select("path")
    rows = changes.select(F.input_file_name()).distinct().collect()
    return store.spark.createDataFrame([(plain_path(row[0]),) for row in rows], "path string")


def plain_path(uri: str) -> str:
    """Return a file's path as Spark's listing writes it: file:/a b, not file:///a%20b."""
    path = unquote(uri)
    return f"file:/{path.removeprefix('file:').lstrip('/')}" if path.startswith("file:") else path


def require_present(store: TableStore, table: Table, files: DataFrame) -> None:
    """Raise IntegrityError if one of these files is missing from the table's directory."""
    missing = files.join(data_files(store, table), "path", "left_anti").limit(1).collect()
    if missing:
        raise IntegrityError(
            f"{table.name}: missing data file {missing[0]['path']}, which a needed version reads. "
            "Nothing more was deleted; jobs/doctor.py lists the affected models."
        )


def data_files(store: TableStore, table: Table) -> DataFrame:
    """List the files of rows and of changes below the table's directory, not those of the log.

    returns  path, length (bytes), modificationTime
    """
    detail = store.sql(f"DESCRIBE DETAIL {table.name}").select("location").collect()[0]
    listing = store.spark.read.format("binaryFile").options(
        recursiveFileLookup="true", pathGlobFilter="*.parquet"
    )
    files = listing.load(detail["location"]).where("NOT contains(path, '/_delta_log/')")
    with suppress(AnalysisException):  # no version has changed or removed a row
        # Spark takes the directory as hidden, unless it is named.
        of_changes = listing.load(f"{detail['location'].rstrip('/')}/{CHANGES}")
        _ = of_changes.schema  # Spark looks at the path when it is asked for the schema
        files = files.unionByName(of_changes)
    return files.select("path", "length", "modificationTime")  # no content is read


def unneeded(files: DataFrame, kept: DataFrame, before_ms: int) -> DataFrame:
    """Return the files that no kept version reads and that are older than `before_ms` (epoch).

    files    path, length, modificationTime
    kept     path
    returns  path, length, isDir, modificationTime, as VACUUM USING INVENTORY requires
    A newer file may belong to a write that has not committed yet.
    """
    modified_ms = F.unix_millis("modificationTime")
    old = files.join(kept, "path", "left_anti").where(modified_ms < before_ms)
    # False, but nullable: VACUUM requires exactly its own schema.
    is_dir = F.expr("nullif(false, true)")
    return old.select(
        "path", "length", is_dir.alias("isDir"), modified_ms.alias("modificationTime")
    )


def size_of(files: DataFrame) -> tuple[int, int]:
    """Return the number of files and their total bytes."""
    n_bytes = F.coalesce(F.sum("length"), F.lit(0))
    total = files.agg(F.count("*").alias("n_files"), n_bytes.alias("n_bytes")).collect()[0]
    return int(total["n_files"]), int(total["n_bytes"])


def delete_files(store: TableStore, table: Table, files: DataFrame) -> None:
    """Delete these files of a table; VACUUM never deletes a file that the latest version reads.

    files  path, length, isDir, modificationTime
    VACUUM USING INVENTORY considers only the listed files. The retention of ten years, which stops
    a plain VACUUM from deleting any of them, is switched off for this statement.
    """
    view = f"unneeded_{uuid.uuid4().hex}"
    files.createOrReplaceTempView(view)
    # A vacuum changes no rows, so it must not add a version.
    settings = {NO_RETENTION_CHECK: "false", VACUUM_COMMITS: "false"}
    try:
        for setting, value in settings.items():
            store.spark.conf.set(setting, value)
    except PySparkException as error:
        raise SetupError(
            f"vacuum: expected Spark to take {', '.join(settings)}, found: {first_cause(error)} "
            "Serverless compute accepts no such settings: run jobs/vacuum.py on a cluster."
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
    """Return a table's line: size of the deleted files, and the needed versions with reasons."""
    reasons: dict[int, list[str]] = {}
    for pin in sorted(pins, key=lambda pin: (pin.version, pin.reason)):
        of_version = reasons.setdefault(pin.version, [])
        if pin.reason not in of_version:
            of_version.append(pin.reason)
    needed = "; ".join(f"version {version} ({', '.join(who)})" for version, who in reasons.items())
    verb = "would be deleted" if is_dry_run else "deleted"
    return f"{table}: {n_files:,} files, {n_bytes:,} bytes {verb}; needed: {needed}"


def clear_staging(landing: Path, before_ms: int) -> None:
    """Delete copies of reviews and models older than `before_ms` that no process uses."""
    places = [inside(landing, place) for pattern in LEFTOVERS for place in landing.glob(pattern)]
    for place in places:
        with suppress(FileNotFoundError):  # its own run has just removed it
            if place.stat().st_mtime * 1_000 >= before_ms or is_in_use(place):
                continue
            if place.is_dir():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink()
