"""Ingest files of reviews into bronze. The same file, under any file name, adds nothing.

    spark-submit --properties-file spark-defaults.conf jobs/ingest.py --lake lake
    spark-submit --properties-file spark-defaults.conf jobs/ingest.py \\
        --source csv --path landing/shop --name shop --text-column body --label-column label

Reads   the packaged reviews, or --path: files, directories, patterns
Writes  bronze.reviews, ops.deliveries, ops.runs
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.flag_rules import between
from pipelines.ingest.sources import Delivery, deliver
from pipelines.lake.config import LakeConfig
from schemas import BRONZE_REVIEWS, OPS_DELIVERIES, OPS_RUNS

log = logging.getLogger("reviewlake")


@dataclass(frozen=True)
class IngestConfig:
    """What to ingest, how much of it, and where to."""

    delivery: Delivery = cli.group(Delivery)
    lake: LakeConfig = cli.group(LakeConfig)
    max_rows: int = cli.flag(
        "rows to keep of each file, evenly spread over it; 0 = all", 0, must_be=between(0)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Stage the new files, append the rows that bronze lacks, and write what came of each file."""
    config = cli.parse(IngestConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines.ingest import deliveries
    from pipelines.ingest.intake import run_of, take
    from pipelines.lake import ledger
    from pipelines.lake.tables import open_lake

    delivery = config.delivery
    paths = deliver(delivery, config.lake.landing_path)
    store = open_lake("ingest", config.lake, (BRONZE_REVIEWS, OPS_DELIVERIES, OPS_RUNS))
    settings = deliveries.settings_sha256(config)
    before = deliveries.taken_before(store, len(paths), settings)
    new = deliveries.new_files(paths, before)
    if not new:
        log.info("ingest: nothing new: %s files are known; --rerun reads them", f"{len(paths):,}")
        return
    files, copies, outcomes = deliveries.hashed(new)
    fresh, known = deliveries.split_known(files, before)
    if len(paths) == 1 and fresh and ledger.already_done(store, run_of(config, fresh)):
        return
    taken = take(store, config, delivery, fresh, config.max_rows)
    outcomes += [*known, *taken.outcomes]
    outcomes += deliveries.of_copies(copies, outcomes)
    listed = deliveries.record(
        store, outcomes, source=delivery.source_name, settings=settings, run_key=taken.run.key
    )
    deliveries.report(outcomes, n_unchanged=len(paths) - len(new))
    commits = [*taken.commits, listed]
    # Written even if no row was added: the last run may have been killed just before this line.
    is_done = taken.commits or (known and not fresh)
    state = "done" if is_done else "refused"
    ledger.finish(store, taken.run, commits, taken.counts, state=state)
    deliveries.raise_worst(outcomes, len(paths))


if __name__ == "__main__":
    program.run(main)
