"""MERGE statements from a table's contract: `stored` is the table, `given` are the rows."""

from collections.abc import Collection

from schemas import Table
from schemas.ddl import sql_literal


def statement(table: Table, view: str, clauses: str) -> str:
    """Return the statement that merges the rows of a view by the table's key.

    clauses  what follows the condition of the key: more conditions, then WHEN clauses
    """
    same_key = " AND ".join(f"stored.{name} = given.{name}" for name in table.key)
    return f"MERGE INTO {table.name} AS stored USING {view} AS given ON {same_key} {clauses}"


def insert_new(only: tuple[str, Collection[str]] | None) -> str:
    """Return the clause that adds rows with a new key.

    only  a column and all of its given values: Delta reads no file without one of them
    """
    condition = ""
    if only:
        column, values = only
        listing = ", ".join(map(sql_literal, sorted(values)))
        condition = f"AND stored.{column} IN ({listing}) "
    return f"{condition}WHEN NOT MATCHED THEN INSERT *"


def equal_to_source(table: Table) -> str:
    """Return the clauses that make the table equal to the given rows."""
    return (
        f"WHEN MATCHED AND ({_differs(table)}) THEN UPDATE SET * "
        "WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE THEN DELETE"
    )


def equal_where_given(table: Table) -> str:
    """Return the clauses that make the rows of the given keys equal to the given rows.

    A given row whose `is_given` is false is only a key: the table must not hold it.
    """
    columns = ", ".join(table.column_names)
    values = ", ".join(f"given.{name}" for name in table.column_names)
    changes = ", ".join(f"{name} = given.{name}" for name in table.column_names)
    return (
        "WHEN MATCHED AND NOT given.is_given THEN DELETE "
        f"WHEN MATCHED AND ({_differs(table)}) THEN UPDATE SET {changes} "
        f"WHEN NOT MATCHED AND given.is_given THEN INSERT ({columns}) VALUES ({values})"
    )


def _differs(table: Table) -> str:
    """Return SQL that is true where a given row has other values than the stored one."""
    values = [name for name in table.column_names if name not in table.key]
    return " OR ".join(f"NOT (stored.{name} <=> given.{name})" for name in values) or "false"
