"""What changed in a table between two versions: Delta's change data feed.

The cost follows the changes, not the rows that the table holds.
"""

from collections.abc import Sequence

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake.frames import Totals, totals
from pipelines.lake.tables import TableStore
from schemas import Table

ADDED = ("insert", "update_postimage")
# The versions before the feed was switched on: the table is of an older release.
NOT_RECORDED = "DELTA_MISSING_CHANGE_DATA"


def changes_of(store: TableStore, table: Table, since: int, version: int) -> DataFrame | None:
    """Return the rows that the commits after `since`, up to `version`, have added and removed.

    The column `change` is 1 for an added row, -1 for a removed one; an update does both. None if
    the table has no record of them.
    """
    if since == version:
        return store.read(table, version).limit(0).withColumn("change", F.lit(1))
    feed = (
        store.spark.read.option("readChangeFeed", "true")
        .option("startingVersion", since + 1)
        .option("endingVersion", version)
        .table(store.config.physical(table.name))
    )
    change = F.when(F.col("_change_type").isin(*ADDED), 1).otherwise(-1)
    columns = store.read(table, version).columns
    rows = feed.select(*columns, change.alias("change"))
    recorded = store.changes_since.get(table.name)
    if recorded is None or since < recorded:
        try:
            rows.isEmpty()
        except (PySparkException, Py4JError) as error:
            if NOT_RECORDED not in str(error):
                raise
            return None
        store.changes_since[table.name] = since
    return rows


def net_changes(changes: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Return the rows that differ in these columns between both versions, with their `change`.

    What was added and removed again is not there.
    """
    net = changes.groupBy(*columns).agg(F.sum("change").cast("int").alias("change"))
    return net.where("change != 0")


def totals_since(store: TableStore, table: Table, since: int, version: int) -> Totals | None:
    """Return the totals of what changed after `since`; None if it cannot be told."""
    if store.read(table, since).columns != store.read(table, version).columns:
        return None  # the hashes of all rows have changed
    changes = changes_of(store, table, since, version)
    return None if changes is None else totals(changes, change="change")
