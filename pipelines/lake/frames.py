"""DataFrames: checked against their contract, hashed by content, their rows accounted for."""

import hashlib
from collections.abc import Mapping, Sequence

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
    *fields, time = table.schema.fields
    frame = spark.createDataFrame([tuple(values)], StructType(fields))
    one_partition = frame.coalesce(1)  # more partitions would write empty files
    return one_partition.withColumn(time.name, F.current_timestamp())


def comparable(frame: DataFrame, name: str) -> Column:
    """Return a column that Spark can hash and compare: a map as its entries, sorted by key."""
    column = F.col(name)
    is_map = isinstance(frame.schema[name].dataType, MapType)
    return F.array_sort(F.map_entries(column)) if is_map else column


def content_hash(frame: DataFrame) -> str:
    """Return an order-free hash of the rows over the frame's columns: 32 hex digits.

    It combines count, xor and sum of xxhash64: xor alone misses pairs of equal rows, and the sum
    needs a decimal, since it overflows a long. xxhash64 skips nulls, so that (null, 'a') would
    equal ('a', null): so the pattern of nulls is hashed too.
    """
    values = [comparable(frame, name) for name in frame.columns]
    nulls = F.concat(*[F.isnull(name).cast("int").cast("string") for name in frame.columns])
    hashed = frame.select(F.xxhash64(*values, nulls).alias("row_hash"))
    totals = hashed.agg(
        F.count("*").alias("n_rows"),
        F.bit_xor("row_hash").alias("xor"),
        F.sum(F.col("row_hash").cast("decimal(38,0)")).alias("total"),
    )
    row = totals.collect()[0]
    text = f"{row['n_rows']}:{row['xor']}:{row['total']}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
