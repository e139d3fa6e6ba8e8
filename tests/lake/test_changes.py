"""What changed between two versions is read from the change data feed. Needs Spark."""

import pytest
from pyspark.sql import DataFrame

from pipelines.lake.changes import changes_of, net_changes, totals_since
from pipelines.lake.frames import Totals, content_hash, totals
from pipelines.lake.tables import TableStore
from schemas import GOLD_REJECTS

REASONS = ("unlabelled", "no_official_split")


def rejects(store: TableStore, **reasons: str) -> DataFrame:
    return store.spark.createDataFrame(list(reasons.items()), GOLD_REJECTS.schema)


@pytest.fixture
def changed(store: TableStore) -> TableStore:
    """Versions: 0 empty, 1 a and b, 2 without b, a changed, c added, 3 b again."""
    first, second = REASONS
    store.synchronise(GOLD_REJECTS, rejects(store, a=first, b=first))
    store.synchronise(GOLD_REJECTS, rejects(store, a=second, c=first))
    store.synchronise(GOLD_REJECTS, rejects(store, a=second, b=first, c=first))
    return store


def test_added_and_removed_rows_have_a_sign_and_what_came_back_is_no_net_change(
    changed: TableStore,
) -> None:
    first, second = REASONS
    changes = changes_of(changed, GOLD_REJECTS, 1, 3)
    assert changes is not None
    expected = [("a", second, 1), ("a", first, -1), ("b", first, -1), ("b", first, 1)]
    assert sorted(map(tuple, changes.collect())) == sorted([*expected, ("c", first, 1)])
    net = net_changes(changes, ["review_id"]).collect()
    assert [tuple(row) for row in net] == [("c", 1)]
    of_nothing = changes_of(changed, GOLD_REJECTS, 3, 3)
    assert of_nothing is not None
    assert of_nothing.collect() == []


@pytest.mark.parametrize(("since", "version"), [(0, 1), (1, 2), (1, 3), (0, 3), (3, 3)])
def test_the_content_hash_follows_from_an_earlier_one_and_the_changes(
    changed: TableStore, since: int, version: int
) -> None:
    before = totals(changed.read(GOLD_REJECTS, since))
    later = totals_since(changed, GOLD_REJECTS, since, version)
    assert later is not None
    result = before + later
    assert result.content_hash == content_hash(changed.read(GOLD_REJECTS, version))
    assert Totals.parse(str(result)) == result


def test_a_table_without_a_record_of_changes_has_none(store: TableStore) -> None:
    store.create(GOLD_REJECTS)
    store.sql("ALTER TABLE gold.rejects SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'false')")
    store.append(GOLD_REJECTS, rejects(store, a="unlabelled"))
    assert changes_of(store, GOLD_REJECTS, 1, 2) is None
    assert totals_since(store, GOLD_REJECTS, 1, 2) is None


def test_rows_of_given_keys_become_equal_and_no_others(store: TableStore) -> None:
    first, second = REASONS
    store.synchronise(GOLD_REJECTS, rejects(store, a=first, b=first, c=first))
    keys = store.spark.createDataFrame([("a",), ("b",), ("d",), ("e",)], "review_id string")
    given = rejects(store, a=second, d=first)
    commit = store.synchronise(GOLD_REJECTS, given, within=keys)
    assert (commit.n_added, commit.n_changed, commit.n_removed) == (1, 1, 1)
    again = store.synchronise(GOLD_REJECTS, given, within=keys)
    assert again.version == commit.version  # nothing differs
    rows = {tuple(row) for row in store.read(GOLD_REJECTS).collect()}
    assert rows == {("a", second), ("c", first), ("d", first)}
    new = store.spark.createDataFrame([("f",)], "review_id string")
    version = store.version(GOLD_REJECTS)
    assert store.synchronise(GOLD_REJECTS, rejects(store, f=first), new).n_added == 1
    assert store.version(GOLD_REJECTS) == version + 1
    nothing = store.synchronise(GOLD_REJECTS, rejects(store, f=first).limit(0), new.limit(0))
    assert (nothing.version, nothing.n_added) == (version + 1, 0)
