"""Read-only SQL: walk the plan that Spark's own parser makes of a statement.

The plan is not resolved yet, so nothing has run. Each object in it must be on a list of `allowed`:
its class, and of a function its name. What is on no list is refused. No other module may call the
JVM's parser; under Spark Connect there is none, and `words` decides.
"""

import re
from typing import Any

from py4j.java_gateway import JavaObject
from pyspark.sql import SparkSession

from pipelines.errors import InputError
from pipelines.operate.allowed import (
    CHANGING,
    FORMATS,
    FUNCTIONS,
    MAKERS_OF_TYPES,
    READING,
    TYPE_ARGUMENTS,
)

MAX_OBJECTS = 20_000  # a few seconds
SPARK = "org.apache.spark.sql."
CONTAINER = re.compile(r"scala\.collection\..*")
PRODUCT = re.compile(r"scala\.(Some|Tuple\d+.*|util\.(Left|Right))")
# Objects that hold no expression and no name of a table: types, join types, constants.
VALUE = re.compile(
    r"java\.(lang|math|util)\.\w+|scala\.(None\$|Enumeration\$Val)"
    r"|org\.apache\.spark\.(unsafe\.types|sql\.types|sql\.connector\.expressions)\..*"
    r"|org\.apache\.spark\.sql\.connector\.catalog\.(TableChange\$\w+|IdentityColumnSpec)"
    r"|org\.apache\.spark\.sql\.catalyst\.(plans\.\w+\$?|analysis\.(PersistedView|Schema\w+)\$)"
    r"|org\.apache\.spark\.sql\.catalyst\.analysis\.UnresolvedPartitionSpec"  # constants
    r"|org\.apache\.spark\.sql\.catalyst\.expressions\.Literal"
    r"|org\.apache\.spark\.sql\.catalyst\.plans\.logical\.LocalRelation"  # evaluated VALUES
)
OPTIONS = f"{SPARK}util.CaseInsensitiveStringMap"
WRITE_PRIVILEGES = "__required_write_privileges__"  # the parser's own option of a written table
CALLS = {"UnresolvedFunction", "UnresolvedGenerator", "UnresolvedTableValuedFunction"}
TABLES = {
    *("TableIdentifier", "UnresolvedIdentifier", "UnresolvedNamespace", "UnresolvedRelation"),
    *("UnresolvedTable", "UnresolvedTableOrView", "UnresolvedView"),
}
LITERAL = f"{SPARK}catalyst.expressions.Literal"
TEXT = "org.apache.spark.unsafe.types.UTF8String"
DDL = re.compile(r"\s*[\w`]")  # a type in JSON starts with { or "
BUILT_IN: tuple[list[str], ...] = ([], ["builtin"], ["system", "builtin"])
PATH_CHARACTER = re.compile(r"[./\\:]")
CHECK_PROPERTY = "delta.constraints."  # such a table property holds SQL
# Fields that hold an expression as text, by their place.
SQL_FIELDS = {"AlterTableAddConstraint": 2, "ColumnDefinition": 5, "OptimizeTableCommand": 1}


def has_parser(spark: SparkSession) -> bool:
    """Return whether Spark's parser is in reach: under Spark Connect there is no JVM."""
    return getattr(spark, "_jsparkSession", None) is not None


def judge(spark: SparkSession, statement: str, may_write: bool) -> None:
    """Raise InputError unless all that the statement holds is allowed; ParseException if it is
    no SQL.
    """
    parser = spark._jsparkSession.sessionState().sqlParser()
    waiting: list[Any] = [parser.parsePlan(statement)]
    n_objects = 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, JavaObject):
            n_objects += 1
            waiting += _checked(parser, part, may_write)
        if n_objects > MAX_OBJECTS:
            raise InputError("statement: too long to be checked. Split it, or use a table.")


def refuse_function(parts: list[str]) -> None:
    """Raise InputError unless the name is that of an allowed function of Spark."""
    *qualifier, name = [part.lower() for part in parts]
    if name not in FUNCTIONS or qualifier not in BUILT_IN:
        raise InputError(
            f"statement: the function {'.'.join(parts)} is not allowed: only Spark's own functions "
            "that run no code and open no file are. Remove it."
        )


def refuse_type(function: str) -> None:
    """Raise InputError for a data type that is no DDL, or that is computed."""
    raise InputError(
        f"statement: {function}: expected the type as one string of DDL, such as 'a INT', or "
        "schema_of_json('...'); found another expression or a type in JSON. Write it as DDL."
    )


def refuse_path(parts: list[str]) -> None:
    """Raise InputError if a table's name is a path, or a format and a path."""
    is_file = len(parts) == 2 and parts[0].lower() in FORMATS
    if is_file or any(PATH_CHARACTER.search(part) for part in parts):
        raise InputError(
            f"statement: expected the name of a table, found the path {'.'.join(parts)}. "
            "Files cannot be queried; ingest them first."
        )


def refuse_no_format() -> None:
    """Raise InputError for a new table without USING, which Spark would make in Parquet."""
    raise InputError("statement: expected USING after the new table's name. Add USING delta.")


def refuse_property(name: str) -> None:
    """Raise InputError for a property that names a place or is passed on to a file reader."""
    if name.lower() in ("location", "path") or name.lower().startswith("option."):
        raise InputError(f"statement: the property {name} is not allowed. Remove it.")


def _checked(parser: Any, part: JavaObject, may_write: bool) -> list[Any]:
    """Check one object of a plan, and return those that it holds."""
    kind: str = part.getClass().getName()
    if VALUE.fullmatch(kind):
        return []
    if kind == OPTIONS:
        if part.size() > part.containsKey(WRITE_PRIVILEGES):
            raise InputError("statement: WITH (options) after a table is not allowed. Remove it.")
        return []
    if CONTAINER.fullmatch(kind):
        return _items(part.iterator())
    if PRODUCT.fullmatch(kind):
        return _pair(parser, _items(part.productIterator()))
    name = re.sub(r"(\$\$anon\$\d+|\$)$", "", kind.removeprefix(SPARK))
    _refuse_class(name, may_write)
    return _fields(parser, name.rpartition(".")[2], part)


def _refuse_class(name: str, may_write: bool) -> None:
    if name in (CHANGING if may_write else READING):
        return
    short = re.split(r"[.$]", name)[-1] if "$Lambda" not in name else "a computed name"
    if name in CHANGING:
        raise InputError(
            "statement: expected a query, DESCRIBE, SHOW or EXPLAIN of a query, "
            f"found {short}. Pass --write to change tables."
        )
    raise InputError(
        f"statement: {short} is not on the list of what a statement may hold. Remove it. "
        "OPERATIONS.md says what is allowed."
    )


def _fields(parser: Any, kind: str, part: JavaObject) -> list[Any]:
    """Return the fields of a node whose class is allowed. Checks the names in it."""
    fields = _items(part.productIterator())
    if kind in CALLS:
        refuse_function(_texts(fields[0]))
        _refuse_type_in_json(_texts(fields[0])[-1].lower(), _items(fields[1].iterator()))
    elif kind == "TableIdentifier":
        refuse_path(_texts(part.nameParts()))
    elif kind in TABLES:
        refuse_path(_texts(fields[0]))
    elif kind == "UnresolvedTableSpec":
        _refuse_place(part)
    if kind in SQL_FIELDS:
        fields += [parser.parseExpression(text) for text in _texts(fields[SQL_FIELDS[kind]])]
    return fields


def _refuse_type_in_json(function: str, arguments: list[Any]) -> None:
    """Raise InputError if a call's data type is not DDL that stands in the statement."""
    if function not in TYPE_ARGUMENTS:
        return
    place = TYPE_ARGUMENTS[function]
    kinds = [argument.getClass().getName() for argument in arguments[:place]]
    if any("UnresolvedStar" in kind for kind in kinds):  # it stands for any number of arguments
        refuse_type(function)
    for argument in arguments[place : place + 1]:
        if not DDL.match(_literal(argument)) and not _makes_type(argument):
            refuse_type(function)


def _makes_type(expression: JavaObject) -> bool:
    """Return whether this is a call as schema_of_json('...')."""
    if not expression.getClass().getName().endswith(".UnresolvedFunction"):
        return False
    name, arguments, *_ = _items(expression.productIterator())
    is_maker = _texts(name)[-1].lower() in MAKERS_OF_TYPES
    return is_maker and all(_literal(item) for item in _items(arguments.iterator()))


def _literal(expression: JavaObject) -> str:
    """Return the string that the expression is; empty if it is anything else."""
    if expression.getClass().getName() != LITERAL:
        return ""
    value = expression.value()
    is_text = isinstance(value, JavaObject) and value.getClass().getName() == TEXT
    return str(value.toString()) if is_text else ""


def _refuse_place(table: JavaObject) -> None:
    """Raise InputError if a new table is no Delta table, or names its place."""
    provider = [name.lower() for name in _texts(table.provider())]
    if not provider:
        refuse_no_format()
    if provider != ["delta"] or table.location().isDefined() or table.serde().isDefined():
        raise InputError(
            "statement: expected a Delta table in the catalog's own place, found another format "
            "or a LOCATION. Remove it."
        )


def _pair(parser: Any, fields: list[Any]) -> list[Any]:
    """Return the fields of a pair. Checks the name and the SQL of a table's property."""
    if len(fields) != 2 or not all(isinstance(field, str) for field in fields):
        return fields
    name, value = fields
    refuse_property(name)
    is_check = name.lower().startswith(CHECK_PROPERTY)
    return [parser.parseExpression(value)] if is_check else []


def _texts(value: Any) -> list[str]:
    """Return the strings in a string, an option, a sequence or a function's identifier."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, JavaObject):
        return []
    kind: str = value.getClass().getName()
    is_container = CONTAINER.fullmatch(kind)
    items = _items(value.iterator() if is_container else value.productIterator())
    return [text for item in items for text in _texts(item)]


def _items(iterator: Any) -> list[Any]:
    items = []
    while iterator.hasNext():
        items.append(iterator.next())
    return items
