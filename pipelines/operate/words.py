"""Read-only SQL under Spark Connect: judge a statement by its words, as no parser is at hand.

The text is cut as Spark's own lexer does it. Where Spark has rules that are hard to follow, as
comments inside comments, the statement is refused. So is each word before a bracket that is neither
an allowed function nor known syntax.
"""

import itertools
import re
from typing import NamedTuple

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import SparkSession

from pipelines.errors import InputError
from pipelines.operate.allowed import FORMATS, MAKERS_OF_TYPES, TYPE_ARGUMENTS
from pipelines.operate.judge import (
    CHECK_PROPERTY,
    refuse_function,
    refuse_no_format,
    refuse_path,
    refuse_property,
    refuse_type,
)

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|--[^\r\n\\]*|/\*(?!\+)(?:(?!/\*|\*/).)*\*/"""
    r"""|/\*\+[\w\s,()]*\*/)"""  # a hint, whose words are never evaluated
    r"""|(?P<string>[rR]'[^']*'|[rR]"[^"]*"|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    r"""|(?P<quoted>`(?:[^`]|``)*`)"""
    r"""|(?P<word>[A-Za-z0-9_]+)"""
    r"""|(?P<symbol>-(?!-)|/(?!\*)|[+*%&|^~<>=!.,;:()\[\]?@])""",
    re.DOTALL,
)
QUESTIONS = ("SELECT", "WITH", "FROM", "VALUES", "TABLE", "(")
EXPLAIN_FORMS = ("CODEGEN", "COST", "EXTENDED", "FORMATTED", "LOGICAL")
DESCRIPTIONS = ("DESCRIBE", "DESC", "SHOW")
OBJECT = r"(TABLE|VIEW|SCHEMA|DATABASE|NAMESPACE)\b"
CHANGES = re.compile(
    r"(INSERT|UPDATE|DELETE|MERGE|OPTIMIZE|RESTORE|TRUNCATE|VACUUM|WITH|FROM)\b"
    rf"|COMMENT ON {OBJECT}|(CREATE( OR REPLACE)?|REPLACE|DROP|ALTER|ANALYZE) {OBJECT}"
)
NEW_TABLE = re.compile(r"(CREATE( OR REPLACE)?|REPLACE) TABLE\b")
DDL = re.compile(r"[rR]?['\"] *[A-Za-z_`]")  # no escape: it may stand for { or a quote
# Words that stand before a bracket without being a function, or before a name with columns.
_SYNTAX = """
    ADD AGGREGATE ALL AND ANY AS BETWEEN BY CASE CHAR CHECK COLUMN COLUMNS CROSS CUBE DEC DISTINCT
    DIV ELSE ESCAPE EXCEPT EXISTS EXPLAIN EXTENDED EXTEND FILTER FOR FORMATTED FROM GROUP HAVING
    ILIKE IN INSERT INTERSECT INTERVAL IS JOIN LATERAL LIKE LIMIT MINUS NOT NUMERIC OFFSET ON OR
    OVER PARTITION PIVOT QUALIFY QUERY REPEATABLE RLIKE ROLLUP SELECT SET SETS SOME TABLESAMPLE
    TBLPROPERTIES THEN UNION UNPIVOT USING VALUES VARCHAR WHEN WHERE WINDOW WITHIN
"""
SYNTAX = frozenset(_SYNTAX.split())
BEFORE_COLUMNS = ("AS", "EXISTS", "INTO", "RECURSIVE", "TABLE", "WITH", ")")
BEFORE_PATH = (
    *("ARCHIVE", "DETAIL", "DIRECTORY", "FILE", "HISTORY", "INPATH", "JAR", "LOCATION", "OPTIMIZE"),
    "VACUUM",
)
ADVICE = "Write it in another way, or run the query where Spark runs in this process."


class Token(NamedTuple):
    """A word, a string, a quoted name or a symbol; words in capitals."""

    kind: str
    text: str
    start: int = 0  # its first character in the statement
    end: int = 0


def judge_words(spark: SparkSession, statement: str, may_write: bool) -> None:
    """Raise InputError unless all that the statement holds is allowed, as far as words tell.

    A query must also pass DESCRIBE QUERY on the server, which accepts nothing but a query.
    """
    tokens = tokens_of(statement)
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    _refuse_constructs(tokens)
    for place, token in enumerate(tokens[:-1]):
        if tokens[place + 1].text == "(" and token.kind in ("word", "quoted", "string"):
            _refuse_call(tokens, place)
    first = tokens[0].text if tokens else "nothing"
    if first in DESCRIPTIONS or (may_write and CHANGES.match(_first_words(tokens))):
        return
    if first not in (*QUESTIONS, "EXPLAIN"):
        raise InputError(
            "statement: expected a query, DESCRIBE, SHOW or EXPLAIN of a query, "
            f"found {first}. Pass --write to change tables."
        )
    _refuse_writing(spark, statement, tokens)


def _refuse_writing(spark: SparkSession, statement: str, tokens: list[Token]) -> None:
    """Raise ParseException unless this is one query, or EXPLAIN of one."""
    n_explain = 0
    if tokens[0].text == "EXPLAIN":
        n_explain = 2 if len(tokens) > 1 and tokens[1].text in EXPLAIN_FORMS else 1
    question = tokens[n_explain:]
    start = question[0].start if question else 0
    lines = "\n" * statement.count("\n", 0, start)  # errors name the line of the statement
    try:
        spark.sql(f"DESCRIBE QUERY ({lines}{statement[start : tokens[-1].end]}\n)")
    except ParseException:
        raise
    except AnalysisException:
        return  # a query of something missing: running it gives the error with its position


def tokens_of(statement: str) -> list[Token]:
    """Return the tokens of a statement, without spaces and comments."""
    tokens = []
    place = 0
    while place < len(statement):
        match = _TOKEN.match(statement, place)
        if match is None:
            raise InputError(
                f"statement: position {place}: {statement[place]!a} is not allowed here under "
                f"Spark Connect. {ADVICE}"
            )
        place = match.end()
        kind = match.lastgroup or ""
        text = match[0].upper() if kind == "word" else match[0]
        if kind != "space":
            tokens.append(Token(kind, text, *match.span()))
    return tokens


def _first_words(tokens: list[Token]) -> str:
    return " ".join(token.text for token in tokens[:4])


def _refuse_constructs(tokens: list[Token]) -> None:
    """Raise InputError for a program, a path, a file format or a second statement."""
    pairs = [(token.text, after.text) for token, after in itertools.pairwise(tokens)]
    if NEW_TABLE.match(_first_words(tokens)) and ("USING", "DELTA") not in pairs:
        refuse_no_format()
    is_table = "TBLPROPERTIES" in [token.text for token in tokens]
    for token, after in itertools.pairwise([*tokens, Token("", "")]):
        pair = (token.text, after.text)
        is_string_next = after.kind == "string"
        name = token.text.strip("`").lower()
        if token.text == ";" or pair in (("EXECUTE", "IMMEDIATE"), ("OPTIONS", "(")):
            _refuse(" ".join(pair))
        if token.text == "USING" and (is_string_next or name_of_format(after) not in ("", "delta")):
            _refuse("USING a program or a file format")
        if is_string_next and token.text in BEFORE_PATH:
            _refuse(f"{token.text} of a path")
        if after.text == "." and name in FORMATS:
            refuse_path([name, "…"])
        if token.text == "." and after.kind == "quoted":
            refuse_path([after.text])
        if token.kind == "string" and is_table:
            name = token.text.lstrip("rR").strip("'\"")
            refuse_property(name)
            if name.lower().startswith(CHECK_PROPERTY):
                _refuse("a check as a table property")


def name_of_format(token: Token) -> str:
    """Return the name of a file format; empty if the token is none."""
    name = token.text.lower()
    return name if name in FORMATS else ""


def _refuse_call(tokens: list[Token], place: int) -> None:
    """Raise InputError if this name before a bracket may be the call of a function not allowed."""
    start = place
    while start >= 2 and tokens[start - 1].text == ".":
        start -= 2
    parts = [token.text.strip("`").lower() for token in tokens[start : place + 1 : 2]]
    is_syntax = len(parts) == 1 and tokens[place].text in SYNTAX
    before = tokens[start - 1].text if start else ""
    is_new_view = before == "VIEW" and tokens[0].text == "CREATE" and start <= 4
    is_list_of_columns = before in BEFORE_COLUMNS or is_new_view
    if not is_syntax and not is_list_of_columns:
        refuse_function(parts)
        _refuse_type_in_json(tokens, place, parts[-1])


def _refuse_type_in_json(tokens: list[Token], place: int, function: str) -> None:
    """Raise InputError if a call's data type is not DDL that stands in the statement."""
    if function not in TYPE_ARGUMENTS:
        return
    n_before = TYPE_ARGUMENTS[function]
    arguments = _arguments(tokens[place + 2 :])
    for argument in arguments[:n_before]:
        texts = [token.text for token in argument]
        if texts[:1] == ["*"] or (".", "*") in itertools.pairwise(texts):
            refuse_type(function)  # a star stands for any number of arguments
    for argument in arguments[n_before : n_before + 1]:
        kinds = [token.kind for token in argument]
        is_ddl = kinds == ["string"] and DDL.match(argument[0].text)
        is_call = kinds == ["word", "symbol", "string", "symbol"]
        if not is_ddl and not (is_call and argument[0].text.lower() in MAKERS_OF_TYPES):
            refuse_type(function)


def _arguments(tokens: list[Token]) -> list[list[Token]]:
    """Return the arguments of a call, of the tokens after its bracket."""
    arguments: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
        if depth < 0:
            break
        if token.text == "," and depth == 0:
            arguments.append([])
        else:
            arguments[-1].append(token)
    return arguments


def _refuse(construct: str) -> None:
    raise InputError(f"statement: {construct} is not allowed under Spark Connect. {ADVICE}")
