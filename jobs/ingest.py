"""Ingest a delivered file of reviews into bronze. The same content again, under any name, adds nothing.

    spark-submit --properties-file spark-defaults.conf jobs/ingest.py --lake lake
    spark-submit --properties-file spark-defaults.conf jobs/ingest.py \\
        --source csv --path new.csv --name shop --text-column body --label-column label

Reads   the packaged reviews, or --path
Writes  bronze.reviews
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines import cli, program
from pipelines.ingest.bronze import (
    bronze_rows,
    compare_with_bronze,
    evenly_spread,
    require_equal_counts,
    require_same,
    staged_delivery,
)
from pipelines.ingest.sources import Delivery, deliver
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import require_conserved
from pipelines.lake.session import get_session
from pipelines.lake.tables import TableStore
from schemas import BRONZE_REVIEWS

log = logging.getLogger("reviewlake")
ADVICE = "Another ingest of the same file may have run meanwhile; run it again, which adds only what lacks."


@dataclass(frozen=True)
class IngestConfig:
    """What to ingest, how much of it, and where to."""

    delivery: Delivery = cli.group(Delivery)
    lake: LakeConfig = cli.group(LakeConfig)
    max_rows: int = cli.flag("rows to keep, evenly spread over the file; 0 = all", 0)

    def __post_init__(self) -> None:
        if self.max_rows < 0:
            raise ValueError(f"--max-rows must be 0 or more, got {self.max_rows}")


def main(argv: Sequence[str] | None = None) -> None:
    """Stage the file, append the rows that bronze lacks, and write the run's row if there were any."""
    config = cli.parse(IngestConfig, argv, __doc__)
    file, sha256 = deliver(config.delivery, config.lake.landing_path)
    store = TableStore(get_session("ingest", config.lake), config.lake)
    run = ledger.start("ingest", config, {file.name: sha256})
    if ledger.already_done(store, run):
        return
    with staged_delivery(config.delivery, file, sha256, config.lake.landing_path) as staged:
        records = store.spark.read.parquet(config.lake.readable(staged.parquet))
        require_equal_counts(file.name, staged.n_rows, records.count())
        rows = bronze_rows(
            evenly_spread(records, staged.n_rows, config.max_rows),
            staged,
            run.key,
            datetime.now(UTC),
        )
        store.create(BRONZE_REVIEWS)
        bronze = store.read(BRONZE_REVIEWS)
        found = compare_with_bronze(rows, bronze)
        require_same(file.name, found.pop("differing"))
        left_out = max(staged.n_rows - config.max_rows, 0) if config.max_rows else 0
        counts = {"in": staged.n_rows, **found, "left_out": left_out}
        log.info(
            "%s: %s",
            file.name,
            ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items()),
        )
        require_conserved(file.name, counts, ADVICE)
        commit = store.merge(
            BRONZE_REVIEWS, rows
        )  # not append: another ingest may have added the same rows
        require_conserved(file.name, counts | {"added": commit.n_added}, ADVICE)
    ledger.finish(
        store, run, [commit], counts
    )  # also of no row: a run killed before this line is noted by the next


if __name__ == "__main__":
    program.run(main)
