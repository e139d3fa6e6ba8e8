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
from schemas import BRONZE_REVIEWS, OPS_RUNS, SILVER_REJECTS, SILVER_REVIEWS


@dataclass(frozen=True)
class CleanConfig:
    """Flags of this job."""

    full: bool = cli.flag("clean all rows again, and say whether anything differs", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Clean the rows that bronze has added since the last run; all of them if the rules changed."""
    config = cli.parse(CleanConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines import clean
    from pipelines.lake import ledger
    from pipelines.lake.commits import versions_left
    from pipelines.lake.tables import open_lake

    store = open_lake(
        "clean", config.lake, (BRONZE_REVIEWS, SILVER_REVIEWS, SILVER_REJECTS, OPS_RUNS)
    )
    version = store.latest(BRONZE_REVIEWS)
    run = ledger.start("clean", config, {BRONZE_REVIEWS.name: version})
    if ledger.already_done(store, run):
        return
    base = ledger.base_of(store, run, BRONZE_REVIEWS)
    with clean.cleaned_rows(store, version, base.since if base else None) as cleaned:
        grouped = clean.group_by_text(cleaned.rows)
        # The rejects first: a killed run must not lose the copies of a text that leaves silver.
        rejects = clean.silver_rejects(cleaned.rows, grouped)
        rejected = store.synchronise(SILVER_REJECTS, rejects, cleaned.keys)
        reviews = clean.silver_reviews(grouped)
        kept = store.synchronise(SILVER_REVIEWS, reviews, cleaned.review_ids)
        base = base if cleaned.is_increment else None
    versions = {BRONZE_REVIEWS.name: version, **versions_left([kept, rejected])}
    counts = clean.counted(store, versions, base)
    clean.require_all_rows(counts, cleaned.n_new, base)
    provenance.log_code("clean")
    ledger.report_differences(store, run, [kept, rejected])
    since = {BRONZE_REVIEWS.name: base.since} if base else {}
    ledger.finish(store, run, [kept, rejected], counts, input_since=since)


if __name__ == "__main__":
    program.run(main)
