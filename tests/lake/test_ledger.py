import logging
from dataclasses import dataclass, replace

import pytest

from pipelines.cli import flag, group
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import Commit, TableStore
from schemas import BRONZE_REVIEWS, GOLD_REJECTS, OPS_PROMOTIONS, OPS_RUNS, SILVER_REVIEWS


@dataclass(frozen=True)
class Settings:
    max_tokens: int = flag("tokens kept", 128)
    lake: LakeConfig = group(LakeConfig)


INPUTS: dict[str, int | str] = {"silver.reviews": 3, "model": "c0ffee"}


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
def test_a_run_is_named_by_what_it_computes_not_by_where(
    stage: str, settings: Settings, inputs: dict[str, int | str], is_same: bool
) -> None:
    assert (
        ledger.start(stage, settings, inputs).key == ledger.start("train", Settings(), INPUTS).key
    ) == is_same


@dataclass(frozen=True)
class Named:
    gold_version: int = flag("version; -1 = latest", -1)
    model: str = flag("alias or version", "champion")
    max_tokens: int = flag("tokens kept", 128)


@pytest.mark.parametrize(
    ("settings", "is_same"),
    [(Named(3), True), (Named(model="7"), True), (Named(max_tokens=64), False)],
)
def test_a_name_for_an_input_is_in_the_runs_config_but_not_in_its_key(
    settings: Named, is_same: bool
) -> None:
    latest, other = (ledger.start("train", one, {"gold.reviews": 3}) for one in (Named(), settings))
    assert (latest.key == other.key) == is_same
    assert (latest.config["gold_version"], other.config["gold_version"]) == (
        -1,
        settings.gold_version,
    )


def rejects(store: TableStore, *names: str) -> Commit:
    rows = [(name, "unlabelled") for name in names]
    return store.synchronise(GOLD_REJECTS, store.spark.createDataFrame(rows, GOLD_REJECTS.schema))


def decide(store: TableStore) -> Commit:
    row = store.spark.sql("SELECT 'm', 1, 'promoted', '[]', CAST(NULL AS INT), current_timestamp()")
    return store.append(OPS_PROMOTIONS, row.toDF(*OPS_PROMOTIONS.column_names))


def test_a_run_is_done_until_its_settings_inputs_or_outputs_differ(
    store: TableStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    run = ledger.start("curate", Settings(), INPUTS)
    assert ledger.already_done(store, run) is None  # no ledger yet
    ledger.finish(store, run, [rejects(store, "a")], {"in": 1}, "hash", state="refused")
    assert ledger.already_done(store, run) is None
    ledger.finish(store, run, [rejects(store, "a"), decide(store)], {"in": 1}, "hash")
    caplog.clear()
    assert ledger.already_done(store, run)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("curate: nothing to do, done at ")
    assert " UTC (gold.rejects v1, ops.promotions v1)" in caplog.messages[0]
    assert (
        ledger.already_done(store, ledger.start("curate", Settings(max_tokens=64), INPUTS)) is None
    )
    with monkeypatch.context() as patch:
        patch.setattr(store, "config", replace(store.config, rerun=True))
        assert ledger.already_done(store, run) is None
    decide(store)  # an append-only table still holds what the run left
    assert ledger.already_done(store, run)
    rejects(store, "a", "b")  # another one does not
    assert ledger.already_done(store, run) is None


def test_the_ledger_holds_what_a_run_read_and_left(store: TableStore) -> None:
    run = ledger.start("curate", Settings(), INPUTS)
    ledger.finish(store, run, [rejects(store, "a")], {"in": 3, "kept": 2})
    row = store.read(OPS_RUNS).collect()[0].asDict()
    assert row.pop("finished_at") is not None
    assert 0 <= row.pop("duration_s") < 600
    row.pop("code_commit")
    assert row == {
        "run_key": run.key, "stage": "curate", "config": '{"max_tokens": 128}', "input_versions": {"silver.reviews": 3},
        "output_versions": {"gold.rejects": 1}, "output_hash": None, "rows": {"in": 3, "kept": 2}, "state": "done",
    }  # fmt: skip


def test_the_input_of_a_version_is_what_the_first_run_that_left_it_read(store: TableStore) -> None:
    assert (
        ledger.input_version(store, "curate", "gold.rejects", 1, "silver.reviews") is None
    )  # no ledger yet
    left = rejects(store, "a")
    for silver_version in (3, 4):
        run = ledger.start("curate", Settings(), {SILVER_REVIEWS.name: silver_version})
        ledger.finish(store, run, [left], {})
    cases = {
        ("curate", "gold.rejects", 1, "silver.reviews"): 3,
        ("clean", "gold.rejects", 1, "silver.reviews"): None,
        ("curate", "gold.rejects", 2, "silver.reviews"): None,
        ("curate", "gold.rejects", None, "silver.reviews"): None,
        ("curate", "gold.rejects", 1, BRONZE_REVIEWS.name): None,
    }
    assert {case: ledger.input_version(store, *case) for case in cases} == cases
