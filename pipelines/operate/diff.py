"""Differences between two versions of a table: count them by kind and show examples."""

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from pipelines.lake.frames import comparable
from schemas import Table

# relabelled: the label differs; changed: only other columns differ
KINDS = ("added", "removed", "relabelled", "changed")
LABEL = "label"


def differences(before: DataFrame, after: DataFrame, table: Table) -> DataFrame:
    """Return the rows that differ: the key's columns, `kind`, and the structs `before` and `after`.

    `before` is null for an added row, `after` for a removed one.
    """
    values = _value_columns(table)
    left = _as_struct(before, "before", table)
    right = _as_struct(after, "after", table)
    is_relabelled = _is_different(LABEL) if LABEL in values else F.lit(False)
    is_changed = F.lit(False)
    for name in values:
        is_changed |= _is_different(name)
    kind = (
        F.when(F.col("before").isNull(), "added")
        .when(F.col("after").isNull(), "removed")
        .when(is_relabelled, "relabelled")
        .when(is_changed, "changed")
    )
    joined = left.join(right, list(table.key), "full_outer").withColumn("kind", kind)
    return joined.where("kind IS NOT NULL")


def counts(differing: DataFrame) -> dict[str, int]:
    """Count the differing rows of each kind; a kind without rows counts 0."""
    grouped = differing.groupBy("kind").agg(F.count("*").alias("n_rows")).collect()
    n_rows = {row["kind"]: row["n_rows"] for row in grouped}
    return {kind: n_rows.get(kind, 0) for kind in KINDS}


def examples(differing: DataFrame, table: Table, n: int) -> list[str]:
    """Return up to n lines per kind, in the order of the key.

    A line holds the key, and each column that differs as before -> after.
    """
    values = _value_columns(table)
    lines: list[str] = []
    for kind in KINDS:
        rows = differing.where(F.col("kind") == kind).orderBy(*table.key).limit(n)
        for row in rows.collect():
            key = ", ".join(str(row[name])[:16] for name in table.key)
            changes = "; ".join(_changes(row["before"], row["after"], values))
            lines.append(f"{kind:<10} {key}: {changes}")
    return lines


def _value_columns(table: Table) -> list[str]:
    return [name for name in table.column_names if name not in table.key]


def _as_struct(rows: DataFrame, side: str, table: Table) -> DataFrame:
    """Return the key's columns, and the others as a struct named before or after."""
    values = [comparable(rows, name).alias(name) for name in _value_columns(table)]
    return rows.select(*table.key, F.struct(*values).alias(side))


def _is_different(name: str) -> Column:
    return ~F.col(f"before.{name}").eqNullSafe(F.col(f"after.{name}"))


def _changes(before: Row | None, after: Row | None, values: Sequence[str]) -> list[str]:
    if after is None:
        return _shown(before, values)
    if before is None:
        return _shown(after, values)
    return [
        f"{name} {_short(before[name])} -> {_short(after[name])}"
        for name in values
        if before[name] != after[name]
    ]


def _shown(row: Row | None, values: Sequence[str]) -> list[str]:
    return [f"{name} {_short(row[name])}" for name in values] if row is not None else []


def _short(value: object, width: int = 40) -> str:
    # A raw review may hold control characters of the terminal.
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= width else text[: width - 1] + "…"
