"""Curate silver reviews into gold: what a model may learn from.

    spark-submit --properties-file spark-defaults.conf jobs/curate.py --lake lake --split-policy hash

Reads   silver.reviews
Writes  gold.reviews, gold.rejects; tells the tasks behind it gold_version
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.bundle import task_values
from pipelines.cli import flag, group
from pipelines.curate import (
    POLICIES,
    assign,
    check_sources,
    check_splits,
    gold_rejects,
    gold_reviews,
    with_tokens,
)
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import content_hash, require_conserved
from pipelines.lake.session import get_session
from pipelines.lake.staging import staged
from pipelines.lake.tables import TableStore
from pipelines.model import backbone
from schemas import GOLD_REJECTS, GOLD_REVIEWS, SILVER_REVIEWS


@dataclass(frozen=True)
class CurateConfig:
    """Flags of this job."""

    split_policy: str = flag(
        "hash of the text, the source's official split, or the seed's three files", "hash", POLICIES
    )
    sources: str = flag("sources to learn from, comma-separated; default all", "")
    backbone: str = flag(
        "encoder whose tokens n_tokens counts: a name or a directory", backbone.EMBEDDED
    )
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Curate one version of silver: all rows are read, only what differs is written."""
    config = cli.parse(CurateConfig, argv, __doc__)
    store = TableStore(get_session("curate", config.lake), config.lake)
    version = store.latest(SILVER_REVIEWS)
    tokenizer = backbone.load_tokenizer(backbone.find(config.backbone)).to_str()
    tokenizer_sha256 = hashlib.sha256(tokenizer.encode()).hexdigest()
    run = ledger.start(
        "curate", config, {SILVER_REVIEWS.name: version, "tokenizer": tokenizer_sha256}
    )
    if left := ledger.already_done(store, run):
        task_values.set_value("gold_version", left[GOLD_REVIEWS.name])
        return
    sources = tuple(name.strip() for name in config.sources.split(",") if name.strip())
    check_sources(store.read(SILVER_REVIEWS, version), sources)
    assigned = assign(store.read(SILVER_REVIEWS, version), config.split_policy, sources)
    with staged(store, with_tokens(assigned, tokenizer), "curate") as counted:
        splits = check_splits(counted)
        kept = store.synchronise(GOLD_REVIEWS, gold_reviews(counted))
        rejected = store.synchronise(GOLD_REJECTS, gold_rejects(counted))
    counts = store.counts(
        {
            "in": f"SELECT count(*) FROM silver.reviews VERSION AS OF {version}",
            "kept": f"SELECT count(*) FROM gold.reviews VERSION AS OF {kept.version}",
            "rejected": f"SELECT count(*) FROM gold.rejects VERSION AS OF {rejected.version}",
        }
    )
    require_conserved(
        "gold.reviews", counts, "Run jobs/curate.py again with --rerun; report it if it comes back."
    )
    gold_hash = content_hash(store.read(GOLD_REVIEWS, kept.version))
    ledger.finish(store, run, [kept, rejected], counts | splits, gold_hash)
    task_values.set_value("gold_version", kept.version)


if __name__ == "__main__":
    program.run(main)
