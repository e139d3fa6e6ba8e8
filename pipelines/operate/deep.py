"""Compare the whole content of a lake with what its runs recorded: doctor --deep."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import datetime
from functools import partial

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from tqdm import tqdm

from pipelines import clean, curate, score
from pipelines.errors import IntegrityError, JobError
from pipelines.lake.chain import Row, title_of
from pipelines.lake.frames import content_hash, require_conserved
from pipelines.lake.outputs import Recorded, content_hash_of, recorded_outputs
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from pipelines.operate.fault import RESTORE, Fault, caught, guarded
from schemas import GOLD_SCORES, OPS_RUNS, SILVER_REVIEWS, TABLES, Table

Versions = Mapping[str, int]  # by table
UNRECORDED = (
    "If a job is running, look again when it is done; if a killed job has left these rows, run its "
    "stage again; else restore the table from a backup"
)


def deep_faults(
    store: TableStore, rows: Sequence[Row], needed: Set[tuple[str, int]]
) -> Iterator[Fault]:
    """Yield what differs from the ledger, what breaks a contract, and rows that got lost.

    needed  table versions that a vacuum spares: of registered models, and of runs kept
    """
    outputs = [output for output in recorded_outputs(rows) if store.exists(output.table)]
    vacuumed_at = max(
        (row["finished_at"] for row in rows if row["stage"] == "vacuum"), default=None
    )
    is_upgraded = any(row.get("output_hashes") is None for row in rows)
    for output in tqdm(outputs, desc="versions", unit=" versions", delay=2, disable=None):
        is_past = _is_past(store, output, vacuumed_at, needed)
        yield from hash_faults(store, output, may_be_vacuumed=is_past)
    for table in TABLES:
        if store.exists(table):
            yield from guarded(table.name, rule_faults(store, table), RESTORE)
            if table is not OPS_RUNS:  # its rows are chained
                versions = [output.version for output in outputs if output.table == table]
                unrecorded = unrecorded_faults(store, table, versions, is_upgraded)
                yield from guarded(table.name, unrecorded, RESTORE)
    yield from conservation_faults(store, rows)


def hash_faults(store: TableStore, output: Recorded, *, may_be_vacuumed: bool) -> Iterator[Fault]:
    """Yield a fault if a version's rows differ from those that its run left."""
    where = f"{output.table.name} version {output.version}"
    try:
        actual = content_hash_of(store, output.table, output.version, output.since)
    except (JobError, PySparkException, Py4JError) as error:
        if not (may_be_vacuumed and _lacks_files(store, output)):
            cause = str(error).rstrip(".") if isinstance(error, JobError) else ""
            problem = cause or "its data files cannot be read"
            yield Fault(where, f"{problem}; {title_of(output.run)} left it", RESTORE)
        return
    if actual != output.content_hash:
        problem = f"content hash {actual}, but {title_of(output.run)} left {output.content_hash}"
        yield Fault(where, problem, RESTORE)


def rule_faults(store: TableStore, table: Table) -> Iterator[Fault]:
    """Yield each rule of its contract that rows of the latest version break: key, null, check."""
    rows = store.read(table)
    key = ", ".join(table.key)
    broken = {f"key {key}": f"count(*) - count(DISTINCT {key})"}
    for column in table.columns:
        if not column.nullable:
            broken[f"{column.name} NOT NULL"] = f"count_if({column.name} IS NULL)"
    for name, rule in table.checks.items():
        broken[name] = f"count_if(NOT coalesce({rule}, false))"
    totals = rows.agg(*[F.expr(sql).alias(rule) for rule, sql in broken.items()]).collect()[0]
    for rule in broken:
        if totals[rule]:
            yield Fault(table.name, f"{rule} does not hold in {totals[rule]:,} rows", RESTORE)


def unrecorded_faults(
    store: TableStore, table: Table, recorded: Sequence[int], is_upgraded: bool
) -> Iterator[Fault]:
    """Yield a fault if the latest version has other rows than the one that a run left last.

    recorded     the versions that runs have left
    is_upgraded  an older release, which recorded no content, may have written the table
    """
    latest = store.version(table)
    if recorded and latest > max(recorded):
        last = max(recorded)
        if content_hash(store.read(table)) != content_hash(store.read(table, last)):
            problem = f"version {latest} has other rows than version {last}, which a run left last"
            yield Fault(table.name, problem, UNRECORDED)
    if not recorded and not is_upgraded and not store.read(table).isEmpty():
        yield Fault(table.name, "rows that no finished run has written", UNRECORDED)


def conservation_faults(store: TableStore, rows: Sequence[Row]) -> Iterator[Fault]:
    """Yield each stage whose last run left fewer or more rows than it read.

    Where later versions exist, a vacuum may have deleted these: then nothing is counted.
    """
    checks = {
        "clean": partial(_require_counts, store, "clean", clean.row_counts),
        "curate": partial(_require_counts, store, "curate", curate.row_counts),
        "score": partial(_require_scored, store),
    }
    ordered = sorted(rows, key=lambda row: row["finished_at"])
    latest = {row["stage"]: row for row in ordered if row["state"] == "done"}
    for stage, check in checks.items():
        row = latest.get(stage)
        if row and _is_current(store, row):
            fix = f"Run jobs/{stage}.py again with --rerun"
            yield from caught(f"the result of {title_of(row)}", partial(check, row), fix)


def _require_counts(
    store: TableStore, stage: str, queries: Callable[[Versions], dict[str, str]], row: Row
) -> None:
    versions = row["input_versions"] | row["output_versions"]
    advice = "The tables have fewer or more rows than the run read."
    require_conserved(stage, store.counts(queries(versions)), advice)


def _require_scored(store: TableStore, row: Row) -> None:
    """Raise IntegrityError if a review of the run's silver version has no row of its model."""
    name = json.loads(row["config"])["model_name"]
    version = row["input_versions"]["model_version"]
    silver = store.read(SILVER_REVIEWS, row["input_versions"][SILVER_REVIEWS.name])
    n_missing = score.unscored(silver, store.read(GOLD_SCORES), name, version).count()
    if n_missing:
        raise IntegrityError(f"gold.scores: {n_missing:,} reviews lack a score of {name} {version}")


def _is_current(store: TableStore, row: Row) -> bool:
    """Return whether what a run read and left is the latest, or in a table that only grows."""
    versions = row["input_versions"] | row["output_versions"]
    return all(
        store.exists(table)
        and (table.is_append_only or versions[table.name] == store.version(table))
        for table in TABLES
        if table.name in versions
    )


def _is_past(
    store: TableStore,
    output: Recorded,
    vacuumed_at: datetime | None,
    needed: Set[tuple[str, int]],
) -> bool:
    """Return whether the last recorded vacuum may have deleted files of this version."""
    if vacuumed_at is None or vacuumed_at <= output.run["finished_at"]:
        return False
    is_latest = output.version == store.version(output.table)
    is_needed = (output.table.name, output.version) in needed
    return not (is_latest or is_needed)


def _lacks_files(store: TableStore, output: Recorded) -> bool:
    files = vacuum.files_read_by(store, output.table, [output.version])
    try:
        vacuum.require_present(store, output.table, files)
    except IntegrityError:
        return True
    return False
