"""What a frame holds: its contract checked, its content hashed, its rows accounted for."""

import hashlib
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import MapType, StructType

from pipelines.errors import ContractError, IntegrityError
from schemas import Table


def conform(frame: DataFrame, table: Table) -> DataFrame:
    """The frame's columns in the contract's order; raises ContractError on a missing or differently typed one."""
    given = {field.name: field.dataType for field in frame.schema.fields}
    listing = ", ".join(given)
    for column in table.columns:
        expected = column.type.simpleString()
        found = given[column.name].simpleString() if column.name in given else "no such column"
        if found != expected:
            raise ContractError(
                f"{table.name}.{column.name}: expected {expected}, found {found}. Columns given: {listing}. "
                "Fix the transformation, or change the contract in schemas/."
            )
    return frame.select(*table.column_names)


def one_row(spark: SparkSession, table: Table, values: Sequence[object]) -> DataFrame:
    """A row of `table` from the values of its columns but the last, which is the time: now."""
    *fields, time = table.schema.fields
    frame = spark.createDataFrame([tuple(values)], StructType(fields)).coalesce(
        1
    )  # else an empty file is left beside
    return frame.withColumn(time.name, F.current_timestamp())


def comparable(frame: DataFrame, name: str, column: Column | None = None) -> Column:
    """A column as Spark can hash and compare it: a map, which it can not, as its entries in the order of their keys."""
    given = F.col(name) if column is None else column
    return (
        F.array_sort(F.map_entries(given))
        if isinstance(frame.schema[name].dataType, MapType)
        else given
    )


def content_hash(frame: DataFrame) -> str:
    """Order-free hash of the rows over the frame's columns, in their given order: 32 hex digits.

    Count, xor and sum of xxhash64: xor alone misses pairs, the sum overflows a long under ANSI. xxhash64 steps over
    a null, so that (null, 'a') would equal ('a', null): which columns are null is hashed too.
    """
    values = [comparable(frame, name) for name in frame.columns]
    nulls = F.concat(*[F.isnull(name).cast("int").cast("string") for name in frame.columns])
    hashed = frame.select(F.xxhash64(*values, nulls).alias("row_hash"))
    row = hashed.agg(
        F.count("*").alias("n_rows"),
        F.bit_xor("row_hash").alias("xor"),
        F.sum(F.col("row_hash").cast("decimal(38,0)")).alias("total"),
    ).first()
    assert row is not None  # noqa: S101  # an aggregate without groups has one row
    return hashlib.sha256(f"{row['n_rows']}:{row['xor']}:{row['total']}".encode()).hexdigest()[:32]


def require_conserved(where: str, rows: Mapping[str, int], advice: str) -> None:
    """Raise IntegrityError unless the rows `in` are those of the other outcomes together: none lost, none doubled."""
    outcomes = {outcome: n for outcome, n in rows.items() if outcome != "in"}
    if rows["in"] != sum(outcomes.values()):
        listing = " + ".join(
            f"{n:,} {outcome.replace('_', ' ')}" for outcome, n in outcomes.items()
        )
        found = f"{listing} = {sum(outcomes.values()):,}"
        raise IntegrityError(
            f"{where}: expected {rows['in']:,} rows accounted for, found {found}. {advice}"
        )
