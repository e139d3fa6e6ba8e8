"""Score reviews as they arrive: ingest, clean and score in turn, batch by batch.

    spark-submit --properties-file spark-defaults.conf jobs/stream.py --lake lake \\
        --trigger "30 seconds" --source csv --path landing/shop --name shop --text-column body

Reads   the files at --path, or without it what other jobs add to bronze.reviews; the model
Writes  bronze.reviews, ops.deliveries, silver.reviews, silver.rejects, gold.scores, ops.runs
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.flag_rules import matching
from pipelines.ingest.sources import PACKAGED, Delivery
from pipelines.lake.config import LakeConfig
from pipelines.tracking.scoring import Scoring
from schemas import (
    BRONZE_REVIEWS,
    GOLD_SCORES,
    OPS_DELIVERIES,
    OPS_MODELS,
    OPS_RUNS,
    SILVER_REJECTS,
    SILVER_REVIEWS,
)

log = logging.getLogger("reviewlake")

TABLES = (
    BRONZE_REVIEWS,
    SILVER_REVIEWS,
    SILVER_REJECTS,
    GOLD_SCORES,
    OPS_DELIVERIES,
    OPS_MODELS,
    OPS_RUNS,
)
AVAILABLE_NOW = "available-now"
SECONDS = {"second": 1.0, "minute": 60.0}


def interval_of(trigger: str) -> float | None:
    """Return the seconds between the starts of two batches; None for available-now."""
    if trigger == AVAILABLE_NOW:
        return None
    number, unit = trigger.split()
    return int(number) * SECONDS[unit.removesuffix("s")]


@dataclass(frozen=True)
class StreamConfig:
    """Flags of this job."""

    trigger: str = flag(
        "available-now: what is there, then end; or the time between two batches, until stopped",
        AVAILABLE_NOW,
        must_be=matching(
            f"{AVAILABLE_NOW}|[1-9][0-9]{{0,3}} ({'|'.join(SECONDS)})s?",
            f'{AVAILABLE_NOW}, or a time such as "30 seconds" or "5 minutes"',
        ),
    )
    delivery: Delivery = group(Delivery)
    scoring: Scoring = group(Scoring)
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        if self.lake.rerun:
            raise ValueError("--rerun belongs to the jobs ingest, clean and score")
        if self.delivery.sha256 or any("://" in path for path in self.delivery.locations):
            raise ValueError("--path must be on this machine or in a volume: a URL stays the same")

    @property
    def delivered(self) -> Delivery | None:
        """The files to take; None to wait for what other jobs ingest."""
        return None if self.delivery.source in PACKAGED else self.delivery


def main(argv: Sequence[str] | None = None) -> None:
    """Score what is there; with a time as --trigger, go on until SIGTERM or Ctrl-C."""
    config = cli.parse(StreamConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from functools import partial

    from pipelines.lake.signals import request_from_java, stop_requested
    from pipelines.lake.tables import open_lake
    from pipelines.stream import Stream, follow

    with stop_requested() as stopping:
        store = open_lake("stream", config.lake, TABLES)
        stream = Stream(store, config.delivered, config.scoring)
        interval_s = interval_of(config.trigger)
        if interval_s is None:
            log.info("stream: %s", stream.run_batch() or "nothing new")
            return
        request_from_java(store.spark, stopping)
        log.info("stream: a batch every %s; SIGTERM ends it after the one in hand", config.trigger)
        follow(partial(stream.run_batch, waits=True), interval_s, stopping)
        log.info("stream: stopped")


if __name__ == "__main__":
    program.run(main)
