"""Select the labelled silver reviews for gold, and assign each to a split.

    spark-submit --properties-file spark-defaults.conf jobs/curate.py --split-policy hash

Reads   silver.reviews
Writes  gold.reviews, gold.rejects, ops.runs; sets the Databricks task value gold_version
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.bundle import task_values
from pipelines.cli import flag, group
from pipelines.flag_rules import PATH
from pipelines.lake.config import LakeConfig
from pipelines.model.backbone import EMBEDDED
from schemas import GOLD_REJECTS, GOLD_REVIEWS, OPS_RUNS, SILVER_REVIEWS

POLICIES = ("hash", "official", "seed")


@dataclass(frozen=True)
class CurateConfig:
    """Flags of this job."""

    split_policy: str = flag(
        "hash = by a hash of the text; official = the source's split, with validation taken from "
        "train; seed = the source's split, unchanged",
        "hash",
        POLICIES,
    )
    sources: str = flag("sources to learn from, comma-separated; default all", "")
    backbone: str = flag(
        "encoder whose tokenizer counts n_tokens: a name or a directory",
        EMBEDDED,
        must_be=PATH,
    )
    full: bool = flag("place all reviews again, and say whether anything differs", False)
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Place what silver has changed since the last run; all of it if rules or settings changed."""
    config = cli.parse(CurateConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    import hashlib

    from pipelines import curate
    from pipelines.lake import ledger
    from pipelines.lake.commits import versions_left
    from pipelines.lake.frames import require_conserved
    from pipelines.lake.staging import staged
    from pipelines.lake.tables import open_lake
    from pipelines.model import backbone

    store = open_lake("curate", config.lake, (SILVER_REVIEWS, GOLD_REVIEWS, GOLD_REJECTS, OPS_RUNS))
    version = store.latest(SILVER_REVIEWS)
    tokenizer = backbone.load_tokenizer(backbone.find(config.backbone)).to_str()
    tokenizer_sha256 = hashlib.sha256(tokenizer.encode()).hexdigest()
    inputs: dict[str, int | str] = {SILVER_REVIEWS.name: version, "tokenizer": tokenizer_sha256}
    run = ledger.start("curate", config, inputs)
    if outputs := ledger.already_done(store, run):
        task_values.set_value("gold_version", outputs[GOLD_REVIEWS.name])
        return
    base = ledger.base_of(store, run, SILVER_REVIEWS)
    sources = tuple(name.strip() for name in config.sources.split(",") if name.strip())
    curate.check_sources(store.read(SILVER_REVIEWS, version), sources)
    affected = curate.affected_rows(store, version, base.since if base else None)
    since = {SILVER_REVIEWS.name: base.since} if base and affected.review_ids is not None else {}
    assigned = curate.assign(affected.rows, config.split_policy, sources)
    with staged(store, curate.with_tokens(assigned, tokenizer), "curate") as counted:
        curate.check_splits(counted, is_whole=not since)
        ids = affected.review_ids
        rejected = store.synchronise(GOLD_REJECTS, curate.gold_rejects(counted), ids)
        kept = store.synchronise(GOLD_REVIEWS, curate.gold_reviews(counted), ids)
    versions = {SILVER_REVIEWS.name: version, **versions_left([kept, rejected])}
    counts = store.counts(curate.row_counts(versions))
    advice = "Run jobs/curate.py again with --full; report it if it happens again."
    require_conserved("gold.reviews", counts, advice)
    splits = curate.rows_by_split(store.read(GOLD_REVIEWS, kept.version))
    ledger.report_differences(store, run, [kept, rejected])
    ledger.finish(store, run, [kept, rejected], counts | splits, input_since=since)
    task_values.set_value("gold_version", kept.version)


if __name__ == "__main__":
    program.run(main)
