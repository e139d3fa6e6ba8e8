"""The ledger knows which runs are done, and what each read and wrote. Needs Spark."""

import importlib.metadata
import logging
from dataclasses import dataclass, replace

import pytest

from pipelines.cli import flag, group
from pipelines.lake import ledger
from pipelines.lake.commits import Commit
from pipelines.lake.config import LakeConfig
from pipelines.lake.frames import Totals, content_hash
from pipelines.lake.tables import TableStore
from schemas import BRONZE_REVIEWS, GOLD_REJECTS, OPS_PROMOTIONS, OPS_RUNS, SILVER_REVIEWS

Inputs = dict[str, int | str]
INPUTS: Inputs = {"silver.reviews": 3, "model": "c0ffee"}


@dataclass(frozen=True)
class Settings:
    max_tokens: int = flag("tokens kept", 128)
    lake: LakeConfig = group(LakeConfig)


@pytest.mark.parametrize(
    ("stage", "settings", "inputs", "is_same"),
    [
        ("train", Settings(), INPUTS, True),
        ("train", Settings(), dict(reversed(INPUTS.items())), True),
        ("train", Settings(lake=LakeConfig(lake="elsewhere", jars="j", rerun=True)), INPUTS, True),
        ("train", Settings(max_tokens=64), INPUTS, False),
        ("score", Settings(), INPUTS, False),
        ("train", Settings(), INPUTS | {"silver.reviews": 4}, False),
        ("train", Settings(), INPUTS | {"model": "decaf"}, False),
        ("train", Settings(), {}, False),
    ],
)
def test_the_key_of_a_run_depends_on_what_it_computes_and_not_on_the_place(
    stage: str, settings: Settings, inputs: Inputs, is_same: bool
) -> None:
    expected = ledger.start("train", Settings(), INPUTS).key
    assert (ledger.start(stage, settings, inputs).key == expected) == is_same


def test_the_key_of_a_run_depends_on_its_code_and_not_on_the_packages_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = ledger.start("train", Settings(), INPUTS)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9+20261128")
    assert ledger.start("train", Settings(), INPUTS).key == before.key
    monkeypatch.setattr(ledger, "code_sha256", lambda *_: "other code")
    after = ledger.start("train", Settings(), INPUTS)
    assert after.key != before.key
    assert (len(before.code_sha256), after.code_sha256) == (64, "other code")


@dataclass(frozen=True)
class Named:
    gold_version: int = flag("version; -1 = latest", -1)
    model: str = flag("alias or version", "champion")
    max_tokens: int = flag("tokens kept", 128)


@pytest.mark.parametrize(
    ("settings", "is_same"),
    [(Named(3), True), (Named(model="7"), True), (Named(max_tokens=64), False)],
)
def test_a_name_of_an_input_is_in_the_runs_config_but_not_in_its_key(
    settings: Named, is_same: bool
) -> None:
    inputs = {"gold.reviews": 3}
    latest = ledger.start("train", Named(), inputs)
    other = ledger.start("train", settings, inputs)
    assert (latest.key == other.key) == is_same
    assert latest.config["gold_version"] == -1
    assert other.config["gold_version"] == settings.gold_version


def write_rejects(store: TableStore, *review_ids: str) -> Commit:
    rows = [(review_id, "unlabelled") for review_id in review_ids]
    return store.synchronise(GOLD_REJECTS, store.spark.createDataFrame(rows, GOLD_REJECTS.schema))


def append_promotion(store: TableStore) -> Commit:
    row = store.spark.sql("SELECT 'm', 1, 'promoted', '[]', CAST(NULL AS INT), current_timestamp()")
    return store.append(OPS_PROMOTIONS, row.toDF(*OPS_PROMOTIONS.column_names))


def test_a_run_is_done_until_its_settings_inputs_or_outputs_differ(
    store: TableStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    run = ledger.start("curate", Settings(), INPUTS)
    assert ledger.already_done(store, run) is None  # there is no ledger yet
    refused = [write_rejects(store, "a")]
    ledger.finish(store, run, outputs=refused, rows={"in": 1}, output_hash="hash", state="refused")
    assert ledger.already_done(store, run) is None
    outputs = [write_rejects(store, "a"), append_promotion(store)]
    ledger.finish(store, run, outputs=outputs, rows={"in": 1}, output_hash="hash")
    caplog.clear()
    assert ledger.already_done(store, run)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("curate: nothing to do, done at ")
    assert " UTC (gold.rejects v1, ops.promotions v1)" in caplog.messages[0]
    other_settings = ledger.start("curate", Settings(max_tokens=64), INPUTS)
    assert ledger.already_done(store, other_settings) is None
    assert ledger.already_done(store, replace(run, is_again=True)) is None
    append_promotion(store)  # an append-only table still holds the rows of the run
    assert ledger.already_done(store, run)
    write_rejects(store, "a", "b")  # this table no longer does
    assert ledger.already_done(store, run) is None


def test_the_ledger_holds_what_a_run_read_and_wrote(
    store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ledger.start("curate", Settings(), INPUTS)
    monkeypatch.delattr(ledger, "git_commit")  # after the first write, nothing may fail any more
    commit = write_rejects(store, "a")
    ledger.finish(store, run, outputs=[commit], rows={"in": 3, "kept": 2})
    content = content_hash(store.read(GOLD_REJECTS, 1))
    row = store.read(OPS_RUNS).collect()[0].asDict(recursive=True)
    assert row.pop("finished_at") is not None
    assert 0 <= row.pop("duration_s") < 600
    assert row.pop("code_commit") == run.commit
    paths = [file["path"] for file in row.pop("files")]
    log = "gold/rejects/_delta_log"
    assert paths[:2] == [f"{log}/{0:020}.json", f"{log}/{1:020}.json"]
    assert len(paths) == 3
    assert Totals.parse(row.pop("output_totals")["gold.rejects"]).content_hash == content
    assert paths[2].startswith("gold/rejects/part-")
    assert row == {
        "run_key": run.key,
        "code_sha256": run.code_sha256,
        "stage": "curate",
        "config": '{"max_tokens": 128}',
        "input_versions": {"silver.reviews": 3},
        "output_versions": {"gold.rejects": 1},
        "output_hash": content,
        "output_hashes": {"gold.rejects": content},
        "recorded_since": {},
        "input_since": {},
        "previous": [],
        "rows": {"in": 3, "kept": 2},
        "state": "done",
    }


# stage, output, version of the output, source, expected version of the source
INPUT_VERSIONS = [
    ("curate", "gold.rejects", 1, SILVER_REVIEWS.name, 3),
    ("clean", "gold.rejects", 1, SILVER_REVIEWS.name, None),
    ("curate", "gold.rejects", 2, SILVER_REVIEWS.name, None),
    ("curate", "gold.rejects", None, SILVER_REVIEWS.name, None),
    ("curate", "gold.rejects", 1, BRONZE_REVIEWS.name, None),
]


def test_the_input_version_of_an_output_is_that_of_the_first_run_that_wrote_it(
    store: TableStore,
) -> None:
    def input_version(stage: str, output: str, version: int | None, source: str) -> int | None:
        return ledger.input_version(
            store, stage, output=output, output_version=version, source=source
        )

    assert input_version("curate", "gold.rejects", 1, SILVER_REVIEWS.name) is None  # no ledger yet
    unchanged = write_rejects(store, "a")
    for silver_version in (3, 4):
        run = ledger.start("curate", Settings(), {SILVER_REVIEWS.name: silver_version})
        ledger.finish(store, run, outputs=[unchanged], rows={})
    for stage, output, version, source, expected in INPUT_VERSIONS:
        assert input_version(stage, output, version, source) == expected, (stage, version, source)


@pytest.mark.parametrize(
    ("silver_left", "version", "expected"),
    [(None, 4, 3), (None, 3, 3), (None, 2, None), (3, 4, 3), (1, 4, None)],
    ids=["grown", "same", "restored", "left as it was", "built anew"],
)
def test_a_run_goes_on_from_the_last_one_of_the_same_table(
    store: TableStore, silver_left: int | None, version: int, expected: int | None
) -> None:
    first = ledger.start("curate", Settings(), {SILVER_REVIEWS.name: 3})
    ledger.finish(store, first, [write_rejects(store, "a")], {"in": 1})
    if silver_left is not None:
        store.create(SILVER_REVIEWS)
        for number in range(1, silver_left + 1):
            store.sql(f"ALTER TABLE silver.reviews SET TBLPROPERTIES ('a' = '{number}')")
        other = ledger.start("clean", Settings(), {BRONZE_REVIEWS.name: 0})
        ledger.finish(store, other, [Commit(SILVER_REVIEWS, silver_left, 0)], {}, "hash")
    run = ledger.start("curate", Settings(), {SILVER_REVIEWS.name: version})
    base = ledger.base_of(store, run, SILVER_REVIEWS)
    assert (base.since if base else None) == expected
    again = replace(run, is_again=True)
    assert ledger.base_of(store, again, SILVER_REVIEWS) is None
