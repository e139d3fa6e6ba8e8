"""Ingest files of reviews into bronze. The same file, under any file name, adds nothing.

    spark-submit --properties-file spark-defaults.conf jobs/ingest.py --lake lake
    spark-submit --properties-file spark-defaults.conf jobs/ingest.py \\
        --source csv --path landing/shop --name shop --text-column body --label-column label

Reads   the packaged reviews, or --path: files, directories, patterns
Writes  bronze.reviews, ops.deliveries, ops.runs
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.ingest.files import FoundFile
from pipelines.ingest.sources import Delivery, deliver
from pipelines.lake.config import LakeConfig
from schemas import BRONZE_REVIEWS, OPS_DELIVERIES, OPS_RUNS


@dataclass(frozen=True)
class IngestConfig:
    """What to ingest, and where to."""

    delivery: Delivery = cli.group(Delivery)
    lake: LakeConfig = cli.group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Stage the new files, append the rows that bronze lacks, and write what came of each file."""
    config = cli.parse(IngestConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines.ingest import deliveries, intake
    from pipelines.lake.tables import open_lake

    paths = deliver(config.delivery, config.lake.landing_path)
    store = open_lake("ingest", config.lake, (BRONZE_REVIEWS, OPS_DELIVERIES, OPS_RUNS))
    found = [FoundFile.at(path) for path in paths]
    outcomes = intake.run(store, config, config.delivery, found)
    deliveries.raise_worst(outcomes, len(paths))


if __name__ == "__main__":
    program.run(main)
