"""Ingest a file of reviews into bronze. The same file, under any file name, adds nothing.

    spark-submit --properties-file spark-defaults.conf jobs/ingest.py --lake lake
    spark-submit --properties-file spark-defaults.conf jobs/ingest.py \\
        --source csv --path new.csv --name shop --text-column body --label-column label

Reads   the packaged reviews, or --path
Writes  bronze.reviews, ops.runs
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipelines import cli, program
from pipelines.flag_rules import between
from pipelines.ingest.sources import Delivery, deliver
from pipelines.lake.config import LakeConfig
from schemas import BRONZE_REVIEWS

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class IngestConfig:
    """What to ingest, how much of it, and where to."""

    delivery: Delivery = cli.group(Delivery)
    lake: LakeConfig = cli.group(LakeConfig)
    max_rows: int = cli.flag(
        "rows to keep, evenly spread over the file; 0 = all", 0, must_be=between(0)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Stage the file, append the rows that bronze lacks, and write the run's row."""
    config = cli.parse(IngestConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines.ingest import bronze
    from pipelines.lake import ledger
    from pipelines.lake.tables import open_lake

    landing = config.lake.landing_path
    file, sha256 = deliver(config.delivery, landing)
    store = open_lake("ingest", config.lake)
    run = ledger.start("ingest", config, {file.name: sha256})
    if ledger.already_done(store, run):
        return
    with bronze.staged_delivery(config.delivery, file, sha256, landing) as staged:
        records = store.spark.read.parquet(config.lake.readable(staged.parquet))
        bronze.require_equal_counts(file.name, staged.n_rows, records.count())
        chosen = bronze.evenly_spread(records, staged.n_rows, config.max_rows)
        rows = bronze.bronze_rows(chosen, staged, run.key, datetime.now(UTC))
        store.create(BRONZE_REVIEWS)
        left_out = max(staged.n_rows - config.max_rows, 0) if config.max_rows else 0
        n_chosen = staged.n_rows - left_out
        compared, commit = bronze.add_missing(store, file.name, rows, n_rows=n_chosen)
        counts = {"in": staged.n_rows, **compared, "left_out": left_out}
        outcomes = [f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items()]
        log.info("%s: %s", file.name, ", ".join(outcomes))
    # Written even if no row was added: the last run may have been killed just before this line.
    ledger.finish(store, run, [commit], counts)


if __name__ == "__main__":
    program.run(main)
