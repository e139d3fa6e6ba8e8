"""Find faults of a lake and say how to fix them: tables, locks, models and their training data."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.errors import IntegrityError
from pipelines.lake import chain
from pipelines.lake.chain import Row
from pipelines.lake.config import DELTA_LOG, LakeConfig
from pipelines.lake.delta_errors import file_fault
from pipelines.lake.delta_log import commits_of
from pipelines.lake.frames import content_hash
from pipelines.lake.ledger import rows_of
from pipelines.lake.locks import holder_of, is_held
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from pipelines.operate.deep import deep_faults
from pipelines.operate.fault import RESTORE, Fault, caught, guarded
from pipelines.operate.files import file_faults
from pipelines.tracking import model_files, registry, runs
from pipelines.tracking.model_table import ModelRecord, models_of
from pipelines.tracking.names import CHAMPION
from pipelines.tracking.store import connect
from schemas import (
    GOLD_LINEAGE,
    GOLD_REVIEWS,
    GOLD_SCORES,
    OPS_MODELS,
    OPS_PROMOTIONS,
    OPS_RUNS,
    TABLES,
    Table,
)

LONG_HELD_S = 3_600.0  # every stage releases a table's lock much earlier


def examine(spark: SparkSession, config: LakeConfig, is_deep: bool = False) -> Iterator[Fault]:
    """Yield every fault of the lake as soon as it is known; a healthy lake has none.

    Reads the latest version of every table, and gold at the version of each model; with `is_deep`
    all that a run has recorded.
    """
    broken_logs = [fault for table in TABLES for fault in log_faults(config, table)]
    yield from broken_logs
    if broken_logs:  # Delta cannot open such a table, so the lake cannot be opened either
        return
    store = TableStore(lambda: spark, config)  # opened below
    rows, faults = ledger_rows(store)
    yield from faults
    if config.is_local:
        yield from file_faults(config, rows, is_deep)
    try:
        client = connect(config)
        _ = store.spark
    except (PySparkException, Py4JError) as error:
        yield Fault(config.where, file_fault(error), RESTORE)
        return
    for table in TABLES:
        if store.exists(table):
            yield from lock_faults(store, table)
            yield from table_faults(store, table)
    faults_of = {
        OPS_RUNS.name: ledger_faults(store, rows),
        OPS_MODELS.name: model_faults(store, client),
        OPS_PROMOTIONS.name: alias_faults(store, client),
        GOLD_LINEAGE.name: lineage_faults(store),
    }
    if is_deep:
        faults_of["recorded versions"] = recorded_faults(store, client, rows)
    for where, faults_there in faults_of.items():
        yield from guarded(where, faults_there, RESTORE)


def log_faults(config: LakeConfig, table: Table) -> Iterator[Fault]:
    """Yield a fault if versions are missing inside the log of a local table."""
    log = config.log_directory(table)
    missing = missing_versions(log) if config.is_local else []
    if missing:
        listing = ", ".join(str(version) for version in missing)
        fix = f"{RESTORE}, the whole directory {DELTA_LOG}"
        yield Fault(table.name, f"its log lacks version {listing}", fix)


def lock_faults(store: TableStore, table: Table) -> Iterator[Fault]:
    """Yield a fault if the table's lock has been held for longer than any stage takes."""
    file = store.config.lake_path / "locks" / table.name
    holder, held_s = holder_of(file)
    if store.config.is_local and held_s > LONG_HELD_S and is_held(file):
        problem = f"its lock has been held by {holder} for {held_s / 3600:.0f} h"
        yield Fault(table.name, problem, "End that process if it hangs; this releases the lock")


def table_faults(store: TableStore, table: Table) -> Iterator[Fault]:
    """Yield a fault if a missing or damaged file makes the latest rows unreadable."""
    yield from caught(table.name, lambda: content_hash(store.read(table)), RESTORE)


def ledger_rows(store: TableStore) -> tuple[list[Row], list[Fault]]:
    """Return the ledger with the breaks in its chain; no rows, and one fault, if it is unreadable.

    The noted end is read first: a run that ends meanwhile notes it last.
    """
    fix = f"{RESTORE}: {OPS_RUNS.name} and {chain.note_of(store.config).name}"
    faults: list[Fault] = []
    ends: list[str] = []
    try:
        ends = chain.noted_ends(store.config)
    except IntegrityError as error:
        faults.append(Fault(OPS_RUNS.name, str(error).rstrip("."), fix))
    try:
        rows: list[Row] = [*rows_of(store)]
    except IntegrityError as error:
        return [], [*faults, Fault(OPS_RUNS.name, str(error).rstrip("."), fix)]
    breaks = chain.breaks_of(rows, ends, store.config.is_local)
    return rows, faults + [Fault(OPS_RUNS.name, problem, fix) for problem in breaks]


def ledger_faults(store: TableStore, rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield each table that is missing or older than its version in the ledger."""
    last_written: dict[str, int] = {}
    for row in rows:
        for name, version in row["output_versions"].items():
            last_written[name] = max(version, last_written.get(name, version))
    for name, last_version in sorted(last_written.items()):
        table = next((table for table in TABLES if table.name == name), None)
        version = store.version(table) if table and store.exists(table) else None
        if version is None or version < last_version:
            actual = "no such table" if version is None else f"version {version}"
            problem = f"{actual}, but the ledger recorded version {last_version}"
            yield Fault(name, problem, RESTORE)


def recorded_faults(
    store: TableStore, client: MlflowClient, rows: Sequence[Row]
) -> Iterator[Fault]:
    """Yield what differs from the record of the runs, in any version that is still needed."""
    models = models_of(store, client)
    pins = vacuum.live_pins(models.records, models.live, runs.kept(client))
    yield from deep_faults(store, rows, {(pin.table, pin.version) for pin in pins})


def model_faults(store: TableStore, client: MlflowClient) -> Iterator[Fault]:
    """Yield each model version whose files, data or entries differ from those registered."""
    records, names, live = models_of(store, client)
    known = {model.key: model for model in records}
    recorded = {name for name, _ in known}
    for name in sorted(recorded - names):
        problem = "in ops.models, but the registry has no such model"
        yield Fault(name, problem, f"{RESTORE}: <lake>/mlflow")
    fix = f"{RESTORE}: ops.models"
    if known:
        fix = "Delete the version in the registry, and train again"
    for name, version in sorted(live - set(known)):
        yield Fault(f"{name} version {version}", "in the registry, but not in ops.models", fix)
    hashes: dict[int, str] = {}
    for key in sorted(live & set(known)):
        model = known[key]
        registered = registry.resolve(client, model.name, str(model.version))
        verify = partial(model_files.verified_directory, client, registered, model.files)
        broken = list(caught(str(model), verify, "Do not use this version"))
        yield from broken
        if not broken:  # then the directory can be listed
            extras = extra_faults(client, registered, model)
            yield from guarded(str(model), extras, f"{RESTORE}, the whole directory")
        yield from data_faults(store, model, hashes)


def extra_faults(
    client: MlflowClient, registered: ModelVersion, model: ModelRecord
) -> Iterator[Fault]:
    """Yield each file beside those of the model that neither MLflow nor Python has written."""
    for path, kind in model_files.extras_of(client, registered, model.files):
        problem = f"{path}: {kind} that does not belong to the model"
        yield Fault(str(model), problem, "Delete it: our jobs ignore it, plain MLflow may not")


def alias_faults(store: TableStore, client: MlflowClient) -> Iterator[Fault]:
    """Yield each model whose champion is not the one of the gate's latest decision."""
    if not store.exists(OPS_PROMOTIONS):
        return
    moves = store.read(OPS_PROMOTIONS).where("decision IN ('promoted', 'rolled_back')")
    latest = F.max_by("model_version", "decided_at").alias("version")
    for row in moves.groupBy("model_name").agg(latest).collect():  # one row per model
        name = row["model_name"]
        champion = registry.version_number(client, name, CHAMPION)
        if champion != row["version"]:
            actual = "not set" if champion is None else f"version {champion}"
            problem = (
                f"alias {CHAMPION} is {actual}, "
                f"but the latest decision names version {row['version']}"
            )
            yield Fault(name, problem, "Run jobs/promote.py again, or roll back with --rollback")


def data_faults(store: TableStore, model: ModelRecord, hashes: dict[int, str]) -> Iterator[Fault]:
    """Yield a fault if gold at the model's version is no longer the data the model learned from.

    `hashes` holds the content hash of each gold version that was read, so that it is read once.
    """
    where = f"{model}, gold.reviews version {model.gold_version}"

    def read_again() -> None:
        if model.gold_version not in hashes:
            files = vacuum.files_read_by(store, GOLD_REVIEWS, [model.gold_version])
            vacuum.require_present(store, GOLD_REVIEWS, files)
            hashes[model.gold_version] = content_hash(store.read(GOLD_REVIEWS, model.gold_version))

    fix = f"{RESTORE}; until then the model cannot be reproduced"
    faults = list(caught(where, read_again, fix))
    yield from faults
    actual_hash = hashes.get(model.gold_version)
    if not faults and actual_hash != model.content_hash:
        problem = f"content hash {actual_hash}, but the model learned from {model.content_hash}"
        yield Fault(where, problem, RESTORE)


def lineage_faults(store: TableStore) -> Iterator[Fault]:
    """Yield each link to a table version or a file that is missing from scored rows."""
    if not (store.exists(GOLD_SCORES) and store.exists(GOLD_LINEAGE)):
        return
    for link in ("gold_version", "bronze_version", "source_sha256"):
        query = (
            "SELECT count(DISTINCT review_id, model_name, model_version) "
            f"FROM gold.lineage WHERE {link} IS NULL"
        )
        n_rows = store.counts({"rows": query})["rows"]
        if n_rows:
            fix = "Restore ops.models and ops.runs from a backup: they hold the link"
            yield Fault(GOLD_LINEAGE.name, f"{n_rows:,} scored rows have no {link}", fix)


def missing_versions(log: Path) -> list[int]:
    """Return the versions of a local log without a file, from 0 to the last: none is cleaned up."""
    present = {int(file.stem) for file in commits_of(log)}
    return sorted(set(range(max(present, default=0))) - present)
