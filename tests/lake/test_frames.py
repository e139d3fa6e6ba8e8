"""Content hashes, column contracts and row counts detect every change. Needs Spark."""

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.errors import ContractError, IntegrityError
from pipelines.lake.frames import conform, content_hash, require_conserved
from schemas import GOLD_REJECTS

Rows = list[tuple[str | None, str | None]]
ROWS: Rows = [("a", "1"), ("b", "2"), ("c", None)]


def frame(spark: SparkSession, rows: Rows) -> DataFrame:
    return spark.createDataFrame(rows, "x string, y string")


@pytest.mark.parametrize(
    ("rows", "is_equal"),
    [
        pytest.param(list(reversed(ROWS)), True, id="reordered"),
        pytest.param([("a", "1"), ("b", "3"), ("c", None)], False, id="one value changed"),
        pytest.param(ROWS[:2], False, id="one row fewer"),
        # xor alone does not see a pair of equal rows
        pytest.param([*ROWS, ("d", "4"), ("d", "4")], False, id="a pair more"),
        pytest.param([("a", "1"), ("b", "2"), ("c", "")], False, id="null to empty"),
        # xxhash64 alone skips nulls
        pytest.param([("a", "1"), ("b", "2"), (None, "c")], False, id="null moved"),
        pytest.param([], False, id="no row"),
    ],
)
def test_the_content_hash_depends_on_every_value_but_not_on_the_order(
    spark: SparkSession, rows: Rows, is_equal: bool
) -> None:
    expected = content_hash(frame(spark, ROWS).repartition(3))
    assert (content_hash(frame(spark, rows)) == expected) == is_equal


def test_an_empty_frame_has_a_hash_too(spark: SparkSession) -> None:
    hash_of_none = content_hash(frame(spark, []))
    assert hash_of_none == content_hash(frame(spark, ROWS).where("false"))
    assert len(hash_of_none) == 32


def test_conform_puts_the_columns_in_the_order_of_the_contract_and_drops_the_others(
    spark: SparkSession,
) -> None:
    schema = "reason string, other int, review_id string"
    given = spark.createDataFrame([("unlabelled", 1, "a1")], schema)
    assert conform(given, GOLD_REJECTS).collect() == [("a1", "unlabelled")]


def test_conform_names_the_column_and_both_types(spark: SparkSession) -> None:
    given = spark.createDataFrame([("a1", 1)], "review_id string, reason int")
    with pytest.raises(ContractError) as caught:
        conform(given, GOLD_REJECTS)
    assert str(caught.value) == (
        "gold.rejects.reason: expected string, found int. Columns given: review_id, reason. "
        "Fix the transformation, or change the contract in schemas/."
    )
    without_key = given.select(F.col("review_id").alias("id"), "reason")
    words = r"^gold\.rejects\.review_id: expected string, found no such column\. Col"
    with pytest.raises(ContractError, match=words):
        conform(without_key, GOLD_REJECTS)


@pytest.mark.parametrize(
    "rows", [{"in": 10, "kept": 6, "rejected": 3, "duplicates": 1}, {"in": 0, "kept": 0}]
)
def test_row_counts_that_add_up_are_accepted(rows: dict[str, int]) -> None:
    require_conserved("t", rows, "Run it again.")


@pytest.mark.parametrize("rows", [{"in": 10, "kept": 6, "rejected": 3, "left_out": 2}, {"in": 10}])
def test_row_counts_that_do_not_add_up_are_refused(rows: dict[str, int]) -> None:
    words = r"^t: expected 10 rows accounted for, found .* = \d+\. Run it again\.$"
    with pytest.raises(IntegrityError, match=words):
        require_conserved("t", rows, "Run it again.")


def test_lost_rows_are_listed_by_outcome() -> None:
    words = r"expected 6 rows accounted for, found 2 added \+ 3 already there = 5\."
    with pytest.raises(IntegrityError, match=words):
        require_conserved("r.csv", {"in": 6, "added": 2, "already_there": 3}, "")
