"""Clean bronze reviews into silver.

    spark-submit --properties-file spark-defaults.conf jobs/clean.py --lake lake

Reads   bronze.reviews
Writes  silver.reviews, silver.rejects, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
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
    from pipelines.clean import clean_reviews, group_by_text, silver_rejects, silver_reviews
    from pipelines.lake import ledger
    from pipelines.lake.frames import content_hash, require_conserved
    from pipelines.lake.staging import staged
    from pipelines.lake.tables import open_lake

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
    # Rows are counted in the tables that were written, not in the frames that were computed.
    silver = f"silver.reviews VERSION AS OF {kept.version}"
    counts = store.counts(
        {
            "in": f"SELECT count(*) FROM bronze.reviews VERSION AS OF {version}",
            "kept": f"SELECT count(*) FROM {silver}",
            "rejected": f"SELECT count(*) FROM silver.rejects VERSION AS OF {rejected.version}",
            "duplicates": f"SELECT coalesce(sum(size(origins) - 1), 0) FROM {silver}",
        }
    )
    advice = "Run jobs/clean.py again with --rerun; report it if it happens again."
    require_conserved("silver.reviews", counts, advice)
    silver_hash = content_hash(store.read(SILVER_REVIEWS, kept.version))
    ledger.finish(store, run, [kept, rejected], counts, output_hash=silver_hash)


if __name__ == "__main__":
    program.run(main)
