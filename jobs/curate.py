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
from schemas import GOLD_REJECTS, GOLD_REVIEWS, SILVER_REVIEWS

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
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Curate one version of silver: all rows are read, only changed rows are written."""
    config = cli.parse(CurateConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    import hashlib

    from pipelines import curate
    from pipelines.lake import ledger
    from pipelines.lake.frames import require_conserved
    from pipelines.lake.staging import staged
    from pipelines.lake.tables import open_lake, versions_left
    from pipelines.model import backbone

    store = open_lake("curate", config.lake)
    version = store.latest(SILVER_REVIEWS)
    tokenizer = backbone.load_tokenizer(backbone.find(config.backbone)).to_str()
    tokenizer_sha256 = hashlib.sha256(tokenizer.encode()).hexdigest()
    inputs: dict[str, int | str] = {SILVER_REVIEWS.name: version, "tokenizer": tokenizer_sha256}
    run = ledger.start("curate", config, inputs)
    if outputs := ledger.already_done(store, run):
        task_values.set_value("gold_version", outputs[GOLD_REVIEWS.name])
        return
    silver = store.read(SILVER_REVIEWS, version)
    sources = tuple(name.strip() for name in config.sources.split(",") if name.strip())
    curate.check_sources(silver, sources)
    assigned = curate.assign(silver, config.split_policy, sources)
    with staged(store, curate.with_tokens(assigned, tokenizer), "curate") as counted:
        rows_by_split = curate.check_splits(counted)
        kept = store.synchronise(GOLD_REVIEWS, curate.gold_reviews(counted))
        rejected = store.synchronise(GOLD_REJECTS, curate.gold_rejects(counted))
    versions = {SILVER_REVIEWS.name: version, **versions_left([kept, rejected])}
    counts = store.counts(curate.row_counts(versions))
    advice = "Run jobs/curate.py again with --rerun; report it if it happens again."
    require_conserved("gold.reviews", counts, advice)
    ledger.finish(store, run, [kept, rejected], counts | rows_by_split)
    task_values.set_value("gold_version", kept.version)


if __name__ == "__main__":
    program.run(main)
