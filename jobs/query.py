"""Query the lake: SQL over all its tables and views, answered on stdout.

    python jobs/query.py --sql "SELECT label, count(*) AS n FROM gold.reviews GROUP BY label"
    python jobs/query.py --file report.sql --format csv > report.csv

Reads   every table and view
Writes  nothing, unless --write is given
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from pipelines import cli, program
from pipelines.cli import check_values, flag, group
from pipelines.errors import InputError
from pipelines.flag_rules import MAX_INT, PATH, between
from pipelines.lake.config import LakeConfig

FORMATS = ("table", "csv", "jsonl")


@dataclass(frozen=True)
class QueryConfig:
    """The statement, and the form of its answer."""

    sql: str = flag("the statement; this or --file", "")
    file: str = flag("file that holds the statement; this or --sql", "", must_be=PATH)
    format: str = flag("table for people; csv or jsonl for other programs", "table", FORMATS)
    limit: int = flag(
        "rows to show; 0 = all; -1 = 20 in a table, all in csv and jsonl",
        -1,
        must_be=between(-1, MAX_INT - 1),
    )
    width: int = flag("maximum characters per cell of a table", 60, must_be=between(4))
    safe_csv: bool = flag(
        "for spreadsheets: put ' before a CSV cell that would be a formula", False
    )
    write: bool = flag("allow a statement that changes tables", False)
    lake: LakeConfig = group(LakeConfig)

    def __post_init__(self) -> None:
        check_values(self)
        if bool(self.sql.strip()) == bool(self.file):
            raise ValueError(
                "expected a statement in one of --sql and --file, found both or neither"
            )
        if self.safe_csv and self.format != "csv":
            raise ValueError(f"--safe-csv needs --format csv, got --format {self.format}")


def statement_of(config: QueryConfig) -> str:
    """Return the statement, from the flag or from the file."""
    if config.sql.strip():
        return config.sql
    file = Path(config.file)
    try:
        if file.exists() and not file.is_file():  # a pipe or a device may never end
            kind = "a directory" if file.is_dir() else "a special file"
            raise InputError(f"--file {file}: expected a file, found {kind}. Correct the path.")
        statement = file.read_text(encoding="utf-8-sig")  # without the byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--file {config.file}: expected a text file in UTF-8, found: {error}"
        ) from error
    if not statement.strip():
        raise InputError(f"--file {file}: expected a statement, found an empty file. Write one.")
    return statement


def main(argv: Sequence[str] | None = None) -> None:
    """Run the statement and print its answer."""
    config = cli.parse(QueryConfig, argv, __doc__)
    statement = statement_of(config)
    # Imported after the flags: --help does not wait for Spark.
    from pipelines.lake.tables import open_lake
    from pipelines.operate.query import ask, rendered

    store = open_lake("query", config.lake)
    with store.exclusive() if config.write else nullcontext():
        answer = ask(store.spark, config.lake.physical(statement), config.write)
    try:
        for line in rendered(
            answer,
            config.format,
            config.limit,
            config.width,
            is_safe=config.safe_csv,
            is_terminal=sys.stdout.isatty(),
        ):
            print(line)
    except BrokenPipeError:  # `| head` has read enough
        program.discard_stdout()


if __name__ == "__main__":
    program.run(main)
