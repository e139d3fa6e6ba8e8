"""What a lake holds does not depend on how its rows came: in one delivery or in ten. Needs Spark.

clean, curate and score look only at what is new.
"""

import logging
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs import clean, curate
from pipelines import score
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import content_hash
from pipelines.lake.tables import TableStore
from schemas import (
    BRONZE_REVIEWS,
    GOLD_REJECTS,
    GOLD_REVIEWS,
    OPS_RUNS,
    SILVER_REJECTS,
    SILVER_REVIEWS,
    Table,
)
from tests.support import tiny_encoder

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BUILT = (SILVER_REVIEWS, SILVER_REJECTS, GOLD_REVIEWS, GOLD_REJECTS)
Row = tuple[str, str | None, str | None]  # text, label, split


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_encoder.build(tmp_path_factory.mktemp("encoder"), ["good film bad"]))


class History:
    """A lake that gets deliveries; each is one file, and is cleaned and curated at once."""

    def __init__(self, store: TableStore, encoder: str, policy: str = "official") -> None:
        self.store = store
        self.flags = ["--lake", store.config.lake]
        self.curate = ["--split-policy", policy, "--backbone", encoder]

    def deliver(self, file: int, rows: list[Row]) -> None:
        sha256 = f"{file:064x}"
        bronze = [
            ("shop", f"{file}.csv", sha256, n, text, label, None, split, None, "k", NOW)
            for n, (text, label, split) in enumerate(rows, start=1)
        ]
        frame = self.store.spark.createDataFrame(bronze, BRONZE_REVIEWS.schema)
        self.store.append(BRONZE_REVIEWS, frame)

    def build(self, *flags: str) -> None:
        clean.main([*self.flags, *flags])
        curate.main([*self.flags, *self.curate, *flags])

    def hashes(self) -> dict[str, str]:
        return {table.name: content_hash(self.store.read(table)) for table in BUILT}

    def texts(self, table: Table) -> dict[str, object]:
        """Return label or split by text of silver or gold."""
        value = "split" if table is GOLD_REVIEWS else "label"
        return {row["text"]: row[value] for row in self.store.read(table).collect()}

    def since(self) -> list[dict[str, int]]:
        rows = self.store.read(OPS_RUNS).orderBy("finished_at").collect()
        return [row["input_since"] for row in rows]


def small_store(spark: SparkSession, place: Path) -> TableStore:
    return TableStore(spark, LakeConfig(lake=str(place)))


@pytest.fixture
def history(store: TableStore, encoder: str) -> History:
    return History(store, encoder)


def reasons(history: History) -> dict[tuple[str, int], list[str]]:
    rows = history.store.read(SILVER_REJECTS).collect()
    return {(row["source_sha256"][-1], row["row_number"]): row["failed_rules"] for row in rows}


def test_a_text_gains_an_origin_and_a_better_first_one(history: History) -> None:
    history.deliver(1, [("Good film", "1", "train"), ("Other", "0", "train")])
    history.build()
    history.deliver(2, [("Good  film", None, "test")])
    history.build()
    rows = {row["text"]: row for row in history.store.read(SILVER_REVIEWS).collect()}
    origins = [int(origin["source_sha256"]) for origin in rows["Good film"]["origins"]]
    assert origins == [2, 1]  # test comes before train
    assert history.texts(SILVER_REVIEWS) == {"Good film": 1, "Other": 0}
    assert history.texts(GOLD_REVIEWS)["Good film"] == "test"
    run = history.store.read(OPS_RUNS).where("stage = 'clean'").orderBy("finished_at").collect()[-1]
    assert run["rows"] == {"in": 3, "kept": 2, "rejected": 0, "duplicates": 1}
    bronze, silver = BRONZE_REVIEWS.name, SILVER_REVIEWS.name
    assert [list(since) for since in history.since()] == [[], [], [bronze], [silver]]


def test_a_conflict_of_labels_takes_all_copies_out_and_a_later_copy_too(history: History) -> None:
    history.deliver(1, [("Good film", "1", "train"), ("Good film", None, "test")])
    history.build()
    assert history.texts(GOLD_REVIEWS) == {"Good film": "test"}
    history.deliver(2, [("Good film", "0", "train"), ("Other", "0", "train")])
    history.build()
    conflict = ["labels_agree"]
    assert reasons(history) == {("1", 1): conflict, ("1", 2): conflict, ("2", 1): conflict}
    assert history.texts(GOLD_REVIEWS) == {"Other": history.texts(GOLD_REVIEWS)["Other"]}
    history.deliver(3, [("Good film", "1", "train"), (" ", "1", "train")])
    clean.main(history.flags)
    assert reasons(history)[("3", 1)] == conflict
    assert reasons(history)[("3", 2)] == ["text_is_not_blank"]
    assert history.texts(SILVER_REVIEWS) == {"Other": 0}


def test_a_copy_in_another_split_moves_a_text_out_of_gold_and_back(history: History) -> None:
    history.deliver(1, [("Good film", "1", "train"), ("Other", "0", "test")])
    history.build()
    assert "Good film" in history.texts(GOLD_REVIEWS)
    history.deliver(2, [("GOOD film!", "1", "test")])  # the copy in test is kept
    history.build()
    assert sorted(history.texts(GOLD_REVIEWS)) == ["GOOD film!", "Other"]
    history.deliver(3, [("GOOD film!", "0", "test")])  # which then has two labels, and goes
    history.build()
    assert sorted(history.texts(GOLD_REVIEWS)) == ["Good film", "Other"]


def test_a_changed_rule_makes_the_stage_read_everything_again(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.deliver(1, [("Good film", "1", "train")])
    history.build()
    history.deliver(2, [("Bad film", "0", "test")])
    monkeypatch.setattr("pipelines.lake.ledger.code_sha256", lambda *_: "other rules")
    history.build()
    assert history.since()[-2:] == [{}, {}]
    assert sorted(history.texts(GOLD_REVIEWS)) == ["Bad film", "Good film"]


def test_full_says_whether_anything_differed_from_the_increments(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    history.deliver(1, [("Good film", "1", "train"), ("Other", "0", "train")])
    history.build()
    history.deliver(2, [("Third", "1", "train")])
    history.build()
    history.build("--full")
    assert "clean: done again from all rows: nothing differs" in caplog.messages
    assert "curate: done again from all rows: nothing differs" in caplog.messages
    history.store.sql("DELETE FROM silver.reviews WHERE text = 'Third'")
    clean.main([*history.flags, "--full"])
    assert "clean: done again from all rows: 1 rows differed, and are corrected" in caplog.messages
    assert sorted(history.texts(SILVER_REVIEWS)) == ["Good film", "Other", "Third"]


def test_a_table_that_another_writer_has_changed_is_built_from_all_rows(history: History) -> None:
    history.deliver(1, [("Good film", "1", "train"), ("Other", "0", "train")])
    history.build()
    history.store.sql("DELETE FROM silver.reviews WHERE text = 'Other'")
    history.deliver(2, [("Third", "1", "train")])
    history.build()
    assert sorted(history.texts(SILVER_REVIEWS)) == ["Good film", "Other", "Third"]
    assert history.since()[-2] == {}


def many_rows(seed: int, n: int) -> list[Row]:
    """Return rows of few texts, so that many are copies, conflict, or are in several splits."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for _ in range(n):
        text = f"{rng.choice(['Film', 'film', 'FILM!'])} {rng.randrange(n // 4)}"
        usual = str(sum(map(ord, text.lower().strip("!"))) % 2)
        label = rng.choices([usual, None, "0", "1", "7"], [12, 3, 1, 1, 1])[0]
        rows.append((text, label, rng.choice(["train", "train", "test", "validation", None])))
    return rows


@pytest.mark.parametrize(
    ("policy", "n_files"),
    [
        ("official", 3),
        pytest.param("official", 10, marks=pytest.mark.slow),
        pytest.param("hash", 10, marks=pytest.mark.slow),
    ],
)
def test_deliveries_in_any_order_give_the_same_tables_as_one(
    spark: SparkSession, tmp_path: Path, encoder: str, policy: str, n_files: int
) -> None:
    files = [many_rows(seed, 120 // n_files) for seed in range(n_files)]
    at_once = History(small_store(spark, tmp_path / "once"), encoder, policy)
    for number, rows in enumerate(files):
        at_once.deliver(number, rows)
    at_once.build()
    # The null case: the rows do conflict, move between splits and have copies.
    counts = at_once.store.read(GOLD_REJECTS).groupBy("reason").count().collect()
    n_disputed = at_once.store.read(SILVER_REJECTS).where("review_id IS NOT NULL").count()
    n_copied = at_once.store.read(SILVER_REVIEWS).where(F.size("origins") > 1).count()
    has_moved = "text_in_two_splits" in {row["reason"] for row in counts}
    assert (n_disputed > 0, n_copied > 0, has_moved) == (True, True, policy == "official")

    expected = at_once.hashes()  # now: the next lake takes the tables' names in this session
    in_turn = History(small_store(spark, tmp_path / "in_turn"), encoder, policy)
    order = random.Random(policy).sample(range(n_files), n_files)
    for number in order:
        in_turn.deliver(number, files[number])
        in_turn.build()
    assert in_turn.hashes() == expected
    is_increment = [False] * 2 + [True] * 2 * (n_files - 1)
    assert [bool(since) for since in in_turn.since()] == is_increment
    recorded = in_turn.store.read(OPS_RUNS).orderBy("finished_at").collect()[-1]
    gold = {table.name: expected[table.name] for table in (GOLD_REVIEWS, GOLD_REJECTS)}
    assert recorded["output_hashes"] == gold


def test_reviews_added_since_the_last_run_are_the_ones_to_score(history: History) -> None:
    history.deliver(1, [("Good film", "1", "train"), ("Other", "0", "train")])
    history.build()
    first = history.store.version(SILVER_REVIEWS)
    everything, since = score.new_reviews(history.store, first, None)
    assert (everything.count(), since) == (2, {})
    history.deliver(2, [("Third", None, None), ("Good film", "0", None)])
    history.build()
    latest = history.store.version(SILVER_REVIEWS)
    added, since = score.new_reviews(history.store, latest, first)
    assert [row["text"] for row in added.collect()] == ["Third"]
    assert since == {SILVER_REVIEWS.name: first}
    assert added.columns == list(SILVER_REVIEWS.column_names)
