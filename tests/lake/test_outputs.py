"""A run records the content hash and the files of what it left in each table. Needs Spark."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame

from pipelines.lake import chain, ledger
from pipelines.lake.commits import Commit
from pipelines.lake.frames import content_hash, one_row
from pipelines.lake.outputs import Left, describe, files_written, recorded_outputs
from pipelines.lake.tables import TableStore
from schemas import GOLD_REJECTS, OPS_PROMOTIONS, OPS_RUNS

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def promotions(store: TableStore, *versions: int) -> DataFrame:
    rows = [
        ("m", version, "promoted", "[]", None, NOON.replace(hour=version)) for version in versions
    ]
    return store.spark.createDataFrame(rows, OPS_PROMOTIONS.schema)


def rejects(store: TableStore, *review_ids: str) -> DataFrame:
    rows = [(review_id, "unlabelled") for review_id in review_ids]
    return store.spark.createDataFrame(rows, GOLD_REJECTS.schema)


def finished(store: TableStore, *commits: Commit) -> dict[str, Any]:
    """Record a run with these outputs; return its row."""
    run = ledger.start("curate", store.config, {})
    ledger.finish(store, run, commits, {})
    return max(ledger.rows_of(store), key=lambda row: row["finished_at"])


def files_of(row: dict[str, Any], directory: str) -> list[str]:
    return [file["path"] for file in row["files"] if file["path"].startswith(directory)]


def test_an_append_only_table_is_hashed_by_what_was_added_since_the_last_record(
    store: TableStore,
) -> None:
    first = finished(store, store.append(OPS_PROMOTIONS, promotions(store, 1)))
    store.append(OPS_PROMOTIONS, promotions(store, 2))  # by a run that was killed then
    later = store.append(OPS_PROMOTIONS, promotions(store, 3))
    second = finished(store, later)
    again = finished(store, Commit(OPS_PROMOTIONS, later.version, 0))
    added = content_hash(promotions(store, 2, 3))
    name = OPS_PROMOTIONS.name
    assert first["output_hashes"] == {name: content_hash(promotions(store, 1))}
    assert second["output_hashes"] == {name: added}
    assert again["output_hashes"] == {name: added}  # nothing new: the same version, the same hash
    assert [len(files_of(row, "ops/promotions")) for row in (first, second, again)] == [3, 4, 0]
    # Of the ledger, each row lists what came before its own commit.
    assert [len(files_of(row, "ops/runs")) for row in (first, second, again)] == [0, 3, 2]
    outputs = [
        (output.version, output.since) for output in recorded_outputs([again, second, first])
    ]
    assert outputs == [(1, None), (3, 1)]


def test_a_rewritten_table_is_hashed_as_a_whole(store: TableStore) -> None:
    finished(store, store.synchronise(GOLD_REJECTS, rejects(store, "a", "b")))
    row = finished(store, store.synchronise(GOLD_REJECTS, rejects(store, "b", "c")))
    assert row["output_hashes"] == {GOLD_REJECTS.name: content_hash(rejects(store, "c", "b"))}
    assert row["output_hash"] == row["output_hashes"][GOLD_REJECTS.name]


def test_a_run_that_ends_after_a_later_writer_leaves_the_record_to_that_one(
    store: TableStore,
) -> None:
    early = store.append(OPS_PROMOTIONS, promotions(store, 1))
    late = store.append(OPS_PROMOTIONS, promotions(store, 2))
    finished(store, late)
    assert describe(store, [early], ledger.rows_of(store)) == Left({}, {}, {}, [])


def test_each_commit_and_data_file_is_listed_with_its_bytes(store: TableStore) -> None:
    row = finished(store, store.append(OPS_PROMOTIONS, promotions(store, 1)))
    for file in row["files"]:
        content = Path(store.config.lake_path, file["path"]).read_bytes()
        actual = (len(content), hashlib.sha256(content).hexdigest())
        assert actual == (file["bytes"], file["sha256"]), file["path"]
    suffixes = sorted(Path(file["path"]).suffix for file in row["files"])
    assert suffixes == [".json", ".json", ".parquet"]


def test_a_ledger_of_an_older_release_gets_the_new_columns(store: TableStore) -> None:
    new = (
        *("output_hashes", "output_totals", "input_since", "recorded_since"),
        *("files", "previous", "code_sha256"),
    )
    columns = tuple(column for column in OPS_RUNS.columns if column.name not in new)
    older = replace(OPS_RUNS, columns=columns)
    values: tuple[Any, ...] = (
        "key",
        "clean",
        "{}",
        {},
        {OPS_PROMOTIONS.name: 0},
        None,
        {},
        "done",
        1.0,
        None,
    )
    store.append(older, one_row(store.spark, older, values))
    upgraded = TableStore(store.spark, store.config)
    row = finished(upgraded, upgraded.append(OPS_PROMOTIONS, promotions(store, 2)))
    rows = ledger.rows_of(upgraded)
    assert len(rows) == 2
    assert len(row["previous"]) == 1
    assert [old["output_hashes"] for old in rows if old["run_key"] == "key"] == [None]
    assert chain.breaks_of(rows, chain.noted_ends(store.config), is_local=True) == []


def test_files_that_a_vacuum_deleted_before_the_first_record_are_left_out(
    store: TableStore,
) -> None:
    store.synchronise(GOLD_REJECTS, rejects(store, "a"))
    store.synchronise(GOLD_REJECTS, rejects(store, "b"))
    [old] = store.read(GOLD_REJECTS, 1).inputFiles()
    every = files_written(store.config, GOLD_REJECTS, 2, None)
    Path(old.removeprefix("file:")).unlink()
    present = files_written(store.config, GOLD_REJECTS, 2, None)
    gone = {path for path, *_ in every} - {path for path, *_ in present}
    assert [Path(path).name for path in gone] == [Path(old).name]
