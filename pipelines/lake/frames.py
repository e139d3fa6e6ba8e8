"""DataFrames: checked against their contract, hashed by content, their rows accounted for."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import MapType, StructType

from pipelines.errors import ContractError, IntegrityError
from schemas import Table


def conform(frame: DataFrame, table: Table) -> DataFrame:
    """Return the contract's columns in order; ContractError if one is missing or mistyped."""
    types = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    for column in table.columns:
        actual = types.get(column.name, "no such column")
        if actual != column.type:
            raise ContractError(
                f"{table.name}.{column.name}: expected {column.type}, found {actual}. "
                f"Columns given: {', '.join(types)}. "
                "Fix the transformation, or change the contract in schemas/."
            )
    return frame.select(*table.column_names)


def one_row(spark: SparkSession, table: Table, values: Sequence[object]) -> DataFrame:
    """Return a row of the given values, with the current time as the last column."""
    return rows_now(spark, table, [values])


def rows_now(spark: SparkSession, table: Table, rows: Sequence[Sequence[object]]) -> DataFrame:
    """Return rows of the given values, with the current time as the last column."""
    *fields, time = table.schema.fields
    frame = spark.createDataFrame([tuple(values) for values in rows], StructType(fields))
    one_partition = frame.coalesce(1)  # more partitions would write many small files
    return one_partition.withColumn(time.name, F.current_timestamp())


def comparable(frame: DataFrame, name: str) -> Column:
    """Return a column that Spark can hash and compare: a map as its entries, sorted by key."""
    column = F.col(name)
    is_map = isinstance(frame.schema[name].dataType, MapType)
    return F.array_sort(F.map_entries(column)) if is_map else column


@dataclass(frozen=True)
class Totals:
    """Count, xor and sum of the rows' hashes: what a content hash is made of.

    Xor alone misses pairs of equal rows. The totals of changes can be added to those of a table, so
    that no unchanged row is read again.
    """

    n_rows: int
    xor: int
    total: int

    @property
    def content_hash(self) -> str:
        """The order-free hash of the rows: 32 hex digits."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:32]

    def __add__(self, changes: "Totals") -> "Totals":
        return Totals(
            self.n_rows + changes.n_rows, self.xor ^ changes.xor, self.total + changes.total
        )

    def __str__(self) -> str:
        return f"{self.n_rows}:{self.xor}:{self.total}" if self.n_rows else "0:None:None"

    @classmethod
    def parse(cls, text: str) -> "Totals":
        """Return the totals that `str` has written."""
        return cls(*[0 if part == "None" else int(part) for part in text.split(":")])


def totals(frame: DataFrame, change: str = "") -> Totals:
    """Return the totals of the rows over the frame's columns.

    change  name of a column with 1 for a row that was added, -1 for one that was removed; it is not
            hashed; by default all rows were added
    """
    columns = [name for name in frame.columns if name != change]
    # xxhash64 skips nulls, so that (null, 'a') would equal ('a', null): their pattern counts too.
    values = [comparable(frame, name) for name in columns]
    nulls = F.concat(*[F.isnull(name).cast("int").cast("string") for name in columns])
    sign = F.col(change) if change else F.lit(1)
    hashed = frame.select(F.xxhash64(*values, nulls).alias("row_hash"), sign.alias("change"))
    # The sum needs a decimal: it overflows a long.
    signed = F.col("row_hash").cast("decimal(38,0)") * F.col("change").cast("decimal(1,0)")
    row = hashed.agg(
        F.sum("change").alias("n_rows"),
        F.bit_xor("row_hash").alias("xor"),
        F.sum(signed.cast("decimal(38,0)")).alias("total"),
    ).collect()[0]
    return Totals(int(row["n_rows"] or 0), int(row["xor"] or 0), int(row["total"] or 0))


def content_hash(frame: DataFrame) -> str:
    """Return an order-free hash of the rows over the frame's columns: 32 hex digits."""
    return totals(frame).content_hash


def key_counts(given: DataFrame, stored: DataFrame, key: Sequence[str]) -> tuple[int, int]:
    """Return the number of rows given, and of those whose key is stored."""
    known = stored.select(*key, F.lit(1).alias("is_stored"))
    counts = (
        given.select(*key)
        .join(known, list(key), "left")
        .agg(F.count("*").alias("given"), F.count("is_stored").alias("stored"))
    )
    row = counts.collect()[0]
    return row["given"], row["stored"]


def require_conserved(where: str, rows: Mapping[str, int], advice: str) -> None:
    """Raise IntegrityError unless the rows `in` equal the sum of all other outcomes."""
    outcomes = {outcome: n for outcome, n in rows.items() if outcome != "in"}
    n_out = sum(outcomes.values())
    if rows["in"] != n_out:
        terms = [f"{n:,} {outcome.replace('_', ' ')}" for outcome, n in outcomes.items()]
        raise IntegrityError(
            f"{where}: expected {rows['in']:,} rows accounted for, "
            f"found {' + '.join(terms)} = {n_out:,}. {advice}"
        )
