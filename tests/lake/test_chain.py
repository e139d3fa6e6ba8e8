"""The chain of ops.runs shows a row that is missing, altered or forged. Needs no Spark."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import IntegrityError
from pipelines.lake import chain
from pipelines.lake.config import LakeConfig

Row = dict[str, Any]
Rows = list[Row]
MIDNIGHT = datetime(2026, 11, 27, tzinfo=UTC)


def row_of(stage: str, hour: int, previous: list[str] | None) -> Row:
    return {
        "stage": stage,
        "rows": {"in": 3, "kept": 2},
        "files": [{"path": "silver/reviews/a.parquet", "bytes": 7, "sha256": "0" * 64}],
        "output_hash": None,
        "previous": previous,
        "finished_at": MIDNIGHT + timedelta(hours=hour),
    }


def chained(*stages: str) -> Rows:
    """Return one row per stage, each written after the one before."""
    rows: Rows = []
    for hour, stage in enumerate(stages):
        rows.append(row_of(stage, hour, chain.ends_of(rows)))
    return rows


def whole(rows: Rows) -> Rows:
    return rows


def reordered(rows: Rows) -> Rows:
    return rows[::-1]


def without_the_first(rows: Rows) -> Rows:
    return rows[1:]


def without_the_last(rows: Rows) -> Rows:
    return rows[:-1]


def without_all(_rows: Rows) -> Rows:
    return []


def with_other_counts(rows: Rows) -> Rows:
    return [rows[0], rows[1] | {"rows": {"in": 3, "kept": 3}}, rows[2]]


def with_the_last_altered(rows: Rows) -> Rows:
    return [*rows[:2], rows[2] | {"stage": "score"}]


def with_a_forged_row(rows: Rows) -> Rows:
    return [*rows, row_of("clean", 9, None)]


def with_a_row_of_a_killed_run(rows: Rows) -> Rows:
    """A run that was killed between its row and the note has left its row."""
    return [*rows, row_of("score", 9, chain.ends_of(rows))]


def with_an_altered_copy(rows: Rows) -> Rows:
    return [*rows, rows[2] | {"stage": "score"}]


def with_a_repeated_row(rows: Rows) -> Rows:
    return [*rows, rows[2]]


def with_a_forged_row_that_a_job_followed(rows: Rows) -> Rows:
    both = with_a_forged_row(rows)
    return [*both, row_of("score", 10, chain.ends_of(both))]


def of_an_older_release(rows: Rows) -> Rows:
    return [{**row, "previous": None} for row in rows]


LAST_IS_GONE = ["its last row is missing or altered"]
DAMAGES: list[tuple[Callable[[Rows], Rows], list[str]]] = [
    (whole, []),
    (reordered, []),
    (with_a_row_of_a_killed_run, []),
    (
        without_the_first,
        ["a row before the row of clean, 2026-11-27T01:00:00+00:00 is missing or altered"],
    ),
    (
        with_other_counts,
        ["a row before the row of curate, 2026-11-27T02:00:00+00:00 is missing or altered"],
    ),
    (without_the_last, LAST_IS_GONE),
    (with_the_last_altered, LAST_IS_GONE),
    (without_all, LAST_IS_GONE),
    (
        with_a_forged_row,
        ["the row of clean, 2026-11-27T09:00:00+00:00 was not written by a job"],
    ),
    (
        with_a_forged_row_that_a_job_followed,
        ["the row of score, 2026-11-27T10:00:00+00:00 follows 2 rows: a job follows one"],
    ),
    (
        with_an_altered_copy,
        ["2 rows follow the row of clean, 2026-11-27T01:00:00+00:00: a job writes one"],
    ),
    (
        with_a_repeated_row,
        [
            "the row of curate, 2026-11-27T02:00:00+00:00 is there 2 times",
            "2 rows follow the row of clean, 2026-11-27T01:00:00+00:00: a job writes one",
        ],
    ),
]


@pytest.mark.parametrize(("damage", "problems"), DAMAGES)
def test_each_damage_to_the_rows_is_a_break(
    damage: Callable[[Rows], Rows], problems: list[str]
) -> None:
    rows = chained("ingest", "clean", "curate")
    assert chain.breaks_of(damage(rows), chain.ends_of(rows), is_local=True) == problems


def test_rows_of_an_older_release_are_no_break_and_are_chained_by_the_next_row() -> None:
    rows = of_an_older_release(chained("ingest", "clean"))
    assert chain.breaks_of(rows, [], is_local=True) == []
    rows.append(row_of("curate", 2, chain.ends_of(rows)))
    assert chain.breaks_of(rows, chain.ends_of(rows), is_local=True) == []
    assert chain.breaks_of(rows[1:], chain.ends_of(rows), is_local=True) != []


@pytest.mark.parametrize("n_before", [0, 1])
def test_rows_written_at_once_in_a_store_without_our_lock_are_both_followed_by_the_next(
    n_before: int,
) -> None:
    first = chained("ingest")[:n_before]
    both = [row_of(stage, 1, chain.ends_of(first)) for stage in ("clean", "score")]
    rows = [*first, *both]
    assert len(chain.ends_of(rows)) == 2
    rows.append(row_of("curate", 2, chain.ends_of(rows)))
    ends = chain.ends_of(rows)
    assert chain.breaks_of(rows, ends, is_local=False) == []
    assert chain.breaks_of(rows, ends, is_local=True) != []
    for lost in both:
        rest = [row for row in rows if row is not lost]
        assert len(chain.breaks_of(rest, ends, is_local=False)) == 1


def test_a_new_empty_column_and_another_time_zone_do_not_change_a_hash() -> None:
    row = row_of("clean", 1, [])
    east = row["finished_at"].astimezone(timezone(timedelta(hours=9)))
    assert chain.row_hash({**row, "later": None, "finished_at": east}) == chain.row_hash(row)
    assert chain.row_hash({**row, "later": 0}) != chain.row_hash(row)


def test_the_noted_end_is_required_until_the_note_is_deleted(lake: LakeConfig) -> None:
    def require(rows: Rows) -> None:
        chain.require_noted(lake, chain.noted_ends(lake), rows)

    require([])  # a new lake has no note
    rows = chained("ingest", "clean")
    chain.note_ends(lake, rows)
    require(rows)
    with pytest.raises(IntegrityError, match=r"ops\.runs: expected the rows that the last run lef"):
        require(rows[:1])
    assert [file.name for file in lake.lake_path.iterdir()] == ["ledger_ops.json"]
    chain.note_of(lake).unlink()
    require(rows[:1])


def test_the_note_is_not_written_through_a_link(lake: LakeConfig, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    chain.note_ends(lake, [])
    partial = lake.lake_path / "ledger_ops.json.partial"
    partial.symlink_to(outside)
    chain.note_ends(lake, chained("ingest"))
    assert len(chain.noted_ends(lake)) == 1
    assert (outside.read_text(), partial.exists()) == ("mine", False)
    chain.note_of(lake).unlink()
    (lake.lake_path / "ledger_ops.json").symlink_to(outside)
    with pytest.raises(IntegrityError, match="leads out of"):
        chain.noted_ends(lake)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"n_rows": 1}', '{"ends": 7}'])
def test_a_damaged_note_is_one_line(lake: LakeConfig, text: str) -> None:
    chain.note_ends(lake, [])
    chain.note_of(lake).write_text(text, encoding="utf-8")
    with pytest.raises(
        IntegrityError, match=r"ledger_ops\.json: expected the end of ops\.runs' chain"
    ):
        chain.noted_ends(lake)


@pytest.mark.parametrize("catalog", ["one", ""])
def test_each_ledger_has_a_note_of_its_own(tmp_path: Path, catalog: str) -> None:
    one = LakeConfig(lake=str(tmp_path), catalog=catalog, landing=str(tmp_path) if catalog else "")
    places = [one, replace(one, schemas="a,b,c,d")]
    if catalog:  # several may share a landing directory
        places.append(replace(one, catalog="two"))
    assert len({chain.note_of(place) for place in places}) == len(places)
    assert {chain.note_of(place).parent for place in places} == {tmp_path}
