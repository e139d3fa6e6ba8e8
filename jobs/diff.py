"""Show the differences between two versions of a table.

    python jobs/diff.py --lake lake --table gold.reviews --before 1 --after -1

Reads   the table at both versions
Writes  nothing
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import cli, program
from pipelines.cli import flag, group
from pipelines.flag_rules import between
from pipelines.lake.config import LakeConfig
from schemas import TABLES

ADVICE = (
    "jobs/vacuum.py --dry-run lists the versions that are kept, jobs/doctor.py what is damaged."
)


@dataclass(frozen=True)
class DiffConfig:
    """Flags of this job."""

    table: str = flag("the table", "gold.reviews", tuple(table.name for table in TABLES))
    before: int = flag("version to start from; -1 = latest", 0, must_be=between(-1))
    after: int = flag("version to compare with it; -1 = latest", -1, must_be=between(-1))
    examples: int = flag("rows of each kind to show", 3, must_be=between(0))
    lake: LakeConfig = group(LakeConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare the rows by key, count each kind of difference, show examples."""
    config = cli.parse(DiffConfig, argv, __doc__)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines.lake.delta_errors import reading
    from pipelines.lake.tables import open_lake
    from pipelines.operate.diff import counts, differences, examples

    store = open_lake("diff", config.lake)
    table = next(table for table in TABLES if table.name == config.table)
    latest = store.latest(table)
    before = latest if config.before == -1 else config.before
    after = latest if config.after == -1 else config.after
    changed = differences(store.read(table, before), store.read(table, after), table)
    with reading(f"{table.name} versions {before} and {after}", ADVICE):
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in counts(changed).items())
        lines = examples(changed, table, config.examples)
    program.show(f"{table.name} version {before} -> {after}: {kinds}", *lines)


if __name__ == "__main__":
    program.run(main)
