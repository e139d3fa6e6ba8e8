"""Schemas can have other names in SQL, catalog and directories. Needs Spark, a tiny encoder."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import query
from pipelines.lake.config import LakeConfig
from pipelines.lake.snapshot import data_tags
from pipelines.lake.tables import TableStore
from schemas import GOLD_REJECTS, TABLES, VIEWS
from schemas.ddl import SCHEMAS, physical
from tests.support.every_job import FULL_LINEAGE, N_REVIEWS, encoder_of_reviews, run_every_job

RENAMED = {name: f"dev_{name}" for name in SCHEMAS}
RENAMED_FLAG = ",".join(RENAMED.values())


@pytest.mark.parametrize(
    ("logical", "expected"),
    [
        ("SELECT * FROM gold.scores", "SELECT * FROM dev_gold.scores"),
        (
            "SELECT gold.scores.run_id FROM GOLD.Scores",
            "SELECT dev_gold.scores.run_id FROM dev_gold.Scores",
        ),
        ("FROM `gold`.`scores` JOIN gold.`reviews`", "FROM dev_gold.scores JOIN dev_gold.reviews"),
        ("FROM silver.reviews,gold.lineage", "FROM dev_silver.reviews,dev_gold.lineage"),
        ("m['silver.reviews'], \"gold.scores\"", "m['silver.reviews'], \"gold.scores\""),
        (r"'it\'s gold.scores' gold.scores", r"'it\'s gold.scores' dev_gold.scores"),
        (r"r'\' gold.scores", r"r'\' dev_gold.scores"),
        ("-- don't read gold.scores\ngold.scores", "-- don't read gold.scores\ndev_gold.scores"),
        ("/* don't: gold.scores */ gold.scores", "/* don't: gold.scores */ dev_gold.scores"),
        ("SELECT 1 AS `gold.scores`", "SELECT 1 AS `gold.scores`"),
        ("FROM other.gold.scores", "FROM other.gold.scores"),
        ("FROM `other`.`gold`.`scores`", "FROM `other`.`gold`.`scores`"),
        (
            "gold.runs, golden.scores, gold.scores_of, s.reviews",
            "gold.runs, golden.scores, gold.scores_of, s.reviews",
        ),
    ],
)
def test_only_the_contracts_names_are_renamed_in_sql(logical: str, expected: str) -> None:
    assert physical(logical, RENAMED) == expected
    assert physical(logical, {name: name for name in SCHEMAS}) == logical


def test_schemas_that_swap_their_names_are_not_renamed_twice() -> None:
    swapped = dict(zip(SCHEMAS, ("silver", "bronze", "gold", "ops"), strict=True))
    expected = "silver.reviews JOIN bronze.reviews"
    assert physical("bronze.reviews JOIN silver.reviews", swapped) == expected


@pytest.mark.parametrize(
    "names", ["", "a,b,c", "a,b,c,d,e", "a,b,c,C", "a,b,c,", "a,b,c,d.e", "a,b, c,d", "a,,b,c,d"]
)
def test_the_flag_takes_exactly_four_different_names(names: str) -> None:
    words = (
        "--schemas must be four different names of ASCII letters, digits and _, none of them a "
        "number or reserved, for example bronze,silver,gold,ops, got "
    )
    with pytest.raises(ValueError, match=words):
        LakeConfig(schemas=names)


@pytest.fixture
def no_registered_tables(spark: SparkSession, tmp_path: Path) -> None:
    """Open an empty lake, which removes the contracts' own names from the session's catalog."""
    TableStore(spark, LakeConfig(lake=str(tmp_path / "empty")))


@pytest.mark.usefixtures("no_registered_tables")
def test_tables_and_views_are_registered_under_the_other_names_only(
    spark: SparkSession, tmp_path: Path
) -> None:
    config = LakeConfig(lake=str(tmp_path / "lake"), schemas=RENAMED_FLAG)
    store = TableStore(spark, config)
    for table in TABLES:
        store.create(table)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    for write in (store.append, store.merge, store.synchronise):
        write(GOLD_REJECTS, rows)
    reopened = TableStore(spark, config)
    assert [view for view in VIEWS if not reopened.exists(view)] == []
    assert (reopened.version(GOLD_REJECTS), reopened.read(GOLD_REJECTS, 1).count()) == (1, 1)
    assert data_tags(reopened, GOLD_REJECTS, 1, "h")["delta.table"] == "gold.rejects"
    count_rejects = "SELECT count(*) FROM gold.rejects VERSION AS OF 1"
    assert reopened.counts({"n": count_rejects}) == {"n": 1}
    assert spark.table("dev_gold.lineage").count() == 0
    assert [table.name for table in TABLES if spark.catalog.tableExists(table.name)] == []


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("no_registered_tables")
def test_every_job_works_where_all_schemas_have_other_names(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = tmp_path / "lake"
    place = ["--lake", str(lake), "--schemas", RENAMED_FLAG]
    printed = run_every_job(place, encoder_of_reviews(tmp_path / "encoder"))
    assert printed["query"] == FULL_LINEAGE
    assert printed["diff"].startswith(f"gold.reviews version 0 -> 1: {N_REVIEWS} added, 0 removed")
    assert printed["reproduce"].endswith("verdict  bit-identical\n")
    assert printed["vacuum"].startswith(
        "bronze.reviews: 0 files, 0 bytes deleted; needed: version 1 (latest or"
    )
    assert printed["doctor"] == ""
    assert [table.name for table in TABLES if spark.catalog.tableExists(table.name)] == []
    stored = {path.parent.relative_to(lake) for path in lake.glob("*/*/_delta_log")}
    assert stored == {Path(*physical(table.name, RENAMED).split(".")) for table in TABLES}

    # Logical and physical names both work, so a query file of a laptop works here too.
    for table in (VIEWS[1].name, "dev_gold.lineage"):
        count_rows = f"SELECT count(*) AS n FROM {table}"
        query.main([*place, "--sql", count_rows, "--format", "csv"])
        assert capsys.readouterr().out == f"n\n{N_REVIEWS}\n"
    query.main([*place, "--write", "--sql", "DELETE FROM gold.rejects", "--format", "csv"])
    assert capsys.readouterr().out == "num_affected_rows\n0\n"
