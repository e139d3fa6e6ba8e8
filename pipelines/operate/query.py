"""SQL for people: is a statement a mere question, and how does its answer look as a table, CSV or JSON lines."""

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
MULTI_LINE = (["plan"], ["createtab_stmt"])  # what EXPLAIN and SHOW CREATE TABLE answer

LINE_NUMBER = re.compile(r"\(line (\d+)")

# SQL that runs programs. Read from the raw text, strings and comments included: rather a LIKE '%reflect(%' refused
# than a call missed. IDENTIFIER(...) and EXECUTE IMMEDIATE would spell the same names out of pieces.
NEXT = r"[`\"]?\s*(?:\(|--|/\*)"
CODE = {
    "a call of reflect, try_reflect or java_method": rf"(?:reflect|java_method){NEXT}",
    "IDENTIFIER(...)": rf"\bidentifier{NEXT}",
    "EXECUTE IMMEDIATE": r"\bexecute\s*(?:immediate|--|/\*)",
    "TRANSFORM ... USING a program": r"\b(?:transform|map|reduce)\b.*\busing\s*(?:r?['\"]|--|/\*)",
}


def ask(spark: SparkSession, statement: str, may_write: bool = False) -> DataFrame:
    """The answer to one SQL statement. Raises InputError unless it only reads, or `may_write` is set."""
    refuse_code(statement)
    if not may_write:
        refuse_writing(spark, statement)
    with worded_faults():
        return spark.sql(statement)


def refuse_code(statement: str) -> None:
    """Raise InputError where the statement would run a program: SQL is for tables."""
    for construct, pattern in CODE.items():
        if re.search(pattern, statement, re.IGNORECASE | re.DOTALL):
            raise InputError(
                f"statement: expected SQL over tables, found {construct}, which runs code. "
                "Leave it out."
            )


def refuse_writing(spark: SparkSession, statement: str) -> None:
    """Raise InputError unless Spark's own parser reads the statement as a query, or it describes or explains one.

    DESCRIBE QUERY (...) takes a query by grammar, and only analyses it: an INSERT behind WITH or FROM does not parse
    there. EXPLAIN would not do as the judge: it executes what stands behind EXECUTE IMMEDIATE.
    """
    # Comments before the first word are the parser's to read: it nests them, and ends some at a lone \r.
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
        return  # a query, if about something absent: running it says so with the right position


def _one_less(line: re.Match[str]) -> str:
    """The place without the line that DESCRIBE QUERY ( takes."""
    return f"(line {int(line[1]) - 1}"


@contextmanager
def worded_faults() -> Iterator[None]:
    """Spark's complaint about a statement, or about a row on its way, as one line."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise InputError(f"statement: {cause_line(error)}") from error


def rendered(answer: DataFrame, form: str, limit: int, width: int) -> Iterator[str]:
    """Lines of the answer, none for a command without one. `limit` 0 = all rows; -1 = all, but 20 in a table."""
    if not answer.columns:
        return
    with worded_faults():
        if form == "table":
            yield from _table(answer, TABLE_ROWS if limit == -1 else limit, width)
            return
        rows = answer.limit(limit) if limit > 0 else answer
        yield from _csv(rows) if form == "csv" else _json_lines(rows)


def _table(answer: DataFrame, limit: int, width: int) -> Iterator[str]:
    """Aligned columns, numbers to the right, long cells cut with an ellipsis, and what was left out said below."""
    texts = _as_text(answer)
    if answer.columns in MULTI_LINE:
        yield from (row[0] for row in texts.toLocalIterator())
        return
    limited = texts.limit(limit + 1) if limit else texts  # one more tells that some are left out
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
    """One line of a table."""
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
            "--format jsonl: expected a name for each column, "
            f"found {', '.join(repeated)} twice. Use AS."
        )
    for row in answer.select(_json(F.struct("*"))).toLocalIterator():
        yield row[0]


def _as_text(answer: DataFrame) -> DataFrame:
    """Every cell as a string, or null; by place, since two columns may share a name."""
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
    """One cell of a table: line ends and terminal controls become spaces, long text is cut."""
    text = "" if value is None else re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value)
    return text if len(text) <= width else text[: width - 1] + "…"
