"""Records are staged, compared with bronze and appended by the job. Most tests need Spark."""

import contextlib
import io
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs import ingest as job
from pipelines.errors import ConflictError, ContractError, InputError, IntegrityError, SetupError
from pipelines.ingest import bronze
from pipelines.ingest.bronze import (
    bronze_rows,
    compare_with_bronze,
    evenly_spread,
    require_equal_counts,
)
from pipelines.ingest.sources import PACKAGED, SOURCES, Delivery
from pipelines.lake.commits import Commit
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import TableStore
from pipelines.provenance import sha256_of
from schemas import BRONZE_REVIEWS, OPS_RUNS, Table
from tests.support.delivered import staged_delivery

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXT = 'two\r\nlines, a "quote", NUL \0, \u00e9, \u2028 and \U0001f600'


def csv_file(folder: Path, n_rows: int = 3) -> Path:
    lines = [f"review {n},{n % 2}" for n in range(1, n_rows + 1)]
    (folder / "shop.csv").write_text("\n".join(["body,stars", *lines, ""]))
    return folder / "shop.csv"


def csv_flags(path: Path, *more: str) -> list[str]:
    flags = ["--source", "csv", "--path", str(path), "--name", "shop", "--text-column", "body"]
    return [*flags, "--label-column", "stars", *more]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": ("x.csv",)}, "--source imdb comes packaged, drop --path"),
        ({"source": "seed-zip"}, "--source seed-zip needs --path"),
        ({"source": "csv", "path": ("x.csv",)}, "--source csv needs --name"),
        ({"name": "shop"}, "--source imdb has its own name, drop --name"),
        (
            {"source": "csv", "path": ("x.csv",), "name": "shop", "label_map": "2=positive"},
            "--label-map needs --label-column",
        ),
        ({"delimiter": "'", "quote": "'"}, "--delimiter, --quote and --escape must differ"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Delivery(), **changes)
    assert [source for source in SOURCES if source in PACKAGED] == ["imdb", "rotten_tomatoes"]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    delivery = Delivery("csv", (str(csv_file(tmp_path)),), name="shop", text_column="body")
    with (
        pytest.raises(
            IntegrityError,
            match=r"shop\.csv: the file changed while it was read: "
            r"SHA-256 0000.* before, [0-9a-f]{64} after",
        ),
        staged_delivery(delivery, tmp_path / "shop.csv", "0" * 64, tmp_path / "landing"),
    ):
        raise AssertionError("staged")
    assert list((tmp_path / "landing").iterdir()) == []


def test_a_disk_that_cannot_hold_the_staged_file_is_a_setup_error(tmp_path: Path) -> None:
    file = csv_file(tmp_path)
    delivery = Delivery("csv", (str(file),), name="shop", text_column="body")
    with (
        pytest.raises(
            SetupError,
            match=r"shop\.csv/landing: the file cannot be staged here: Not a directory",
        ),
        staged_delivery(delivery, file, sha256_of(file), file / "landing"),
    ):
        raise AssertionError("staged")


@pytest.mark.parametrize(
    ("n_rows", "max_rows", "expected"),
    [
        (10, 3, [4, 7, 10]),
        (10, 1, [10]),
        (3, 2, [2, 3]),
        (3, 0, [1, 2, 3]),
        (3, 3, [1, 2, 3]),
        (3, 99, [1, 2, 3]),
    ],
)
def test_evenly_spread_keeps_rows_from_the_whole_file(
    spark: SparkSession, n_rows: int, max_rows: int, expected: list[int]
) -> None:
    rows = spark.range(1, n_rows + 1).selectExpr("id AS ordinal", "'x' AS source_sha256")
    other = spark.range(1, 3).selectExpr("id AS ordinal", "'y' AS source_sha256")
    both = rows.unionByName(other)
    kept = evenly_spread(both, {"x": n_rows, "y": 2}, max_rows).where("source_sha256 = 'x'")
    assert sorted(row["ordinal"] for row in kept.collect()) == expected


def test_evenly_spread_keeps_exactly_the_given_number_of_rows(spark: SparkSession) -> None:
    rows = spark.range(1, 25_001).selectExpr("id AS ordinal", "'x' AS source_sha256")
    assert evenly_spread(rows, {"x": 25_000}, 1999).count() == 1999
    assert evenly_spread(rows, {"x": 25_000}, 2000).where("ordinal <= 12500").count() == 1000


def test_bronze_rows_have_the_columns_of_the_contract(spark: SparkSession) -> None:
    records = spark.createDataFrame(
        [(1, "ab" * 32, "shop.csv", 7, "a", None, "unlabelled", None, None)],
        "ordinal long, source_sha256 string, source_file string, row_number long, "
        "raw_text string, raw_label string, label_meaning string, source_split string, "
        "read_fault string",
    )
    rows = bronze_rows(records, "shop", "run", NOW)
    assert rows.columns == list(BRONZE_REVIEWS.column_names)
    [row] = rows.withColumn("ingested_at", rows.ingested_at.cast("string")).collect()
    assert tuple(row) == (
        "shop",
        "shop.csv",
        "ab" * 32,
        7,
        "a",
        None,
        "unlabelled",
        None,
        None,
        "run",
        "2026-01-02 03:04:05",
    )


def test_rows_are_identified_by_file_content_and_row_number(spark: SparkSession) -> None:
    schema = (
        "source_sha256 string, row_number long, source_file string, raw_text string, "
        "raw_label string, label_meaning string, source_split string"
    )
    stored = [
        ("x", 1, "a.csv", "good", None, None, None),  # of an older ingest, without a meaning
        ("x", 3, "a.csv", "bad", "0", "negative", None),
        ("x", 4, "a.csv", "so so", "5", "unknown", None),
        ("y", 2, "b.csv", "so so", "1", "positive", None),
    ]
    given = [
        ("x", 1, "other.csv", "good", None, "unlabelled", None),  # under another name
        ("x", 2, "other.csv", "good", None, "unlabelled", None),
        ("x", 3, "a.csv", "bad", None, "unlabelled", None),  # read with another label column
        ("x", 4, "a.csv", "so so", "5", "negative", None),  # read with another map of labels
        ("y", 1, "b.csv", "so so", "1", "positive", None),
    ]
    bronze = spark.createDataFrame(stored, schema)
    rows = spark.createDataFrame(given, schema)
    assert compare_with_bronze(rows, bronze) == {
        "x": {"added": 1, "already_there": 3, "differing": 2},
        "y": {"added": 1, "already_there": 0, "differing": 0},
    }
    assert compare_with_bronze(rows.limit(0), bronze) == {}


def test_counts_that_differ_are_an_integrity_error() -> None:
    require_equal_counts("r.csv", 120, 120)
    with pytest.raises(
        IntegrityError,
        match=r"r\.csv: the strict reader counted 120 rows, Spark read 119\. Nothing was",
    ):
        require_equal_counts("r.csv", 120, 119)


def csv_of(text: str) -> bytes:
    return b'text,label\n"' + text.replace('"', '""').encode() + b'",1\nalone\n'


def jsonl_of(text: str) -> bytes:
    return (json.dumps({"text": text, "label": 1}) + '\n{"text": null, "label": null}\n').encode()


def parquet_of(text: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [text, None], "label": [1, None]}), sink)  # type: ignore[no-untyped-call]  # no stubs
    return sink.getvalue()


@pytest.mark.parametrize(
    ("source", "content", "fault"),
    [
        ("csv", csv_of, "1 fields, expected 2"),
        ("jsonl", jsonl_of, "text is null"),
        ("parquet", parquet_of, "text is null"),
    ],
)
def test_spark_sees_each_format_character_for_character(
    spark: SparkSession, tmp_path: Path, source: str, content: Callable[[str], bytes], fault: str
) -> None:
    path = tmp_path / "delivered"
    path.write_bytes(content(TEXT))
    delivery = Delivery(source, (str(path),), name="shop", label_column="label")
    with staged_delivery(delivery, path, sha256_of(path), tmp_path) as staged:
        records = spark.read.parquet(str(staged.parquet))
        rows = bronze_rows(records, "shop", "run", NOW).drop("ingested_at").collect()
    assert sorted(tuple(row) for row in rows) == [
        ("shop", "delivered", sha256_of(path), 1, TEXT, "1", "positive", None, None, "run"),
        ("shop", "delivered", sha256_of(path), 2, None, None, "unlabelled", None, fault, "run"),
    ]


def test_the_same_content_under_another_name_and_an_invalid_file_add_nothing(
    store: TableStore, lake: LakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    delivered = tmp_path / "shop.csv"
    delivered.write_bytes(csv_of(TEXT))
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b'text,label\nnew,1\n"open,0\n')
    flags = ["--source", "csv", "--name", "shop", "--label-column", "label", "--lake", lake.lake]
    job.main([*flags, "--path", str(delivered)])
    store = TableStore(store.spark, lake)
    bronze_version = store.version(BRONZE_REVIEWS)
    runs_version = store.version(OPS_RUNS)

    job.main([*flags, "--path", str(delivered)])
    assert "ingest: nothing to do" in caplog.messages[-1]
    renamed = delivered.rename(tmp_path / "renamed.csv")
    job.main([*flags, "--path", str(renamed)])
    assert "ingest: nothing to do" in caplog.messages[-1]
    job.main([*flags, "--path", str(renamed), "--rerun"])
    assert "renamed.csv: 2 in, 0 added, 2 already there, 0 left out" in caplog.messages
    with pytest.raises(ContractError, match=r"bad\.csv row 2: no closing quote before the end"):
        job.main([*flags, "--path", str(bad)])

    # The run that was done again is recorded, and the refused one; bronze is as it was.
    assert store.version(BRONZE_REVIEWS) == bronze_version
    assert store.version(OPS_RUNS) == runs_version + 2
    runs = sorted(store.rows(OPS_RUNS), key=lambda row: row["finished_at"])
    assert [run["state"] for run in runs] == ["done", "done", "refused"]
    rows = store.read(BRONZE_REVIEWS).select("source_file", "raw_text", "read_fault").collect()
    assert {tuple(row) for row in rows} == {
        ("shop.csv", TEXT, None),
        ("shop.csv", None, "1 fields, expected 2"),
    }
    assert list(lake.landing_path.iterdir()) == []


def test_a_part_can_be_ingested_first_and_the_rest_later(
    store: TableStore, lake: LakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    flags = csv_flags(csv_file(tmp_path, 10), "--lake", lake.lake)
    job.main([*flags, "--max-rows", "4"])
    assert "shop.csv: 10 in, 4 added, 0 already there, 6 left out" in caplog.messages
    job.main(flags)
    assert "shop.csv: 10 in, 6 added, 4 already there, 0 left out" in caplog.messages
    store = TableStore(store.spark, lake)
    assert store.read(BRONZE_REVIEWS).select("row_number").distinct().count() == 10
    ledger = store.read(OPS_RUNS).orderBy("finished_at").collect()
    assert [run["rows"] for run in ledger] == [
        {"in": 10, "added": 4, "already_there": 0, "left_out": 6},
        {"in": 10, "added": 6, "already_there": 4, "left_out": 0},
    ]
    assert ledger[0]["run_key"] != ledger[1]["run_key"]


@pytest.mark.parametrize(
    ("n_rows_of_the_other", "n_added"), [(10, 0), (4, 6), (0, 10)], ids=["all", "some", "none"]
)
def test_an_ingest_that_loses_a_race_looks_again_and_counts_each_row_once(
    store: TableStore,
    lake: LakeConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    n_rows_of_the_other: int,
    n_added: int,
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    file = csv_file(tmp_path, 10)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(file.read_bytes())
    n_injected: list[int] = []

    original = bronze.compare

    def compared_before_the_other_job(
        store: TableStore, rows: DataFrame, n_rows: dict[str, int]
    ) -> dict[str, bronze.Counts]:
        """Let the other job ingest between the comparison and the merge."""
        counts = original(store, rows, n_rows)
        if n_rows_of_the_other and not n_injected:
            n_injected.append(0)
            job.main(csv_flags(copy, "--lake", lake.lake, "--max-rows", str(n_rows_of_the_other)))
            n_injected[0] = TableStore(store.spark, lake).read(BRONZE_REVIEWS).count()
        return counts

    monkeypatch.setattr(bronze, "compare", compared_before_the_other_job)
    job.main(csv_flags(file, "--lake", lake.lake))
    assert n_injected == ([n_rows_of_the_other] if n_rows_of_the_other else [])
    counts = f"{n_added} added, {10 - n_added} already there, 0 left out"
    assert f"shop.csv: 10 in, {counts}" in caplog.messages
    line = "ingest: another job has added rows of the same files; looking again"
    assert (line in caplog.messages) == (n_rows_of_the_other > 0)
    store = TableStore(store.spark, lake)
    assert store.read(BRONZE_REVIEWS).select("row_number").distinct().count() == 10
    assert store.read(BRONZE_REVIEWS).count() == 10
    last = store.read(OPS_RUNS).orderBy("finished_at").collect()[-1]
    assert dict(last["rows"]) == {
        "in": 10,
        "added": n_added,
        "already_there": 10 - n_added,
        "left_out": 0,
    }


@pytest.mark.parametrize(("is_local", "n_merges"), [(False, 3), (True, 1)])
def test_a_commit_that_a_store_refused_is_tried_again_but_not_the_wait_for_a_lock(
    is_local: bool, n_merges: int
) -> None:
    committed = Commit(BRONZE_REVIEWS, 1, 1)
    answers = [ConflictError("lost"), ConflictError("lost"), committed]
    n_calls: list[int] = []

    def merge(_table: Table, _rows: object, _only: object) -> object:
        answer = answers[len(n_calls)]
        n_calls.append(1)
        if isinstance(answer, ConflictError):
            raise answer
        return answer

    fake: Any = SimpleNamespace(config=SimpleNamespace(is_local=is_local), merge=merge)
    with pytest.raises(ConflictError) if is_local else contextlib.nullcontext():
        assert bronze._merge(fake, fake, None) == committed
    assert len(n_calls) == n_merges


def test_a_negative_number_of_rows_is_refused() -> None:
    with pytest.raises(InputError, match=r"--max-rows must be 0\.\.2147483647, got -1"):
        job.main(["--max-rows", "-1"])
