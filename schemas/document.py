"""TABLES.md from the contracts: `python -m schemas.document > TABLES.md`."""

import sys

from schemas import TABLES, VIEWS, Table
from schemas.contract import KEEP_HISTORY


def document() -> str:
    """Every table with its columns, key, checks and properties, and every view, as Markdown."""
    properties = "\n".join(f"- `{name}` = `{value}`" for name, value in KEEP_HISTORY.items())
    head = (
        "# Tables\n\nWritten by `make generated` from schemas/; do not edit. "
        "Columns are NOT NULL unless they say null.\n\nEvery table has these properties:\n\n"
        + properties
        + "\n"
    )
    views = "".join(
        f"\n## {view.name} (view)\n\n{view.comment} SQL: schemas/{view.sql_file}\n"
        for view in VIEWS
    )
    return head + "".join(_section(table) for table in TABLES) + views


def _section(table: Table) -> str:
    columns = "\n".join(
        f"| {c.name} | {c.type}{', null' if c.nullable else ''} | {c.comment} |"
        for c in table.columns
    )
    checks = "\n".join(f"- `{name}`: `{rule}`" for name, rule in table.checks.items())
    key = ", ".join(f"`{name}`" for name in table.key)
    only = " Append-only." if table.is_append_only else ""
    return (
        f"\n## {table.name}\n\n{table.comment}{only} Key: {key}.\n\n"
        f"| column | type | meaning |\n|---|---|---|\n{columns}\n\nChecks:\n\n{checks}\n"
    )


if __name__ == "__main__":
    sys.stdout.write(document())
