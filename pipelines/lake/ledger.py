"""The ledger ops.runs: what a run is, whether it has been done, and its row once it is."""

import hashlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines import cli
from pipelines.lake.frames import one_row
from pipelines.lake.tables import Commit, TableStore
from pipelines.provenance import git_commit
from schemas import OPS_RUNS, TABLES, Table

log = logging.getLogger("reviewlake")

# Where things lie does not change what is computed: the same run in another directory has the same key.
PLACES = ("lake", "catalog", "landing", "schemas", "jars", "lock_wait_s", "rerun", "path")
# Nor do names for what the run's inputs say exactly: version -1 and version 3, where 3 is the latest one.
RESOLVED = ("gold_version", "model")


@dataclass(frozen=True)
class Run:
    """One run of a stage, named by what it computes."""

    key: str
    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, int | str]
    started_s: float


def start(stage: str, config: Any, inputs: Mapping[str, int | str]) -> Run:
    """A run of `stage` on `inputs`: table versions by table name, and hashes of files by a name of their own."""
    settings = {name: value for name, value in cli.as_params(config).items() if name not in PLACES}
    computed = {name: value for name, value in settings.items() if name not in RESOLVED}
    release = importlib.metadata.version("reviewlake")
    named = json.dumps([stage, computed, dict(inputs), release], sort_keys=True)
    return Run(
        hashlib.sha256(named.encode()).hexdigest(), stage, settings, inputs, time.monotonic()
    )


def already_done(store: TableStore, run: Run) -> dict[str, int] | None:
    """The versions that the same run left when it finished, if its tables are as it left them: nothing is to do."""
    if store.config.rerun or not store.exists(OPS_RUNS):
        return None
    done = store.read(OPS_RUNS).where((F.col("run_key") == run.key) & (F.col("state") == "done"))
    last = done.orderBy(F.desc("finished_at")).select("output_versions", "finished_at").first()
    if last is None:
        return None
    for table in TABLES:
        left = last["output_versions"].get(table.name)
        if left is not None and not _is_intact(store, table, left):
            return None
    versions = ", ".join(
        f"{name} v{version}" for name, version in sorted(last["output_versions"].items())
    )
    log.info(
        "%s: nothing to do, done at %s UTC (%s); --rerun does it again",
        run.stage,
        f"{last['finished_at'].astimezone(UTC):%Y-%m-%d %H:%M}",
        versions,
    )
    return dict(last["output_versions"])


def was_refused(store: TableStore, run: Run) -> bool:
    """Whether the gate has refused in the same run before."""
    if store.config.rerun or not store.exists(OPS_RUNS):
        return False
    same = (F.col("run_key") == run.key) & (F.col("state") == "refused")
    return not store.read(OPS_RUNS).where(same).isEmpty()


def _is_intact(store: TableStore, table: Table, left: int) -> bool:
    """Whether the table still holds what a run left at that version."""
    if not store.exists(table):
        return False
    now = store.version(table)
    return now >= left if table.is_append_only else now == left


def finish(
    store: TableStore,
    run: Run,
    outputs: Sequence[Commit],
    rows: Mapping[str, int],
    output_hash: str | None = None,
    state: str = "done",
) -> None:
    """Write the run's row: after its last commit, so that a killed run is not taken for a finished one."""
    row = (
        run.key,
        run.stage,
        json.dumps(run.config, sort_keys=True),
        {name: version for name, version in run.inputs.items() if isinstance(version, int)},
        {commit.table.name: commit.version for commit in outputs},
        output_hash,
        dict(rows),
        state,
        time.monotonic() - run.started_s,
        git_commit(),
    )
    store.append(OPS_RUNS, one_row(store.spark, OPS_RUNS, row))


def complete(store: TableStore, run: Run) -> None:
    """Write the row of a run whose work is found done, where it has none: it was killed before it came to that."""
    if (
        not store.exists(OPS_RUNS)
        or store.read(OPS_RUNS).where(F.col("run_key") == run.key).isEmpty()
    ):
        finish(store, run, [], {})


def last_runs(store: TableStore, *columns: str) -> DataFrame:
    """A row a stage: its name, and these columns of the run that ended last."""
    latest = [F.max_by(name, "finished_at").alias(name) for name in columns]
    return store.read(OPS_RUNS).groupBy("stage").agg(*latest)


def input_version(
    store: TableStore, stage: str, output: str, output_version: int | None, source: str
) -> int | None:
    """The version of `source` that `stage` read when it left `output` at that version; None where nobody noted it.

    Where several runs left the same version, since nothing had changed, the first: it wrote the rows.
    """
    if output_version is None or not store.exists(OPS_RUNS):
        return None
    left = F.col("output_versions")[output] == output_version
    runs = store.read(OPS_RUNS).where((F.col("stage") == stage) & left)
    first = (
        runs.orderBy("finished_at").select(F.col("input_versions")[source].alias("version")).first()
    )
    return None if first is None else first["version"]
