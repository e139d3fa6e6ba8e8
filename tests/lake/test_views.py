import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.lake.tables import TableStore
from schemas import GOLD_SCORES, OPS_MODELS, OPS_PROMOTIONS, OPS_RUNS, VIEWS, Table

REVIEW = hashlib.sha256(b"Good.").hexdigest()
FILE_A, FILE_B = "a" * 64, "b" * 64


def test_current_scores_follow_promotions_and_rollbacks_but_not_refusals(store: TableStore) -> None:
    cases = {
        "promoted twice": ([("promoted", 1), ("promoted", 2)], 2),
        "then refused": ([("promoted", 1), ("refused", 2)], 1),
        "then rolled back": ([("promoted", 1), ("promoted", 2), ("rolled_back", 1)], 1),
        "then promoted again": ([("promoted", 2), ("rolled_back", 1), ("promoted", 2)], 2),
        "only refused": ([("refused", 1)], None),
        "never decided": ([], None),
    }
    append(store, GOLD_SCORES, [score(name, version) for name in cases for version in (1, 2)])
    append(
        store,
        OPS_PROMOTIONS,
        [
            decision(name, version, verb, day)
            for name, (history, _) in cases.items()
            for day, (verb, version) in enumerate(history, start=1)
        ],
    )
    current = store.spark.table("gold.current_scores")
    assert tuple(current.columns) == GOLD_SCORES.column_names
    found = [(row.model_name, row.model_version) for row in current.collect()]
    assert sorted(found) == sorted(
        (name, champion) for name, (_, champion) in cases.items() if champion
    )


def test_lineage_leads_from_a_score_to_every_file_that_held_the_text(store: TableStore) -> None:
    origins = [(FILE_A, 7, "first.csv"), (FILE_B, 3, "again.csv")]
    append(store, OPS_MODELS, [model("m", 2)])
    append(store, GOLD_SCORES, [score("m", 2, origins)])
    append(store, OPS_RUNS, [cleaned(6, 8, day=1), cleaned(6, 9, day=2), cleaned(7, 9, day=3)])
    found = store.spark.table("gold.lineage").orderBy("source_file").collect()
    shared = {
        "review_id": REVIEW, "model_name": "m", "model_version": 2, "run_id": "run2", "code_commit": "c0ffee",
        "gold_version": 5, "learned_silver_version": 4, "learned_bronze_version": 3, "silver_version": 6,
        "bronze_version": 8, "source": "imdb", "probability": 0.75,
        "prediction": 1, "scored_at": found[0].scored_at,
    }  # fmt: skip
    assert [row.asDict() for row in found] == [
        shared
        | {
            "source_file": "again.csv",
            "source_sha256": FILE_B,
            "row_number": 3,
            "is_first_origin": False,
        },
        shared
        | {
            "source_file": "first.csv",
            "source_sha256": FILE_A,
            "row_number": 7,
            "is_first_origin": True,
        },
    ]


@pytest.mark.parametrize(
    ("lost", "missing"),
    [
        (
            OPS_MODELS,
            ["code_commit", "gold_version", "learned_silver_version", "learned_bronze_version"],
        ),
        (OPS_RUNS, ["bronze_version"]),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_a_link_that_is_deleted_leaves_the_scored_row_with_nulls(
    store: TableStore, lost: Table, missing: list[str]
) -> None:
    append(store, OPS_MODELS, [model("m", 2)])
    append(store, GOLD_SCORES, [score("m", 2)])
    append(store, OPS_RUNS, [cleaned(6, 8, day=1)])
    whole = store.spark.table("gold.lineage").collect()[0].asDict()
    assert [name for name, value in whole.items() if value is None] == []
    store.spark.sql(f"ALTER TABLE {lost.name} SET TBLPROPERTIES ('delta.appendOnly' = 'false')")
    store.spark.sql(f"DELETE FROM {lost.name}")
    [row] = store.spark.table("gold.lineage").collect()
    assert [name for name, value in row.asDict().items() if value is None] == missing
    assert (row.review_id, row.run_id, row.source_sha256) == (REVIEW, "run2", FILE_A)


def test_every_view_stands_once_its_tables_do(store: TableStore) -> None:
    assert not any(store.spark.catalog.tableExists(view.name) for view in VIEWS)
    for table in {table.name: table for view in VIEWS for table in view.reads}.values():
        store.create(table)
    counts = {view.name: store.spark.table(view.name).count() for view in VIEWS}
    assert counts == {"gold.current_scores": 0, "gold.lineage": 0}


def append(store: TableStore, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    store.append(table, store.spark.createDataFrame(list(rows), table.schema))


def day_of_may(day: int) -> datetime:
    return datetime(2026, 5, day, tzinfo=UTC)


def score(
    model_name: str,
    version: int,
    origins: Sequence[tuple[str, int, str]] = ((FILE_A, 1, "file.csv"),),
) -> tuple[Any, ...]:
    return (
        REVIEW, model_name, version, 0.75, 1, False, None, f"run{version}", 6, "imdb", list(origins), day_of_may(1)
    )  # fmt: skip


def decision(model_name: str, version: int, verb: str, day: int) -> tuple[Any, ...]:
    return model_name, version, verb, "[]", None, day_of_may(day)


def model(model_name: str, version: int) -> tuple[Any, ...]:
    files = [("model/model.safetensors", 10, "d" * 64)]
    return (
        model_name, version, f"run{version}", 5, 4, 3, "3-1-2", "e" * 64, "f" * 64, files, "c0ffee", day_of_may(1)
    )  # fmt: skip


def cleaned(silver_version: int, bronze_version: int, day: int) -> tuple[Any, ...]:
    """A run of clean in the ledger."""
    return (
        "k", "clean", "{}", {"bronze.reviews": bronze_version}, {"silver.reviews": silver_version}, None, {}, "done",
        1.0, None, day_of_may(day),
    )  # fmt: skip
