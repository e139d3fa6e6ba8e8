"""Delete files that no needed table version refers to: training data of models stays readable.

    spark-submit --properties-file spark-defaults.conf jobs/vacuum.py --lake lake --dry-run
    spark-submit --properties-file spark-defaults.conf jobs/vacuum.py --lake lake

Needed are the versions that were current in the last --older-than-hours, every version that a
registered model learned from (gold, and the silver and bronze behind it), and the versions that a
run with the tag keep has read.

Reads   the registry, ops.models, the file listing of every table
Writes  ops.runs if it deletes files; deletes files, and leftovers of killed runs in landing
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.flag_rules import MAX_HOURS, VERSIONS, between
from pipelines.lake.config import LakeConfig
from schemas import TABLES

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class VacuumConfig:
    """Flags of this job."""

    table: str = flag("only this table; default all", "", ("", *(table.name for table in TABLES)))
    forget: str = flag(
        "versions of --table that may become unreadable, for example 3-7; refused if one is needed",
        "",
        must_be=VERSIONS,
    )
    older_than_hours: float = flag(
        "keep versions that were current, and files that were written, within this many hours",
        168.0,
        must_be=between(0, MAX_HOURS),
    )
    dry_run: bool = flag("only report what would be deleted", False)
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if self.forget and not self.table:
            raise ValueError("--forget needs --table")


def main(argv: Sequence[str] | None = None) -> None:
    """List the needed versions, delete all other files, check that the needed ones exist."""
    config = cli.parse(VacuumConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark and MLflow.
    from pipelines.lake import ledger
    from pipelines.lake.tables import open_lake
    from pipelines.operate import vacuum
    from pipelines.tracking import model_table, runs
    from pipelines.tracking.store import connect

    store = open_lake("vacuum", config.lake)
    client = connect(config.lake)
    records, names, live = model_table.models_of(store, client)
    vacuum.require_known(live, {model.key for model in records}, names)
    pins = vacuum.live_pins(records, live, runs.kept(client))
    rows = ledger.rows_of(store)
    run = ledger.start("vacuum", config, {})
    # Once, before the first file goes: doctor --deep must know why old versions lack files.
    announce = cache(lambda: ledger.finish(store, run, [], {}))
    before_ms = int(time.time() * 1_000 - config.older_than_hours * HOUR_MS)
    for table in TABLES:
        if store.exists(table) and config.table in ("", table.name):
            own_pins = [pin for pin in pins if pin.table == table.name]
            line = vacuum.vacuum_table(
                store,
                table,
                own_pins,
                before_ms=before_ms,
                forget=config.forget,
                changes_read=vacuum.changes_read(rows, table, store.version(table)),
                is_dry_run=config.dry_run,
                announce=announce,
            )
            program.show(line)
    if not config.dry_run:
        vacuum.clear_staging(config.lake.landing_path, before_ms)


if __name__ == "__main__":
    program.run(main)
