"""Clean bronze reviews into silver.

    spark-submit --properties-file spark-defaults.conf jobs/clean.py --lake lake

Reads   bronze.reviews
Writes  silver.reviews, silver.rejects
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.clean import clean_reviews, group_by_text, silver_rejects, silver_reviews
from pipelines.cli import group
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import content_hash, require_conserved
from pipelines.lake.session import get_session
from pipelines.lake.staging import staged
from pipelines.lake.tables import TableStore
from schemas import BRONZE_REVIEWS, SILVER_REJECTS, SILVER_REVIEWS


@dataclass(frozen=True)
class CleanConfig:
    """Flags of this job."""

    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Clean every bronze row: all are read, only what differs is written."""
    config = cli.parse(CleanConfig, argv, __doc__)
    store = TableStore(get_session("clean", config.lake), config.lake)
    version = store.latest(BRONZE_REVIEWS)
    run = ledger.start("clean", config, {BRONZE_REVIEWS.name: version})
    if ledger.already_done(store, run):
        return
    bronze = store.read(BRONZE_REVIEWS, version)
    with staged(store, clean_reviews(bronze), "clean") as cleaned:
        grouped = group_by_text(cleaned)
        kept = store.synchronise(SILVER_REVIEWS, silver_reviews(grouped))
        rejected = store.synchronise(SILVER_REJECTS, silver_rejects(cleaned, grouped))
    # The law, by SQL over what was written, not over what was meant to be.
    counts = store.counts(
        {
            "in": f"SELECT count(*) FROM bronze.reviews VERSION AS OF {version}",
            "kept": f"SELECT count(*) FROM silver.reviews VERSION AS OF {kept.version}",
            "rejected": f"SELECT count(*) FROM silver.rejects VERSION AS OF {rejected.version}",
            "duplicates": "SELECT coalesce(sum(size(origins) - 1), 0) "
            f"FROM silver.reviews VERSION AS OF {kept.version}",
        }
    )
    require_conserved(
        "silver.reviews",
        counts,
        "Run jobs/clean.py again with --rerun; report it if it comes back.",
    )
    ledger.finish(
        store, run, [kept, rejected], counts, content_hash(store.read(SILVER_REVIEWS, kept.version))
    )


if __name__ == "__main__":
    program.run(main)
