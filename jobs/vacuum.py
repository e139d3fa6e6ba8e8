"""Delete the files that no needed table version reads, and only those: what a model learned from stays readable.

    spark-submit --properties-file spark-defaults.conf jobs/vacuum.py --lake lake --dry-run
    spark-submit --properties-file spark-defaults.conf jobs/vacuum.py --lake lake

Needed are the versions that were current in the last --older-than-hours, every version that a registered model version
learned from (gold, and the silver and bronze behind it), and those that a run tagged keep=true has read.

Reads   the registry, ops.models, the file listing of every table
Writes  nothing; deletes files, and what killed runs left in the landing directory
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from pipelines.operate.vacuum import (
    RECENT,
    Pin,
    pins_of_model,
    require_known,
    summary,
    unneeded,
    versions_kept,
)
from pipelines.tracking import model_table, registry, runs
from pipelines.tracking.store import connect
from schemas import TABLES

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class VacuumConfig:
    """Flags of this job."""

    table: str = flag("only this table; default all", "", ("", *(table.name for table in TABLES)))
    forget: str = flag("versions of --table to do without, as 3-7; refused where one is needed", "")
    older_than_hours: float = flag(
        "spare what was current, or written, since: work under way may need it", 168.0
    )
    dry_run: bool = flag("only say what would be deleted", False)
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if self.forget and not self.table:
            raise ValueError("--forget needs --table")
        if self.older_than_hours < 0:
            raise ValueError(f"--older-than-hours must be 0 or more, got {self.older_than_hours}")


def main(argv: Sequence[str] | None = None) -> None:
    """List the pins, find the files that none of them needs, delete those, look that the needed ones are there."""
    config = cli.parse(VacuumConfig, argv, __doc__)
    store = TableStore(get_session("vacuum", config.lake), config.lake)
    client = connect(config.lake)
    known = model_table.model_records(store)
    recorded = {model.name for model in known}
    # After the tables: what is registered meanwhile is missed by neither.
    names = registry.names(client, config.lake, recorded)
    live = registry.live_versions(client, names)
    require_known(live, {model.key for model in known}, names)
    pins = [pin for model in known if model.key in live for pin in pins_of_model(model)]
    pins += [
        Pin(table, version, f"run {run_id}, keep") for run_id, table, version in runs.kept(client)
    ]
    before_ms = int(time.time() * 1_000 - config.older_than_hours * HOUR_MS)
    for table in TABLES:
        if store.exists(table) and config.table in ("", table.name):
            with store.lock(table):
                recent = [
                    Pin(table.name, v, RECENT)
                    for v in vacuum.current_since(store, table, before_ms)
                ]
                mine = [pin for pin in pins if pin.table == table.name] + recent
                kept = versions_kept(table.name, config.forget, store.version(table), mine)
                needed = vacuum.files_read_by(store, table, {pin.version for pin in mine})
                vacuum.require_present(store, table, needed)
                spared = vacuum.files_read_by(store, table, kept) if config.forget else needed
                gone = unneeded(vacuum.inventory(store, table), spared, before_ms)
                n_files, n_bytes = vacuum.size_of(gone)
                print(summary(table.name, mine, n_files, n_bytes, config.dry_run))
                if n_files and not config.dry_run:
                    vacuum.delete_files(store, table, gone)
                    vacuum.require_present(store, table, needed)
    if not config.dry_run:
        vacuum.clear_staging(config.lake.landing_path, before_ms)


if __name__ == "__main__":
    program.run(main)
