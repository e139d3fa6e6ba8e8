"""jobs/query.py answers read-only SQL in three formats and refuses other SQL. Needs Spark."""

import csv
import io
import json
import os
from pathlib import Path
from typing import cast

import pytest
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from jobs.query import QueryConfig, main, statement_of
from pipelines.errors import InputError
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.operate.query import ask, rendered
from pipelines.program import one_line
from schemas import GOLD_REJECTS, GOLD_REVIEWS
from tests.support.statements import READS

ONE_OF_EACH = """
SELECT true AS flag, 12 AS n, 1.50BD AS amount, 0.25D AS share, 'say "so", then' AS text,
       X'00FF' AS bytes, TIMESTAMP '2026-05-01 12:00:00.5' AS at, DATE '2026-05-01' AS day,
       array(1, NULL) AS list,
       named_struct('at', TIMESTAMP '2026-05-01 12:00:00', 'x', NULL) AS pair, map('k', 1) AS bag,
       NULL AS nothing
"""


def answered(
    spark: SparkSession, statement: str, form: str = "table", limit: int = -1, width: int = 60
) -> list[str]:
    return list(rendered(ask(spark, statement), form, limit=limit, width=width))


@pytest.mark.parametrize("statement", READS)
def test_a_read_only_statement_is_answered(spark: SparkSession, statement: str) -> None:
    assert answered(spark, statement, limit=3)


def test_with_write_a_statement_changes_tables_and_prints_nothing(store: TableStore) -> None:
    row = store.spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    store.append(GOLD_REJECTS, row)
    version = store.version(GOLD_REJECTS)
    ask(store.spark, "DELETE FROM gold.rejects", may_write=True)
    counts = " UNION ALL ".join(
        f"(SELECT count(*) AS n FROM gold.rejects VERSION AS OF {number})"
        for number in (version, version + 1)
    )
    assert answered(store.spark, f"{counts} ORDER BY n", "csv") == ["n", "0", "1"]
    dropped = ask(store.spark, "DROP TABLE gold.rejects", may_write=True)
    assert list(rendered(dropped, "csv", limit=-1, width=60)) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "SELECT nope FROM range(1)",
            r"\[UNRESOLVED_COLUMN.*`nope` cannot be resolved.*; line 1 pos 7",
        ),
        ("SELECT * FROM gold.nope", r"The table or view `gold`\.`nope` cannot be found"),
        ("SELECT 1 +", r"^statement: \[PARSE_SYNTAX_ERROR\]"),
        ("SELECT 1\nFROM range(1) 2", r"Syntax error at or near '2'.*\(line 2, pos 14\)"),
        ("SELEC 1", r"Syntax error at or near 'SELEC'.*\(line 1, pos 0\)"),
        ("SELECT 1; DROP TABLE gold.rejects", "Syntax error at or near 'DROP'"),
        (" ", "Syntax error"),
    ],
)
def test_an_invalid_statement_is_reported_in_one_line_with_its_position(
    spark: SparkSession, statement: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        ask(spark, statement)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_an_error_in_a_row_is_reported_in_one_line(spark: SparkSession, form: str) -> None:
    with pytest.raises(InputError, match=r"DIVIDE_BY_ZERO") as refusal:
        answered(spark, "SELECT 1 / (id - 5) AS n FROM range(10)", form, limit=0)
    assert "\n" not in str(refusal.value)


def test_a_table_is_aligned_with_numbers_to_the_right_and_long_cells_cut(
    spark: SparkSession,
) -> None:
    statement = """
        SELECT * FROM VALUES
            ('one', 1, 0.5), ('a long long word', 1234, NULL), (NULL, NULL, 12.25),
            ('line\nend\t\u001b[1m', 7, 1.0) AS t(word, n, share)
    """
    lines = answered(spark, statement, width=10)
    assert lines == [
        "word           n  share",
        "----------  ----  -----",
        "one            1   0.50",
        "a long lo…  1234",
        "                  12.25",
        "line end …     7   1.00",
        "4 rows",
    ]


def test_a_table_states_how_many_rows_were_left_out(spark: SparkSession) -> None:
    cut = "of 1,001 rows shown; --limit 0 shows all"
    cases = [
        (-1, 22, f"20 {cut}"),
        (3, 5, f"3 {cut}"),
        (1001, 1003, "1,001 rows"),
        (0, 1003, "1,001 rows"),
    ]
    for limit, n_lines, last in cases:
        lines = answered(spark, "SELECT id FROM range(1001) ORDER BY id DESC", limit=limit)
        assert (len(lines), lines[2].strip(), lines[-1]) == (n_lines + 1, "1000", last)


def test_an_empty_answer_has_a_header_and_no_rows(spark: SparkSession) -> None:
    nothing = "SELECT 1 AS n, 'x' AS word WHERE false"
    assert answered(spark, nothing) == ["n  word", "-  ----", "0 rows"]
    assert answered(spark, nothing, "csv") == ["n,word"]
    assert answered(spark, nothing, "jsonl") == []


def test_csv_holds_nested_values_as_json_and_null_as_an_empty_cell(spark: SparkSession) -> None:
    head, row = csv.reader(io.StringIO("\n".join(answered(spark, ONE_OF_EACH, "csv"))))
    assert dict(zip(head, row, strict=True)) == {
        "flag": "true",
        "n": "12",
        "amount": "1.50",
        "share": "0.25",
        "text": 'say "so", then',
        "bytes": "AP8=",
        "at": "2026-05-01T12:00:00.500000Z",
        "day": "2026-05-01",
        "list": "[1,null]",
        "pair": '{"at":"2026-05-01T12:00:00.000000Z","x":null}',
        "bag": '{"k":1}',
        "nothing": "",
    }


def test_a_csv_cell_may_span_lines(spark: SparkSession) -> None:
    text = "\n".join(answered(spark, "SELECT 'two\nlines' AS text, 'one\rmore' AS more", "csv"))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["text", "more"],
        ["two\nlines", "one\rmore"],
    ]


def test_json_lines_hold_every_column_with_its_type(spark: SparkSession) -> None:
    (line,) = answered(spark, ONE_OF_EACH, "jsonl")
    assert json.loads(line) == {
        "flag": True,
        "n": 12,
        "amount": 1.5,
        "share": 0.25,
        "text": 'say "so", then',
        "bytes": "AP8=",
        "at": "2026-05-01T12:00:00.500000Z",
        "day": "2026-05-01",
        "list": [1, None],
        "pair": {"at": "2026-05-01T12:00:00.000000Z", "x": None},
        "bag": {"k": 1},
        "nothing": None,
    }


HOSTILE = "\u001b[31m\u009b1m\u202egnp\u2066\x7f"
ESCAPED = r"\x1b[31m\x9b1m\u202egnp\u2066\x7f"


def test_no_form_of_an_answer_steers_the_terminal(spark: SparkSession) -> None:
    statement = f"SELECT '{HOSTILE}' AS `{HOSTILE}`"
    answer = ask(spark, statement)
    assert answered(spark, statement)[::2] == [ESCAPED, ESCAPED]
    (line,) = answered(spark, statement, "jsonl")
    assert line.isprintable()
    assert json.loads(line) == {HOSTILE: HOSTILE}
    printed = rendered(answer, "csv", limit=-1, width=60, is_terminal=True)
    assert list(printed) == [ESCAPED, ESCAPED]
    assert answered(spark, statement, "csv") == [HOSTILE, HOSTILE]  # exact, in a file or pipe
    (plan,) = answered(spark, f"EXPLAIN {statement}")
    assert plan.replace("\n", "").isprintable()
    with pytest.raises(InputError) as refusal:
        ask(spark, f"SELECT `{HOSTILE}`")
    assert HOSTILE in str(refusal.value)
    assert ESCAPED in one_line(refusal.value)
    assert one_line(refusal.value).isprintable()


def test_safe_csv_holds_no_formula_and_leaves_numbers_alone(spark: SparkSession) -> None:
    statement = """
        SELECT text, -1 AS `=n` FROM VALUES ('=1+1'), ('+1'), ('-1'), ('@a'), ('\tx'), ('\rx'),
            ('\uff1dx'), ('a=1'), (' '), (NULL) AS t(text)
    """
    lines = rendered(ask(spark, statement), "csv", limit=-1, width=60, is_safe=True)
    text = "\r\n".join(lines)
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["text", "'=n"]
    assert [cell for cell, _ in rows] == [
        *("'=1+1", "'+1", "'-1", "'@a", "'\tx", "'\rx", "'\uff1dx", "a=1", " ", ""),
    ]
    assert {number for _, number in rows} == {"-1"}
    with pytest.raises(ValueError, match="--safe-csv needs --format csv, got --format table"):
        QueryConfig(sql="SELECT 1", safe_csv=True)


def test_an_error_that_comes_with_the_columns_is_reported_in_one_line() -> None:
    class Unknown:  # Spark Connect analyses an answer when its columns are read
        @property
        def columns(self) -> list[str]:
            raise AnalysisException("no such column\nhere")

    answer = cast(DataFrame, Unknown())
    with pytest.raises(InputError, match=r"^statement: no such column$"):
        list(rendered(answer, "csv", limit=-1, width=60))


def test_files_hold_all_rows_in_order_unless_limited(spark: SparkSession) -> None:
    statement = "SELECT id FROM range(0, 100, 1, 4) ORDER BY id DESC"
    expected = [f'{{"id":{number}}}' for number in range(99, -1, -1)]
    assert answered(spark, statement, "jsonl") == expected
    assert answered(spark, statement, "csv", limit=2) == ["id", "99", "98"]


def test_two_columns_may_share_a_name_in_tables_but_not_in_json(spark: SparkSession) -> None:
    statement = "SELECT 1 AS n, 2 AS n"
    assert answered(spark, statement, "csv") == ["n,n", "1,2"]
    assert answered(spark, statement)[2] == "1  2"
    words = r"--format jsonl: repeated column names: n\. Rename the columns with AS"
    with pytest.raises(InputError, match=words):
        answered(spark, statement, "jsonl")


def test_a_plan_keeps_its_lines(spark: SparkSession) -> None:
    (plan,) = answered(spark, "EXPLAIN SELECT id FROM range(3) WHERE id > 1")
    assert plan.startswith("== Physical Plan ==\n")
    assert "Range (0, 3" in plan


def test_the_job_prints_the_answer_of_a_file(
    store: TableStore, lake: LakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.create(GOLD_REVIEWS)
    question = tmp_path / "report.sql"
    question.write_text("-- how many\nSELECT count(*) AS n\nFROM gold.reviews;\n", encoding="utf-8")
    main(["--file", str(question), "--format", "jsonl", "--lake", lake.lake])
    assert capsys.readouterr().out == '{"n":0}\n'


@pytest.mark.parametrize("flags", [{}, {"sql": "SELECT 1", "file": "report.sql"}, {"sql": " "}])
def test_the_job_takes_exactly_one_statement(flags: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a statement in one of --sql and --file"):
        QueryConfig(**flags)  # type: ignore[arg-type]  # only texts are given


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.sql"
    latin.write_bytes(b"SELECT '\xe9'")
    for file in (latin, tmp_path / "absent.sql"):
        words = rf"--file .*{file.name}: expected a text file in UTF-8, found"
        with pytest.raises(InputError, match=words):
            statement_of(QueryConfig(file=str(file)))


def test_a_file_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "marked.sql"
    file.write_bytes(b"\xef\xbb\xbfSELECT 1")
    assert statement_of(QueryConfig(file=str(file))) == "SELECT 1"
    assert statement_of(QueryConfig(sql=" ", file=str(file))) == "SELECT 1"


def test_a_file_without_an_end_or_a_statement_is_refused(tmp_path: Path) -> None:
    pipe, empty = tmp_path / "pipe.sql", tmp_path / "empty.sql"
    os.mkfifo(pipe)
    empty.write_bytes(b"\xef\xbb\xbf \n")
    cases = {
        pipe: "expected a file, found a special file",
        Path("/dev/zero"): "expected a file, found a special file",
        tmp_path: "expected a file, found a directory",
        empty: "expected a statement, found an empty file",
    }
    for file, words in cases.items():
        with pytest.raises(InputError, match=rf"^--file {file}: {words}\. "):
            statement_of(QueryConfig(file=str(file)))


@pytest.mark.parametrize(
    ("flags", "words"), [({"limit": -2}, "--limit must be"), ({"width": 3}, "--width must be 4")]
)
def test_flags_out_of_range_are_refused(flags: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QueryConfig(sql="SELECT 1", **flags)  # type: ignore[arg-type]  # only figures are given
