"""SQL from a contract: CREATE, checks, and the names of its tables in a catalog."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from schemas import TABLES, VIEWS
from schemas.contract import Column, Table, View

SCHEMAS = ("bronze", "silver", "gold", "ops")
_NAMES = {view.name for view in VIEWS} | {table.name for table in TABLES}
# Strings, comments and quoted names come first: a table's name inside them stays as it is.
_TOKEN = re.compile(
    r"""\br'[^']*'|\br"[^"]*"|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|--[^\n]*|/\*.*?\*/"""
    r"""|(?<![\w.`])(?P<a>`?)(?P<schema>\w+)(?P=a)\.(?P<b>`?)(?P<table>\w+)(?P=b)(?![\w`])|`[^`]*`""",
    re.IGNORECASE | re.DOTALL,
)


def physical(sql: str, schemas: Mapping[str, str]) -> str:
    """Return SQL text, or one name, with the contracts' schemas replaced by the catalog's.

    schemas  schema of the contracts -> schema in the catalog
    Names inside strings, comments and longer quoted names stay, and names with a catalog too.
    """

    def renamed(found: re.Match[str]) -> str:
        logical = f"{found['schema']}.{found['table']}".lower() if found["schema"] else ""
        if logical not in _NAMES:
            return found[0]
        return f"{schemas[found['schema'].lower()]}.{found['table']}"

    return (
        sql if all(name == schema for name, schema in schemas.items()) else _TOKEN.sub(renamed, sql)
    )


def create_table(table: Table, location: str = "") -> str:
    """Return CREATE TABLE with columns, comments, checks and properties.

    The table is external if a location is given.

    Checks go in as table properties: one commit for all, and in force from the start.
    """
    columns = ",\n  ".join(_column(column) for column in table.columns)
    checks = {f"delta.constraints.{name}": rule for name, rule in table.checks.items()}
    properties = _pairs(table.properties | checks)
    place = f"\nLOCATION {sql_literal(location)}" if location else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} (\n  {columns}\n) USING delta\n"
        f"COMMENT {sql_literal(table.comment)}{place}\nTBLPROPERTIES ({properties})"
    )


def additions(table: Table, columns: Collection[str], properties: Mapping[str, str]) -> list[str]:
    """Return ALTER TABLE for each nullable column, check and property that a table lacks.

    columns     names that the table has, in lower case
    properties  its properties, of which its checks are some
    """
    checks = {name.removeprefix("delta.constraints.") for name in properties}
    new_columns = [
        f"ALTER TABLE {table.name} ADD COLUMNS ({_column(column)})"
        for column in table.columns
        if column.nullable and column.name not in columns
    ]
    new_checks = [
        f"ALTER TABLE {table.name} ADD CONSTRAINT {name} CHECK ({rule})"
        for name, rule in table.checks.items()
        if name.lower() not in checks
    ]
    lacking = {name: value for name, value in table.properties.items() if name not in properties}
    new_properties = [f"ALTER TABLE {table.name} SET TBLPROPERTIES ({_pairs(lacking)})"]
    return new_columns + new_checks + (new_properties if lacking else [])


def create_view(view: View) -> str:
    """CREATE VIEW from the SQL file beside the contract."""
    query = (Path(__file__).parent / view.sql_file).read_text(encoding="utf-8")
    return f"CREATE OR REPLACE VIEW {view.name} COMMENT {sql_literal(view.comment)} AS\n{query}"


def sql_literal(value: str) -> str:
    """A SQL string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _pairs(properties: Mapping[str, str]) -> str:
    return ", ".join(
        f"{sql_literal(name)} = {sql_literal(value)}" for name, value in properties.items()
    )


def _column(column: Column) -> str:
    null = "" if column.nullable else " NOT NULL"
    return f"{column.name} {column.type}{null} COMMENT {sql_literal(column.comment)}"
