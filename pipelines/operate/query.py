"""SQL for people: check that a statement is read-only; print its answer as table, CSV or JSON."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DataType,
    MapType,
    NumericType,
    StructType,
    TimestampType,
    VariantType,
)

from pipelines.errors import InputError, SetupError
from pipelines.lake.session import SUBSTITUTION
from pipelines.operate.judge import has_parser, judge
from pipelines.operate.words import judge_words
from pipelines.program import cause_line
from pipelines.quoting import printable

TABLE_ROWS = 20
ISO_UTC = "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]'Z'"  # the session's time zone is UTC
NESTED = (ArrayType, MapType, StructType, VariantType)

MULTI_LINE = (["plan"], ["createtab_stmt"])  # columns of EXPLAIN and SHOW CREATE TABLE
MAX_COMMENTS = 100  # Spark's lexer takes half a minute for 500 that are nested
# Spreadsheets run a cell that starts with one of these as a formula. Source: OWASP, CSV injection.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def ask(spark: SparkSession, statement: str, may_write: bool = False) -> DataFrame:
    """Run one SQL statement. Raises InputError unless it is read-only or `may_write` is set.

    A statement that runs code or opens a file is refused in any case.
    """
    refuse_text(statement)
    refuse_substitution(spark, statement)
    with worded_faults():
        check = judge if has_parser(spark) else judge_words
        check(spark, statement, may_write)
        return spark.sql(statement)


def refuse_text(statement: str) -> None:
    """Raise InputError for characters that UTF-8 cannot encode, and for too many comments."""
    broken = re.search("[\0\ud800-\udfff]", statement)
    if broken:
        raise InputError(
            f"statement: expected text in UTF-8, found {broken[0]!a} at position {broken.start()}."
        )
    if statement.count("/*") > MAX_COMMENTS:
        raise InputError(
            f"statement: expected at most {MAX_COMMENTS} comments in /* */, found more."
        )


def refuse_substitution(spark: SparkSession, statement: str) -> None:
    """Raise SetupError if Spark would replace ${...} in the text: that is not what was asked."""
    if "${" not in statement:
        return
    try:
        is_on = spark.conf.get(SUBSTITUTION, "true") != "false"
    except PySparkException:  # serverless compute does not tell
        is_on = True
    if is_on:
        raise SetupError(
            f"statement: it holds ${{, which this Spark would replace. Set {SUBSTITUTION}=false "
            "on the server, or write the text as '$' || '{'."
        )


@contextmanager
def worded_faults() -> Iterator[None]:
    """Raise Spark's errors about a statement or a row as an InputError of one line."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        cause = cause_line(error)
        if "StackOverflowError" in str(error):
            cause = "nested too deeply for Spark. Use fewer brackets, or several statements."
        raise InputError(f"statement: {cause}") from error


def rendered(
    answer: DataFrame,
    form: str,
    limit: int,
    width: int,
    *,
    is_safe: bool = False,
    is_terminal: bool = False,
) -> Iterator[str]:
    """Yield the lines of an answer; a command without an answer has none.

    limit        maximum number of rows; 0 = all; -1 = 20 in a table, all in the other forms
    width        maximum characters per cell of a table
    is_safe      CSV for spreadsheets: no cell starts a formula
    is_terminal  escape the characters of CSV that a terminal obeys; the other forms always do
    """
    with worded_faults():
        if not answer.columns:
            return
        if form == "table":
            yield from _table(answer, TABLE_ROWS if limit == -1 else limit, width)
            return
        rows = answer.limit(limit) if limit > 0 else answer
        if form == "jsonl":
            yield from _json_lines(rows)
            return
        for line in _csv(rows, is_safe):
            yield printable(line, keep="\n\t") if is_terminal else line


def _table(answer: DataFrame, limit: int, width: int) -> Iterator[str]:
    """Yield a table: numbers aligned right, long cells cut, and the number of rows at the end."""
    texts = _as_text(answer)
    if answer.columns in MULTI_LINE:
        yield from (printable(row[0], keep="\n\t") for row in texts.toLocalIterator())
        return
    # One row more than the limit shows that some are left out.
    limited = texts.limit(limit + 1) if limit else texts
    rows = [tuple(row) for row in limited.toLocalIterator()]
    shown = rows[:limit] if limit else rows
    header, *body = [
        [_cell(value, width) for value in row] for row in [tuple(answer.columns), *shown]
    ]
    columns = zip(header, *body, strict=True)
    widths = [max(len(text) for text in column) for column in columns]
    is_number = [isinstance(field.dataType, NumericType) for field in answer.schema.fields]
    yield _aligned(header, widths, is_number)
    yield "  ".join("-" * n for n in widths)
    for cells in body:
        yield _aligned(cells, widths, is_number)
    if len(rows) > len(shown):
        yield f"{len(shown):,} of {answer.count():,} rows shown; --limit 0 shows all"
    else:
        yield f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"


def _aligned(cells: Sequence[str], widths: Sequence[int], is_number: Sequence[bool]) -> str:
    """Return one line of a table."""
    padded = [
        text.rjust(n) if to_right else text.ljust(n)
        for text, n, to_right in zip(cells, widths, is_number, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _csv(answer: DataFrame, is_safe: bool) -> Iterator[str]:
    is_number = [isinstance(field.dataType, NumericType) for field in answer.schema.fields]
    rows = (tuple(row) for row in _as_text(answer).toLocalIterator())
    header = [_no_formula(name) if is_safe else name for name in answer.columns]
    yield _csv_line(header)
    for row in rows:
        pairs = zip(row, is_number, strict=True)
        yield _csv_line([_no_formula(v) if is_safe and not number else v for v, number in pairs])


def _csv_line(row: Sequence[str | None]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(row)  # quotes only the line ends named here
    return line.getvalue().removesuffix("\r\n")


def _no_formula(value: str | None) -> str | None:
    """Return the cell with ' before it if a spreadsheet would run it as a formula."""
    return f"'{value}" if value and value.startswith(FORMULA) else value


def _json_lines(answer: DataFrame) -> Iterator[str]:
    repeated = sorted({name for name in answer.columns if answer.columns.count(name) > 1})
    if repeated:
        raise InputError(
            f"--format jsonl: repeated column names: {', '.join(repeated)}. "
            "Rename the columns with AS."
        )
    for row in answer.select(_json(F.struct("*"))).toLocalIterator():
        # Hidden characters are in strings only, where JSON has an escape for each.
        yield printable(row[0], escape=lambda char: json.dumps(char)[1:-1])


def _as_text(answer: DataFrame) -> DataFrame:
    """Return every cell as a string or null. Columns are renamed, as two may share a name."""
    names = [f"column_{place}" for place in range(len(answer.columns))]
    types = [field.dataType for field in answer.schema.fields]
    texts = [_text(F.col(name), kind).alias(name) for name, kind in zip(names, types, strict=True)]
    return answer.toDF(*names).select(*texts)


def _text(column: Column, kind: DataType) -> Column:
    if isinstance(kind, NESTED):
        return _json(column)
    if isinstance(kind, BinaryType):
        return F.base64(column)
    if isinstance(kind, TimestampType):
        return F.date_format(column, ISO_UTC)
    return column.cast("string")


def _json(column: Column) -> Column:
    options = {"ignoreNullFields": "false", "timestampFormat": ISO_UTC, "timeZone": "UTC"}
    return F.to_json(column, options)


def _cell(value: str | None, width: int) -> str:
    """Return one cell: white space becomes a space, hidden characters are escaped, text is cut."""
    text = printable(re.sub(r"\s", " ", value or ""))
    return text if len(text) <= width else text[: width - 1] + "…"
