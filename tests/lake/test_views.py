"""The views gold.current_scores and gold.lineage return the right rows. Needs Spark."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.lake.tables import TableStore
from schemas import GOLD_SCORES, OPS_MODELS, OPS_PROMOTIONS, OPS_RUNS, VIEWS, Table

Row = dict[str, Any]
REVIEW = hashlib.sha256(b"Good.").hexdigest()
FILE_A = "a" * 64
FILE_B = "b" * 64
ORIGIN = (FILE_A, 1, "file.csv")  # SHA-256 of the file, row number, file name


def test_current_scores_follow_promotions_and_rollbacks_but_not_refusals(store: TableStore) -> None:
    # by model name: its decisions in order, and the version that is champion after them
    cases = {
        "promoted twice": ([("promoted", 1), ("promoted", 2)], 2),
        "then refused": ([("promoted", 1), ("refused", 2)], 1),
        "then rolled back": ([("promoted", 1), ("promoted", 2), ("rolled_back", 1)], 1),
        "then promoted again": ([("promoted", 2), ("rolled_back", 1), ("promoted", 2)], 2),
        "only refused": ([("refused", 1)], None),
        "never decided": ([], None),
    }
    append(store, GOLD_SCORES, [score(name, version) for name in cases for version in (1, 2)])
    decisions = [
        promotion(name, version, decision=decision, day=day)
        for name, (history, _) in cases.items()
        for day, (decision, version) in enumerate(history, start=1)
    ]
    append(store, OPS_PROMOTIONS, decisions)
    current = store.spark.table("gold.current_scores")
    assert tuple(current.columns) == GOLD_SCORES.column_names
    scored_by = [(row.model_name, row.model_version) for row in current.collect()]
    champions = [(name, champion) for name, (_, champion) in cases.items() if champion]
    assert sorted(scored_by) == sorted(champions)


def test_lineage_leads_from_a_score_to_every_file_that_held_the_text(store: TableStore) -> None:
    origins = [(FILE_A, 7, "first.csv"), (FILE_B, 3, "again.csv")]
    append(store, OPS_MODELS, [model("m", 2)])
    append(store, GOLD_SCORES, [score("m", 2, origins)])
    runs = [clean_run(6, 8, day=1), clean_run(6, 9, day=2), clean_run(7, 9, day=3)]
    append(store, OPS_RUNS, runs)
    lineage = store.spark.table("gold.lineage").orderBy("source_file").collect()
    shared = {
        "review_id": REVIEW,
        "model_name": "m",
        "model_version": 2,
        "run_id": "run2",
        "code_commit": "c0ffee",
        "gold_version": 5,
        "learned_silver_version": 4,
        "learned_bronze_version": 3,
        "silver_version": 6,
        "bronze_version": 8,
        "source": "imdb",
        "probability": 0.75,
        "prediction": 1,
        "scored_at": lineage[0].scored_at,
    }
    again = {
        "source_file": "again.csv",
        "source_sha256": FILE_B,
        "row_number": 3,
        "is_first_origin": False,
    }
    first = {
        "source_file": "first.csv",
        "source_sha256": FILE_A,
        "row_number": 7,
        "is_first_origin": True,
    }
    assert [row.asDict() for row in lineage] == [shared | again, shared | first]


LINKS_OF_A_MODEL = [
    "code_commit",
    "gold_version",
    "learned_silver_version",
    "learned_bronze_version",
]


@pytest.mark.parametrize(
    ("emptied", "null_links"),
    [
        pytest.param(OPS_MODELS, LINKS_OF_A_MODEL, id="ops.models"),
        pytest.param(OPS_RUNS, ["bronze_version"], id="ops.runs"),
    ],
)
def test_a_deleted_link_leaves_the_scored_row_with_nulls(
    store: TableStore, emptied: Table, null_links: list[str]
) -> None:
    append(store, OPS_MODELS, [model("m", 2)])
    append(store, GOLD_SCORES, [score("m", 2)])
    append(store, OPS_RUNS, [clean_run(6, 8, day=1)])
    complete = store.spark.table("gold.lineage").collect()[0].asDict()
    assert [name for name, value in complete.items() if value is None] == []
    store.spark.sql(f"ALTER TABLE {emptied.name} SET TBLPROPERTIES ('delta.appendOnly' = 'false')")
    store.spark.sql(f"DELETE FROM {emptied.name}")
    [row] = store.spark.table("gold.lineage").collect()
    assert [name for name, value in row.asDict().items() if value is None] == null_links
    assert (row.review_id, row.run_id, row.source_sha256) == (REVIEW, "run2", FILE_A)


def test_every_view_exists_once_its_tables_exist(store: TableStore) -> None:
    assert not any(store.spark.catalog.tableExists(view.name) for view in VIEWS)
    tables = {table.name: table for view in VIEWS for table in view.reads}
    for table in tables.values():
        store.create(table)
    counts = {view.name: store.spark.table(view.name).count() for view in VIEWS}
    assert counts == {"gold.current_scores": 0, "gold.lineage": 0}


def append(store: TableStore, table: Table, rows: Sequence[Row]) -> None:
    for row in rows:
        assert set(row) == set(table.column_names)
    values = [tuple(row[name] for name in table.column_names) for row in rows]
    store.append(table, store.spark.createDataFrame(values, table.schema))


def day_of_may(day: int) -> datetime:
    return datetime(2026, 5, day, tzinfo=UTC)


def score(
    model_name: str, version: int, origins: Sequence[tuple[str, int, str]] = (ORIGIN,)
) -> Row:
    return {
        "review_id": REVIEW,
        "model_name": model_name,
        "model_version": version,
        "probability": 0.75,
        "prediction": 1,
        "is_truncated": False,
        "score_error": None,
        "run_id": f"run{version}",
        "silver_version": 6,
        "source": "imdb",
        "origins": list(origins),
        "scored_at": day_of_may(1),
    }


def promotion(model_name: str, version: int, *, decision: str, day: int) -> Row:
    return {
        "model_name": model_name,
        "model_version": version,
        "decision": decision,
        "reasons": "[]",
        "previous_version": None,
        "decided_at": day_of_may(day),
    }


def model(model_name: str, version: int) -> Row:
    return {
        "model_name": model_name,
        "model_version": version,
        "run_id": f"run{version}",
        "gold_version": 5,
        "silver_version": 4,
        "bronze_version": 3,
        "content_hash": "3-1-2",
        "weights_sha256": "e" * 64,
        "manifest_sha256": "f" * 64,
        "files": [("model/model.safetensors", 10, "d" * 64)],
        "code_commit": "c0ffee",
        "registered_at": day_of_may(1),
    }


def clean_run(silver_version: int, bronze_version: int, *, day: int) -> Row:
    """Return the ledger's row of a run of clean."""
    return {
        "run_key": "k",
        "stage": "clean",
        "config": "{}",
        "input_versions": {"bronze.reviews": bronze_version},
        "output_versions": {"silver.reviews": silver_version},
        "output_hash": None,
        "output_hashes": None,
        "output_totals": None,
        "input_since": None,
        "recorded_since": None,
        "files": None,
        "previous": None,
        "rows": {},
        "state": "done",
        "duration_s": 1.0,
        "code_commit": None,
        "code_sha256": None,
        "finished_at": day_of_may(day),
    }
