"""SQL for people: check that a statement is read-only; print its answer as table, CSV or JSON."""

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
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

from pipelines.errors import InputError
from pipelines.program import cause_line

TABLE_ROWS = 20
ISO_UTC = "yyyy-MM-dd'T'HH:mm:ss[.SSSSSS]'Z'"  # the session's time zone is UTC
NESTED = (ArrayType, MapType, StructType, VariantType)

QUESTIONS = ("SELECT", "WITH", "FROM", "VALUES", "TABLE")
DESCRIPTIONS = ("DESCRIBE", "DESC", "SHOW")
EXPLAIN = re.compile(
    r"\s*EXPLAIN\s+(?:(?:LOGICAL|FORMATTED|EXTENDED|CODEGEN|COST)\b)?", re.IGNORECASE
)
MULTI_LINE = (["plan"], ["createtab_stmt"])  # columns of EXPLAIN and SHOW CREATE TABLE

LINE_NUMBER = re.compile(r"\(line (\d+)")

# SQL that runs programs, searched in the raw text, strings and comments included: it is better to
# refuse a harmless LIKE '%reflect(%' than to miss a call. IDENTIFIER(...) and EXECUTE IMMEDIATE are
# refused because they can build these names from pieces.
NEXT = r"[`\"]?\s*(?:\(|--|/\*)"
CODE = {
    "a call of reflect, try_reflect or java_method": rf"(?:reflect|java_method){NEXT}",
    "IDENTIFIER(...)": rf"\bidentifier{NEXT}",
    "EXECUTE IMMEDIATE": r"\bexecute\s*(?:immediate|--|/\*)",
    "TRANSFORM ... USING a program": r"\b(?:transform|map|reduce)\b.*\busing\s*(?:r?['\"]|--|/\*)",
}


def ask(spark: SparkSession, statement: str, may_write: bool = False) -> DataFrame:
    """Run one SQL statement. Raises InputError unless it is read-only or `may_write` is set."""
    refuse_code(statement)
    if not may_write:
        refuse_writing(spark, statement)
    with worded_faults():
        return spark.sql(statement)


def refuse_code(statement: str) -> None:
    """Raise InputError if the statement would run a program: SQL is for tables only."""
    for construct, pattern in CODE.items():
        if re.search(pattern, statement, re.IGNORECASE | re.DOTALL):
            raise InputError(f"statement: {construct} runs code, which is not allowed. Remove it.")


def refuse_writing(spark: SparkSession, statement: str) -> None:
    """Raise InputError unless the statement is a query, or describes or explains one.

    Spark's own parser decides. DESCRIBE QUERY (...) accepts only a query and does not run it: an
    INSERT after WITH or FROM is a syntax error there. EXPLAIN cannot be used for this, because it
    runs the statement after EXECUTE IMMEDIATE.
    """
    # Comments before the first word are left to the parser: it nests them, and ends some at a \r.
    first_word = re.match(r"\s*(\w+)", statement)
    word = first_word.group(1).upper() if first_word else ""
    if word in DESCRIPTIONS:
        return
    question = EXPLAIN.sub("", statement, count=1) if word == "EXPLAIN" else statement
    if word not in ("", "EXPLAIN", *QUESTIONS):
        raise InputError(
            f"statement: expected a query, DESCRIBE, SHOW or EXPLAIN of a query, found {word}. "
            "Pass --write to change tables."
        )
    try:
        spark.sql(f"DESCRIBE QUERY (\n{question.rstrip().rstrip(';')}\n)")
    except ParseException as error:
        complaint = LINE_NUMBER.sub(_one_less, cause_line(error))
        raise InputError(
            f"statement: expected one query, found: {complaint} Pass --write to change tables."
        ) from error
    except AnalysisException:
        return  # a query of something missing: running it gives the error with the right position


def _one_less(line: re.Match[str]) -> str:
    """Return the line number of the statement: DESCRIBE QUERY ( is in the line before it."""
    return f"(line {int(line[1]) - 1}"


@contextmanager
def worded_faults() -> Iterator[None]:
    """Raise Spark's errors about a statement or a row as an InputError of one line."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise InputError(f"statement: {cause_line(error)}") from error


def rendered(answer: DataFrame, form: str, limit: int, width: int) -> Iterator[str]:
    """Yield the lines of an answer; a command without an answer has none.

    limit  maximum number of rows; 0 = all; -1 = 20 in a table, all in the other forms
    width  maximum characters per cell of a table
    """
    if not answer.columns:
        return
    with worded_faults():
        if form == "table":
            yield from _table(answer, TABLE_ROWS if limit == -1 else limit, width)
            return
        rows = answer.limit(limit) if limit > 0 else answer
        yield from _csv(rows) if form == "csv" else _json_lines(rows)


def _table(answer: DataFrame, limit: int, width: int) -> Iterator[str]:
    """Yield a table: numbers aligned right, long cells cut, and the number of rows at the end."""
    texts = _as_text(answer)
    if answer.columns in MULTI_LINE:
        yield from (row[0] for row in texts.toLocalIterator())
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


def _csv(answer: DataFrame) -> Iterator[str]:
    rows = (tuple(row) for row in _as_text(answer).toLocalIterator())
    for row in itertools.chain([tuple(answer.columns)], rows):
        line = io.StringIO()
        writer = csv.writer(line, lineterminator="\r\n")  # quotes only the line ends named here
        writer.writerow(row)
        yield line.getvalue().removesuffix("\r\n")


def _json_lines(answer: DataFrame) -> Iterator[str]:
    repeated = sorted({name for name in answer.columns if answer.columns.count(name) > 1})
    if repeated:
        raise InputError(
            f"--format jsonl: repeated column names: {', '.join(repeated)}. "
            "Rename the columns with AS."
        )
    for row in answer.select(_json(F.struct("*"))).toLocalIterator():
        yield row[0]


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
    """Return one cell: line ends and control characters become spaces, long text is cut."""
    text = "" if value is None else re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value)
    return text if len(text) <= width else text[: width - 1] + "…"
