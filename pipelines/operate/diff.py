"""What differs between two versions of a table: rows added, removed, changed and relabelled, with examples."""

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake.frames import comparable
from schemas import Table

KINDS = (
    "added",
    "removed",
    "relabelled",
    "changed",
)  # relabelled: the label differs; changed: only other columns do
LABEL = "label"


def differences(before: DataFrame, after: DataFrame, table: Table) -> DataFrame:
    """The rows that differ: the key's columns, `kind`, and the row `before` and `after` (null where there was none)."""
    values = [name for name in table.column_names if name not in table.key]
    left, right = (
        rows.select(
            *table.key,
            F.struct(*(comparable(rows, name).alias(name) for name in values)).alias(side),
        )
        for rows, side in ((before, "before"), (after, "after"))
    )
    differs = F.lit(False)
    for name in values:
        differs |= ~F.col(f"before.{name}").eqNullSafe(F.col(f"after.{name}"))
    is_relabelled = (
        ~F.col(f"before.{LABEL}").eqNullSafe(F.col(f"after.{LABEL}"))
        if LABEL in values
        else F.lit(False)
    )
    kind = (
        F.when(F.col("before").isNull(), "added")
        .when(F.col("after").isNull(), "removed")
        .when(is_relabelled, "relabelled")
        .when(differs, "changed")
    )
    joined = left.join(right, list(table.key), "full_outer").withColumn("kind", kind)
    return joined.where("kind IS NOT NULL")


def counts(found: DataFrame) -> dict[str, int]:
    """Rows of each kind, the kinds that there are none of included."""
    grouped = {
        row["kind"]: row["n"]
        for row in found.groupBy("kind").agg(F.count("*").alias("n")).collect()
    }
    return {kind: grouped.get(kind, 0) for kind in KINDS}


def examples(found: DataFrame, table: Table, n: int) -> list[str]:
    """Up to n lines of each kind, in the order of the key: the key, and the columns that differ as before -> after."""
    values = [name for name in table.column_names if name not in table.key]
    lines: list[str] = []
    for kind in KINDS:
        for row in found.where(F.col("kind") == kind).orderBy(*table.key).limit(n).collect():
            key = ", ".join(str(row[name])[:16] for name in table.key)
            lines.append(
                f"{kind:<10} {key}: {'; '.join(_changes(row['before'], row['after'], values))}"
            )
    return lines


def _changes(before: object, after: object, values: Sequence[str]) -> list[str]:
    if before is None or after is None:
        row = after if before is None else before
        return [f"{name} {_short(row[name])}" for name in values]  # type: ignore[index]  # a Row
    pairs = [(name, before[name], after[name]) for name in values]  # type: ignore[index]
    return [f"{name} {_short(old)} -> {_short(new)}" for name, old, new in pairs if old != new]


def _short(value: object, width: int = 40) -> str:
    text = "".join(
        c if c.isprintable() else " " for c in str(value)
    )  # raw reviews may hold a terminal's commands
    return text if len(text) <= width else text[: width - 1] + "…"
