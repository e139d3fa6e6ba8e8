"""Clean bronze reviews into silver.

    spark-submit --properties-file spark-defaults.conf jobs/clean.py --lake lake

Reads   bronze.reviews
Writes  silver.reviews, silver.rejects, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program, provenance
from pipelines.cli import group
from pipelines.lake.config import LakeConfig
from schemas import BRONZE_REVIEWS, SILVER_REJECTS, SILVER_REVIEWS


@dataclass(frozen=True)
class CleanConfig:
    """Flags of this job."""

    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Clean every bronze row: all rows are read, only changed rows are written."""
    config = cli.parse(CleanConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines.clean import (
        clean_reviews,
        group_by_text,
        row_counts,
        silver_rejects,
        silver_reviews,
    )
    from pipelines.lake import ledger
    from pipelines.lake.frames import require_conserved
    from pipelines.lake.staging import staged
    from pipelines.lake.tables import open_lake, versions_left

    store = open_lake("clean", config.lake)
    version = store.latest(BRONZE_REVIEWS)
    run = ledger.start("clean", config, {BRONZE_REVIEWS.name: version})
    if ledger.already_done(store, run):
        return
    bronze = store.read(BRONZE_REVIEWS, version)
    with staged(store, clean_reviews(bronze), "clean") as cleaned:
        grouped = group_by_text(cleaned)
        kept = store.synchronise(SILVER_REVIEWS, silver_reviews(grouped))
        rejected = store.synchronise(SILVER_REJECTS, silver_rejects(cleaned, grouped))
    versions = {BRONZE_REVIEWS.name: version, **versions_left([kept, rejected])}
    counts = store.counts(row_counts(versions))
    advice = "Run jobs/clean.py again with --rerun; report it if it happens again."
    require_conserved("silver.reviews", counts, advice)
    provenance.log_code("clean")
    ledger.finish(store, run, [kept, rejected], counts)


if __name__ == "__main__":
    program.run(main)
