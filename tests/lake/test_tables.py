"""Append, merge and synchronise write exactly the rows given, in one commit. Needs Spark."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from pipelines.errors import ConflictError, InputError, IntegrityError, SetupError
from pipelines.lake.commits import Commit
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_errors import write_error
from pipelines.lake.snapshot import data_tags
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from schemas import GOLD_REJECTS, OPS_PROMOTIONS, SILVER_REVIEWS

Rows = Sequence[tuple[str, str]]  # review_id, reason
UNLABELLED = "unlabelled"
SHARED = "text_in_two_splits"


def frame(store: TableStore, rows: Rows) -> DataFrame:
    return store.spark.createDataFrame(list(rows), GOLD_REJECTS.schema)


def rows_of(store: TableStore, version: int | None = None) -> list[tuple[str, str]]:
    return sorted(tuple(row) for row in store.read(GOLD_REJECTS, version).collect())


def commit(version: int, *, added: int = 0, changed: int = 0, removed: int = 0) -> Commit:
    return Commit(GOLD_REJECTS, version, n_added=added, n_changed=changed, n_removed=removed)


def test_creating_a_table_twice_adds_no_version(store: TableStore) -> None:
    for opened in (store, store, TableStore(store.spark, store.config)):
        opened.create(GOLD_REJECTS)
        assert opened.version(GOLD_REJECTS) == 0


def test_append_adds_rows_and_an_empty_frame_adds_no_version(store: TableStore) -> None:
    rows = [("a", UNLABELLED), ("b", SHARED)]
    assert store.append(GOLD_REJECTS, frame(store, [])) == commit(0)
    assert store.append(GOLD_REJECTS, frame(store, rows)) == commit(1, added=2)
    assert store.append(GOLD_REJECTS, frame(store, [])) == commit(1)
    assert rows_of(store) == rows


def test_merge_adds_missing_rows_and_changes_no_existing_one(store: TableStore) -> None:
    steps: list[tuple[Rows, Commit]] = [
        ([("a", UNLABELLED)], commit(1, added=1)),
        ([("a", SHARED)], commit(1)),
        ([("a", SHARED), ("b", SHARED)], commit(2, added=1)),
        ([], commit(2)),
    ]
    for rows, expected in steps:
        assert store.merge(GOLD_REJECTS, frame(store, rows)) == expected
    assert rows_of(store) == [("a", UNLABELLED), ("b", SHARED)]


def test_synchronise_writes_only_the_differences(store: TableStore) -> None:
    first = [("a", UNLABELLED), ("b", UNLABELLED), ("c", UNLABELLED)]
    second = [("d", SHARED), ("b", SHARED), ("a", UNLABELLED)]
    steps: list[tuple[Rows, Commit]] = [
        (first, commit(1, added=3)),
        (list(reversed(first)), commit(1)),
        (second, commit(2, added=1, changed=1, removed=1)),
        ([], commit(3, removed=3)),
        ([], commit(3)),
    ]
    for rows, expected in steps:
        assert store.synchronise(GOLD_REJECTS, frame(store, rows)) == expected
        assert rows_of(store) == sorted(rows)
    assert rows_of(store, version=2) == sorted(second)
    words = r"^gold\.rejects has no version 41: its log holds 0-3\. Pass one of these\.$"
    with pytest.raises(InputError, match=words):
        store.read(GOLD_REJECTS, 41)
    with pytest.raises(InputError, match="has no version -1: its log holds 0-3"):
        store.read(GOLD_REJECTS, -1)


def test_a_failed_write_changes_neither_the_table_nor_the_session(store: TableStore) -> None:
    store.append(GOLD_REJECTS, frame(store, [("a", UNLABELLED)]))
    words = r"^gold\.rejects: expected rows that satisfy reason_is_known, found"
    for write in (store.append, store.merge, store.synchronise):
        with pytest.raises(IntegrityError, match=words):
            write(GOLD_REJECTS, frame(store, [("b", SHARED), ("c", "other")]))
    assert (store.version(GOLD_REJECTS), rows_of(store)) == (1, [("a", UNLABELLED)])
    assert store.spark.conf.get("spark.databricks.delta.commitInfo.userMetadata", None) is None
    assert store.spark.sql("SHOW VIEWS").where("viewName LIKE 'given%'").count() == 0


def test_a_write_reports_its_own_commit_though_another_writer_commits_right_after_it(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(GOLD_REJECTS)
    look_up = store._own_commit
    other_versions: list[int] = []

    def look_up_after_another_commit(_table: object, commit_id: str, before: int) -> Commit:
        store.spark.sql("INSERT INTO gold.rejects VALUES ('other', 'unlabelled')")
        other_versions.append(store.version(GOLD_REJECTS))
        return look_up(GOLD_REJECTS, commit_id, before)

    monkeypatch.setattr(store, "_own_commit", look_up_after_another_commit)
    rows = [("a", SHARED), ("b", SHARED)]
    assert store.append(GOLD_REJECTS, frame(store, rows)) == commit(1, added=2)
    assert other_versions == [2]
    monkeypatch.undo()
    words = r"^gold\.rejects: commit 0000 is not among the last 50 versions\. Another writer has"
    with pytest.raises(IntegrityError, match=words):
        store._own_commit(GOLD_REJECTS, "0000", -1)


def test_the_error_of_a_missing_table_names_the_job_that_builds_it(
    store: TableStore, lake: LakeConfig
) -> None:
    words = (
        rf"^silver\.reviews: no such table in {lake.lake_path}\. "
        r"Built by jobs/clean\.py from"
    )
    for look in (store.read, store.latest):
        with pytest.raises(InputError, match=words):
            look(SILVER_REVIEWS)


def test_two_lakes_of_one_session_do_not_see_each_other_and_lose_no_file(
    store: TableStore, tmp_path: Path
) -> None:
    store.append(GOLD_REJECTS, frame(store, [("a", UNLABELLED)]))
    store.create(OPS_PROMOTIONS)
    files = sorted(store.config.lake_path.rglob("*.parquet"))
    assert files
    other = TableStore(store.spark, LakeConfig(lake=str(tmp_path / "other")))
    assert (other.exists(GOLD_REJECTS), other.exists(OPS_PROMOTIONS)) == (False, False)
    other.append(GOLD_REJECTS, frame(other, [("b", SHARED)]))
    assert rows_of(other) == [("b", SHARED)]
    reopened = TableStore(store.spark, store.config)
    assert rows_of(reopened) == [("a", UNLABELLED)]
    assert sorted(store.config.lake_path.rglob("*.parquet")) == files


def test_data_tags_distinguish_two_tables_of_the_same_name(
    store: TableStore, tmp_path: Path
) -> None:
    store.create(GOLD_REJECTS)
    tags = data_tags(store, GOLD_REJECTS, 0, "c0ffee")
    other = TableStore(store.spark, LakeConfig(lake=str(tmp_path / "other")))
    other.create(GOLD_REJECTS)
    table_id = tags["delta.table_id"]
    assert tags == {
        "delta.table": "gold.rejects",
        "delta.table_id": table_id,
        "delta.version": "0",
        "content_hash": "c0ffee",
    }
    other_id = data_tags(other, GOLD_REJECTS, 0, "c0ffee")["delta.table_id"]
    assert other_id not in {"", table_id}


@pytest.mark.parametrize(
    ("message", "class_", "words"),
    [
        (
            "[DELTA_CONCURRENT_APPEND] x",
            ConflictError,
            "gold.rejects: another writer committed first. Run the stage",
        ),
        (
            "CHECK constraint a_b (c) violated by row",
            IntegrityError,
            "expected rows that satisfy a_b, found one",
        ),
        (
            "NOT NULL constraint violated for column: a.b.\n",
            IntegrityError,
            "expected rows that satisfy a.b NOT NULL,",
        ),
        ("something else", PySparkException, "something else"),
    ],
)
def test_deltas_refusals_become_errors_of_this_project(
    message: str, class_: type[Exception], words: str
) -> None:
    error = write_error(PySparkException(message), GOLD_REJECTS)
    assert type(error) is class_
    assert words in str(error)


def test_a_statement_that_writes_holds_all_locks_and_its_commit_is_read_back(
    store: TableStore,
) -> None:
    store.append(GOLD_REJECTS, frame(store, [("a", UNLABELLED)]))
    with store.exclusive():
        assert (store.config.lake_path / "locks" / "gold.scores").exists()
        store.spark.sql("DELETE FROM gold.rejects")
    assert (rows_of(store), store.version(GOLD_REJECTS)) == ([], 2)

    def commit_under_the_name_of_another_writer() -> None:
        with store.exclusive():
            conf = store.spark.conf
            conf.set("spark.databricks.delta.commitInfo.userMetadata", "another writer's")
            store.spark.sql("INSERT INTO gold.rejects VALUES ('b', 'unlabelled')")

    words = r"gold\.rejects: commit [0-9a-f]{32} is not among the last 50 versions\."
    with pytest.raises(IntegrityError, match=words):
        commit_under_the_name_of_another_writer()


def test_on_serverless_compute_a_commit_is_identified_by_the_version_before_it(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ServerlessConf:
        """Databricks' serverless compute accepts a few settings, and none of Delta's."""

        get = staticmethod(store.spark.conf.get)

        @staticmethod
        def set(name: str, _value: str) -> None:
            raise PySparkException(
                f"[CONFIG_NOT_AVAILABLE] Configuration {name} is not available. SQLSTATE: 42K0I"
            )

    store.append(GOLD_REJECTS, frame(store, [("a", UNLABELLED)]))
    with monkeypatch.context() as patch:
        patch.setitem(vars(store.spark), "conf", ServerlessConf)  # a cached property
        appended = store.append(GOLD_REJECTS, frame(store, [("b", SHARED)]))
        assert appended == commit(2, added=1)
        merged = store.merge(GOLD_REJECTS, frame(store, [("b", SHARED), ("c", SHARED)]))
        assert merged == commit(3, added=1)
        synchronised = store.synchronise(GOLD_REJECTS, frame(store, [("a", SHARED)]))
        assert synchronised == commit(4, changed=1, removed=2)
        words = r"vacuum: expected Spark to take spark\.databricks\..*on a cluster\.$"
        with pytest.raises(SetupError, match=words):
            vacuum.delete_files(store, GOLD_REJECTS, store.spark.range(1))
    assert rows_of(store) == [("a", SHARED)]
