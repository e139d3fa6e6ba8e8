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
    from pipelines.lake.tables import open_lake

    tables = (BRONZE_REVIEWS, SILVER_REVIEWS, SILVER_REJECTS, OPS_RUNS)
    clean.run(open_lake("clean", config.lake, tables), config)


if __name__ == "__main__":
    program.run(main)
