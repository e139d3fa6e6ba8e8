"""Tables match their contracts in schemas/, and every check refuses a bad row. Needs Spark."""

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from pipelines.errors import IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from schemas import SILVER_REVIEWS, TABLES, VIEWS, Table
from schemas.contract import KEEP_HISTORY
from schemas.ddl import sql_literal
from schemas.document import document

MARKER = "words of a review that no error may repeat"
SHA256 = "a" * 64
BY_TYPE: dict[type[DataType], Any] = {
    StringType: MARKER,
    IntegerType: 1,
    LongType: 1,
    DoubleType: 0.5,
    BooleanType: False,
    TimestampType: datetime(2026, 1, 2, tzinfo=UTC),
}
# Columns whose checks allow fewer values than their type does. The text of every review is MARKER.
BY_NAME = {
    "review_id": hashlib.sha256(MARKER.encode()).hexdigest(),
    "n_characters": len(MARKER),
    "split": "train",
    "source_split": "test",
    "source_sha256": SHA256,
    "weights_sha256": SHA256,
    "reason": "unlabelled",
    "state": "done",
    "outcome": "added",
    "decision": "promoted",
    "read_fault": None,
    "label_meaning": "neutral",
    "score_error": None,
}
# By table and check: a valid row with these values breaks this check and no other.
BROKEN: dict[tuple[str, str], dict[str, Any]] = {
    ("bronze.reviews", "source_sha256_is_hex"): {"source_sha256": "A" * 64},
    ("bronze.reviews", "row_number_is_positive"): {"row_number": 0},
    ("bronze.reviews", "label_meaning_is_known"): {"label_meaning": "1"},
    ("bronze.reviews", "source_split_is_known"): {"source_split": "valid"},
    ("bronze.reviews", "unreadable_rows_say_why"): {"raw_text": None},
    ("silver.reviews", "review_id_is_hash_of_text"): {"review_id": SHA256},
    ("silver.reviews", "text_is_not_blank"): {
        "text": " ",
        "review_id": hashlib.sha256(b" ").hexdigest(),
    },
    ("silver.reviews", "label_is_binary"): {"label": 2},
    ("silver.reviews", "has_an_origin"): {"origins": []},
    ("silver.rejects", "has_a_reason"): {"failed_rules": []},
    ("gold.reviews", "review_id_is_hash_of_text"): {"review_id": SHA256},
    ("gold.reviews", "label_is_binary"): {"label": -1},
    ("gold.reviews", "split_is_known"): {"split": "valid"},
    ("gold.reviews", "n_characters_is_length"): {"n_characters": 1},
    ("gold.rejects", "reason_is_known"): {"reason": "too_long"},
    ("gold.scores", "has_an_origin"): {"origins": []},
    ("gold.scores", "probability_is_a_share"): {"probability": float("nan")},
    ("gold.scores", "prediction_is_binary"): {"prediction": 2},
    ("gold.scores", "scored_or_says_why"): {"score_error": MARKER},
    ("gold.scores", "prediction_goes_with_probability"): {"prediction": None},
    ("ops.runs", "state_is_known"): {"state": "failed"},
    ("ops.deliveries", "outcome_is_known"): {"outcome": "lost"},
    ("ops.deliveries", "refusals_say_why"): {"outcome": "refused", "reason": None},
    ("ops.models", "weights_sha256_is_hex"): {"weights_sha256": SHA256[:63]},
    ("ops.models", "manifest_is_not_empty"): {"files": []},
    ("ops.promotions", "decision_is_known"): {"decision": "kept"},
}
BY_TABLE_NAME = {table.name: table for table in TABLES}


@pytest.fixture(scope="module")
def full_store(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TableStore:
    store = TableStore(spark, LakeConfig(lake=str(tmp_path_factory.mktemp("contracts"))))
    for table in TABLES:
        store.create(table)
    return store


def value_of(type_: DataType) -> Any:
    if isinstance(type_, ArrayType):
        return [value_of(type_.elementType)]
    if isinstance(type_, MapType):
        return {value_of(type_.keyType): value_of(type_.valueType)}
    if isinstance(type_, StructType):
        return tuple(value_of(field.dataType) for field in type_.fields)
    return BY_TYPE[type(type_)]


def row_of(store: TableStore, table: Table, **changes: Any) -> DataFrame:
    """Return one valid row with these changes; all columns may be null, since Delta must refuse."""
    values = {field.name: value_of(field.dataType) for field in table.schema.fields}
    values |= {name: value for name, value in BY_NAME.items() if name in values} | changes
    row = tuple(values[name] for name in table.column_names)
    schema = StructType([nullable(field) for field in table.schema.fields])
    return store.spark.createDataFrame([row], schema)


def nullable(field: StructField) -> StructField:
    return StructField(field.name, field.dataType, True)


def test_every_contract_describes_each_column_and_has_a_check() -> None:
    for table in TABLES:
        comments = [column.comment for column in table.columns]
        assert all(comment.strip().endswith(".") for comment in comments), table.name
        assert [comment for comment, n in Counter(comments).items() if n > 1] == [], table.name
        assert table.comment.endswith((".", ")")), table.name
        assert table.checks, table.name
    assert len(TABLES) == len(BY_TABLE_NAME) == 10


def test_every_key_is_made_of_columns_that_are_never_null() -> None:
    keys = {(table.name, name) for table in TABLES for name in table.key}
    not_null = {
        (table.name, column.name)
        for table in TABLES
        for column in table.columns
        if not column.nullable
    }
    assert len(keys) >= len(TABLES)
    assert keys - not_null == set()


def test_every_table_keeps_its_history_and_views_read_tables_of_the_lake() -> None:
    for table in TABLES:
        assert KEEP_HISTORY.items() <= table.properties.items()
    assert {table.name for view in VIEWS for table in view.reads} <= set(BY_TABLE_NAME)


@pytest.mark.parametrize(
    ("value", "literal"),
    [("it's", r"'it\'s'"), ("a\\b", r"'a\\b'"), ("rlike '^x$'", r"'rlike \'^x$\''"), ("", "''")],
)
def test_a_sql_literal_escapes_quotes_and_backslashes(value: str, literal: str) -> None:
    assert sql_literal(value) == literal


def test_tables_md_is_generated_from_the_contracts() -> None:
    page = (Path(__file__).resolve().parents[2] / "TABLES.md").read_text(encoding="utf-8")
    assert page == document(), "stale; run make generated"
    assert all(f"\n## {name}\n" in page for name in BY_TABLE_NAME)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_created_table_has_everything_in_its_contract(
    full_store: TableStore, table: Table
) -> None:
    spark = full_store.spark
    created = {
        column.name: (column.dataType, column.nullable, column.description)
        for column in spark.catalog.listColumns(table.name)
    }
    assert created == {
        column.name: (column.type, column.nullable, column.comment) for column in table.columns
    }
    detail = spark.sql(f"DESCRIBE DETAIL {table.name}").collect()[0]
    constraints = {f"delta.constraints.{name}": rule for name, rule in table.checks.items()}
    assert detail.properties.items() >= (table.properties | constraints).items()
    assert {"checkConstraints", "invariants", "inCommitTimestamp"} <= set(detail.tableFeatures)
    assert detail.description == table.comment
    assert full_store.version(table) == 0  # one commit, so the table never lacks its checks


def test_every_check_has_a_row_that_breaks_it() -> None:
    assert set(BROKEN) == {(table.name, check) for table in TABLES for check in table.checks}


@pytest.mark.parametrize(("name", "check"), BROKEN, ids=lambda value: value)
def test_delta_refuses_a_row_that_breaks_a_check(
    full_store: TableStore, name: str, check: str
) -> None:
    table = BY_TABLE_NAME[name]
    row = row_of(full_store, table, **BROKEN[name, check])
    words = rf"^{name}: expected rows that satisfy {check}, found one that"
    with pytest.raises(IntegrityError, match=words) as caught:
        full_store.append(table, row)
    assert MARKER not in str(caught.value)


def test_delta_refuses_a_null_in_a_column_that_is_not_nullable(full_store: TableStore) -> None:
    row = row_of(full_store, SILVER_REVIEWS, has_pii=None)
    words = r"expected rows that satisfy has_pii NOT NULL, found one"
    with pytest.raises(IntegrityError, match=words) as caught:
        full_store.append(SILVER_REVIEWS, row)
    assert MARKER not in str(caught.value)


def test_an_older_table_gains_the_check_that_its_contract_gained(full_store: TableStore) -> None:
    older = replace(SILVER_REVIEWS, name="silver.older", checks={})
    current = replace(older, checks={"label_is_binary": SILVER_REVIEWS.checks["label_is_binary"]})
    full_store.create(older)
    reopened = TableStore(full_store.spark, full_store.config)
    reopened.create(current)
    rows = row_of(reopened, current).withColumn("label", F.lit(7))
    with pytest.raises(IntegrityError, match="satisfy label_is_binary"):
        reopened.append(current, rows)
