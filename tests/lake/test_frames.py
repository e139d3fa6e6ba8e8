import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.errors import ContractError, IntegrityError
from pipelines.lake.frames import conform, content_hash, require_conserved
from schemas import GOLD_REJECTS

ROWS: list[tuple[str | None, str | None]] = [("a", "1"), ("b", "2"), ("c", None)]


def frame(spark: SparkSession, rows: list[tuple[str | None, str | None]]) -> DataFrame:
    return spark.createDataFrame(rows, "x string, y string")


@pytest.mark.parametrize(
    ("rows", "is_same"),
    [
        (list(reversed(ROWS)), True),
        ([("a", "1"), ("b", "3"), ("c", None)], False),
        (ROWS[:2], False),
        ([*ROWS, ("d", "4"), ("d", "4")], False),  # xor alone does not see a pair
        ([("a", "1"), ("b", "2"), ("c", "")], False),
        ([("a", "1"), ("b", "2"), (None, "c")], False),  # xxhash64 alone steps over a null
        ([], False),
    ],
    ids=[
        "reordered",
        "one value changed",
        "one row fewer",
        "a pair more",
        "null to empty",
        "null moved",
        "no row",
    ],
)
def test_the_content_hash_sees_every_change_but_the_order(
    spark: SparkSession, rows: list[tuple[str | None, str | None]], is_same: bool
) -> None:
    assert (
        content_hash(frame(spark, rows)) == content_hash(frame(spark, ROWS).repartition(3))
    ) == is_same


def test_no_rows_have_a_hash_of_their_own_too(spark: SparkSession) -> None:
    assert content_hash(frame(spark, [])) == content_hash(frame(spark, ROWS).where("false"))
    assert len(content_hash(frame(spark, []))) == 32


def test_conform_puts_the_columns_in_the_order_of_the_contract_and_drops_the_others(
    spark: SparkSession,
) -> None:
    given = spark.createDataFrame(
        [("unlabelled", 1, "a1")], "reason string, other int, review_id string"
    )
    assert conform(given, GOLD_REJECTS).collect() == [("a1", "unlabelled")]


def test_conform_names_the_column_and_both_types(spark: SparkSession) -> None:
    given = spark.createDataFrame([("a1", 1)], "review_id string, reason int")
    with pytest.raises(ContractError) as caught:
        conform(given, GOLD_REJECTS)
    assert str(caught.value) == (
        "gold.rejects.reason: expected string, found int. Columns given: review_id, reason. "
        "Fix the transformation, or change the contract in schemas/."
    )
    with pytest.raises(
        ContractError,
        match=r"^gold\.rejects\.review_id: expected string, found no such column\. Col",
    ):
        conform(given.select(F.col("review_id").alias("id"), "reason"), GOLD_REJECTS)


@pytest.mark.parametrize(
    ("rows", "is_lawful"),
    [
        ({"in": 10, "kept": 6, "rejected": 3, "duplicates": 1}, True),
        ({"in": 0, "kept": 0}, True),
        ({"in": 10, "kept": 6, "rejected": 3, "left_out": 2}, False),
        ({"in": 10}, False),
    ],
)
def test_rows_in_are_the_rows_of_all_outcomes(rows: dict[str, int], is_lawful: bool) -> None:
    if is_lawful:
        return require_conserved("t", rows, "Run it again.")
    with pytest.raises(
        IntegrityError,
        match=r"^t: expected 10 rows accounted for, found .* = \d+\. Run it again\.$",
    ):
        require_conserved("t", rows, "Run it again.")
    return None


def test_rows_lost_or_doubled_are_listed_by_outcome() -> None:
    words = r"expected 6 rows accounted for, found 2 added \+ 3 already there = 5\."
    with pytest.raises(IntegrityError, match=words):
        require_conserved("r.csv", {"in": 6, "added": 2, "already_there": 3}, "")
