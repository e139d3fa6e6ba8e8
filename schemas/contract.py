"""A table's contract: columns with their meaning, a key, checks and properties."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # contracts are read without Spark: by --help, and by Delta readers without a JVM
    from pyspark.sql.types import StructType

# Delta refuses time travel past deletedFileRetentionDuration (7 days by default) and cleans its log
# after 30: a model's training data would be gone. Both must be set in the same statement.
# A stage reads what has changed since its last run from the change data feed.
KEEP_HISTORY = {
    "delta.deletedFileRetentionDuration": "interval 3650 days",
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.enableInCommitTimestamps": "true",
    "delta.enableChangeDataFeed": "true",
    "delta.enableDeletionVectors": "false",
}


APPEND_ONLY = KEEP_HISTORY | {"delta.appendOnly": "true"}  # Delta refuses UPDATE and DELETE


@dataclass(frozen=True)
class Column:
    """One column: its type in SQL, as Spark writes it, and its meaning with unit and range."""

    name: str
    type: str
    comment: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table. `key` is the MERGE key; `checks` maps a rule's name to SQL that must be true."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    checks: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=lambda: dict(KEEP_HISTORY))
    set_by_key: tuple[str, ...] = ()  # columns that are equal wherever the key is

    @property
    def schema(self) -> StructType:
        """The Spark schema, NOT NULL included. Needs a running session, which parses the types."""
        from pyspark.sql.types import DataType, StructField, StructType

        fields = [StructField(c.name, DataType.fromDDL(c.type), c.nullable) for c in self.columns]
        return StructType(fields)

    @property
    def is_append_only(self) -> bool:
        """Return whether later versions keep all rows of earlier ones."""
        return self.properties.get("delta.appendOnly") == "true"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True)
class View:
    """A view and the file of its SQL: views do not survive a local session."""

    name: str
    comment: str
    sql_file: str
    reads: tuple[Table, ...]
