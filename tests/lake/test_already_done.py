"""A finished job answers from the ledger without Java; a changed table makes it start Spark.

Needs Spark to make the lake, and runs jobs in processes of their own that find no Java.
"""

import shutil
import subprocess
import sys

import pytest

from jobs.clean import CleanConfig
from pipelines.errors import IntegrityError
from pipelines.lake import chain, ledger
from pipelines.lake.tables import TableStore, open_lake
from schemas import BRONZE_REVIEWS, OPS_RUNS, SILVER_REJECTS, SILVER_REVIEWS
from tests.support.processes import ROOT, own_environment


@pytest.fixture
def cleaned(store: TableStore) -> TableStore:
    """A lake whose bronze table, at version 0, was cleaned."""
    for table in (BRONZE_REVIEWS, SILVER_REVIEWS, SILVER_REJECTS):
        store.create(table)
    run = ledger.start("clean", CleanConfig(lake=store.config), {BRONZE_REVIEWS.name: 0})
    outputs = [store.append(table, store.read(table)) for table in (SILVER_REVIEWS, SILVER_REJECTS)]
    ledger.finish(store, run, outputs, {"in": 0, "kept": 0})
    return store


def clean_without_java(store: TableStore, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run jobs/clean.py where no Java can be found."""
    command = [sys.executable, "jobs/clean.py", "--lake", str(store.config.lake_path), *flags]
    environment = own_environment() | {"JAVA_HOME": "/no/java/here"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_finished_job_says_so_without_java_and_a_rerun_needs_it(cleaned: TableStore) -> None:
    finished = clean_without_java(cleaned)
    assert finished.stderr.startswith("clean: nothing to do, done at 20"), finished.stderr
    assert "(silver.rejects v0, silver.reviews v0); --rerun does it again" in finished.stderr
    assert (finished.returncode, finished.stdout) == (0, "")
    again = clean_without_java(cleaned, "--rerun")
    assert (again.returncode, again.stderr[:21]) == (5, "SetupError: java: not")


def test_a_table_that_changed_since_makes_the_job_start_spark(cleaned: TableStore) -> None:
    cleaned.sql("ALTER TABLE silver.reviews SET TBLPROPERTIES ('a' = 'b')")  # version 1
    assert clean_without_java(cleaned).returncode == 5


def test_a_lake_without_a_ledger_is_not_done(store: TableStore) -> None:
    store.create(BRONZE_REVIEWS)
    assert clean_without_java(store).returncode == 5


def test_the_versions_of_a_local_lake_are_known_before_spark_starts(cleaned: TableStore) -> None:
    unopened = open_lake("test", cleaned.config)
    assert unopened.latest(SILVER_REVIEWS) == 0
    assert unopened.exists(SILVER_REJECTS)
    assert not unopened.is_started


def test_the_ledger_reads_the_same_with_and_without_spark(cleaned: TableStore) -> None:
    [by_spark] = [row.asDict(recursive=True) for row in cleaned.read(OPS_RUNS).collect()]
    [without] = ledger.rows_of(cleaned)
    assert len(without["files"]) == 2
    assert chain.row_hash(by_spark) == chain.row_hash(without)
    times = [row.pop("finished_at").timestamp() for row in (by_spark, without)]
    assert times[0] == times[1]
    assert without == by_spark


def test_a_job_refuses_a_ledger_that_lost_its_last_row(cleaned: TableStore) -> None:
    shutil.rmtree(cleaned.config.location(OPS_RUNS))
    refused = clean_without_java(cleaned)
    assert (refused.returncode, refused.stdout) == (3, "")
    words = "IntegrityError: ops.runs: expected the rows that the last run left, found them missing"
    assert refused.stderr.startswith(words), refused.stderr
    assert refused.stderr.count("\n") == 1
    (cleaned.config.lake_path / "ledger_ops.json").unlink()  # as the line says
    assert clean_without_java(cleaned).returncode == 5  # it has work to do, and no Java


def test_a_damaged_ledger_is_one_line(cleaned: TableStore) -> None:
    log = cleaned.config.log_directory(OPS_RUNS)
    (log / f"{0:020}.json").write_text("no commit", encoding="utf-8")
    with pytest.raises(
        IntegrityError, match=r"^ops\.runs cannot be read: .* Run jobs/doctor\.py\.$"
    ):
        ledger.rows_of(cleaned)
