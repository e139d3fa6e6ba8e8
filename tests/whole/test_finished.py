"""A demo that finds all done: what it looks at instead of asking Spark, and that any change is seen."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import demo
from pipelines import finished
from pipelines.bundle import __main__ as bundle
from pipelines.demo import NOTHING_NEW, variables
from pipelines.errors import InputError
from pipelines.finished import Finished, inputs_of, left_in, note, recall, state_of
from pipelines.ingest import sources
from pipelines.lake import ledger
from pipelines.lake.config import LakeConfig
from pipelines.lake.tables import Commit, TableStore
from pipelines.model import backbone
from pipelines.provenance import sha256_of
from pipelines.tracking.names import CHALLENGER, CHAMPION, MODEL_NAME
from pipelines.tracking.store import connect
from schemas import BRONZE_REVIEWS, GOLD_REVIEWS, SILVER_REVIEWS, TABLES


def inputs_for(lake: LakeConfig, max_rows: int = 0) -> dict[str, str]:
    return inputs_of(bundle.resolved(bundle.LOCAL, variables(str(lake.lake_path), max_rows)), lake)


def commit_file(lake: LakeConfig, table: str, version: int) -> Path:
    file = lake.lake_path.joinpath(*table.split("."), "_delta_log", f"{version:020}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def register_two(lake: LakeConfig) -> None:
    """Version 1 is the champion, version 2 the challenger."""
    client = connect(lake)
    client.create_registered_model(MODEL_NAME)
    for alias in (CHAMPION, CHALLENGER):
        version = client.create_model_version(
            MODEL_NAME, source=str(lake.lake_path / "mlflow" / "model")
        )
        client.set_registered_model_alias(MODEL_NAME, alias, version.version)


@pytest.fixture
def left(lake: LakeConfig) -> LakeConfig:
    """A lake as a demo leaves it, as far as `left_in` looks: two commits of every table, and a champion."""
    for table in TABLES:
        for version in (0, 1):
            commit_file(lake, table.name, version).write_text('{"commitInfo": {}}\n')
    register_two(lake)
    return lake


def test_what_a_lake_holds_that_nobody_touched_is_the_same_again(left: LakeConfig) -> None:
    found = left_in(left, MODEL_NAME)
    assert found == left_in(left, MODEL_NAME)
    assert {found[table.name].split()[0] for table in TABLES} == {"1"}
    assert (found[CHAMPION], found[CHALLENGER], found["previous_champion"]) == ("1", "2", "none")


def test_a_lake_without_tables_and_models_holds_none(lake: LakeConfig) -> None:
    assert set(left_in(lake, MODEL_NAME).values()) == {"none"}


CHANGES: dict[str, tuple[str, Callable[[LakeConfig], object]]] = {
    "a commit by another job": (
        "gold.scores",
        lambda lake: commit_file(lake, "gold.scores", 2).write_text("{}"),
    ),
    "a last commit of other content": (
        "gold.reviews",
        lambda lake: commit_file(lake, "gold.reviews", 1).write_text("{}"),
    ),
    "a first commit taken away": (
        "ops.models",
        lambda lake: commit_file(lake, "ops.models", 0).unlink(),
    ),
    "an alias that moved": (
        CHAMPION,
        lambda lake: connect(lake).set_registered_model_alias(MODEL_NAME, CHAMPION, "2"),
    ),
    "an alias taken away": (
        CHALLENGER,
        lambda lake: connect(lake).delete_registered_model_alias(MODEL_NAME, CHALLENGER),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_the_demo_left_is_seen_and_named(left: LakeConfig, change: str) -> None:
    where, make = CHANGES[change]
    before = left_in(left, MODEL_NAME)
    make(left)
    after = left_in(left, MODEL_NAME)
    assert {name for name in before if after[name] != before[name]} == {where}


def test_other_arguments_reviews_backbones_and_packages_are_seen(
    lake: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inputs_for(lake)
    assert before == inputs_for(lake)
    other = {**inputs_for(lake, max_rows=2_000)}
    delivered = tmp_path / "other.csv"
    delivered.write_text("text\nA good film.\n")
    monkeypatch.setattr(sources, "packaged_file", lambda: (delivered, ""))
    other["delivery"] = inputs_for(lake)["delivery"]
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(backbone, "find", lambda _: tmp_path)
    other["backbone"] = inputs_for(lake)["backbone"]
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"another {name}")
    monkeypatch.setattr("pyspark.__version__", "another")
    other |= {name: inputs_for(lake)[name] for name in ("pyspark", *finished.PACKAGES)}
    assert {name for name in before if other[name] == before[name]} == {"code"}


@pytest.mark.parametrize("layer", ["jobs", "pipelines", "schemas"])
def test_code_that_is_new_changed_or_gone_is_seen(tmp_path: Path, layer: str) -> None:
    file = tmp_path / layer / "deep" / "new.py"
    file.parent.mkdir(parents=True)
    found = [finished.code_sha256(tmp_path)]
    for text in ("a = 1\n", "a = 2\n"):
        file.write_text(text)
        found.append(finished.code_sha256(tmp_path))
    assert len(set(found)) == 3
    file.unlink()
    assert finished.code_sha256(tmp_path) == found[0]


def test_a_relative_path_is_looked_for_where_the_runner_looks(
    lake: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for place in (root, elsewhere):
        place.mkdir()
        (place / "new.csv").write_text(place.name)
    monkeypatch.setattr(finished, "ROOT", root)
    for name, value in {"source": "csv", "path": "new.csv", "name": "shop"}.items():
        monkeypatch.setenv(f"BUNDLE_VAR_{name}", value)
    monkeypatch.chdir(elsewhere)
    assert inputs_for(lake)["delivery"] == sha256_of(root / "new.csv")


def test_a_source_that_needs_a_path_says_so(
    lake: LakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE_VAR_source", "csv")
    with pytest.raises(InputError, match="--source csv needs --path"):
        inputs_for(lake)


RUNS: list[tuple[str, dict[str, int], bool, bool]] = [  # each is then its stage's last run
    ("clean", {"bronze.reviews": 9}, True, False),
    ("clean", {"bronze.reviews": 0}, True, True),
    ("train", {"gold.reviews": 0}, True, True),
    ("promote", {"challenger": 1, "champion": 0}, True, False),
    ("promote", {"challenger": 2, "champion": 0}, True, True),
    ("score", {"silver.reviews": 0, "model_version": 1}, True, False),
    ("score", {"silver.reviews": 0, "model_version": 1}, False, True),
    ("score", {"silver.reviews": 0, "model_version": 2}, False, False),
    ("score", {"silver.reviews": 0, "model_version": 2}, True, True),
    ("reproduce", {"gold.reviews": 7}, True, True),  # no stage
]


def test_a_state_is_left_only_where_each_stage_read_what_is_there_now(store: TableStore) -> None:
    before = lake_of_two_models(store)
    for stage, inputs, is_refused, is_settled in RUNS:
        ledger.finish(store, ledger.Run(stage, stage, {}, inputs, 0.0), [], {})
        state = state_of(store, {"code": "c"}, before, MODEL_NAME, is_refused)
        left = {"code": "c", **left_in(store.config, MODEL_NAME)}
        assert (stage, inputs, state) == (stage, inputs, left if is_settled else {})


def test_a_demo_that_changed_nothing_leaves_its_state_whoever_ran_last(store: TableStore) -> None:
    before = lake_of_two_models(store)
    ledger.finish(store, ledger.Run("train", "train", {}, {"gold.reviews": 7}, 0.0), [], {})
    assert state_of(store, {}, before, MODEL_NAME, is_refused=False) == {}
    left = left_in(store.config, MODEL_NAME)
    assert state_of(store, {}, left, MODEL_NAME, is_refused=False) == left


@pytest.mark.parametrize("version", [0, 1])
def test_a_state_is_left_only_where_each_stage_left_what_is_there_now(
    store: TableStore, version: int
) -> None:
    before = lake_of_two_models(store)
    ledger.finish(
        store, ledger.Run("clean", "clean", {}, {}, 0.0), [Commit(SILVER_REVIEWS, version, 0)], {}
    )
    assert bool(state_of(store, {}, before, MODEL_NAME, is_refused=False)) == (version == 0)


def lake_of_two_models(store: TableStore) -> dict[str, str]:
    """What a lake holds with some tables at version 0, and two models."""
    register_two(store.config)
    for table in (BRONZE_REVIEWS, SILVER_REVIEWS, GOLD_REVIEWS):
        store.create(table)
    return left_in(store.config, MODEL_NAME)


def test_what_was_noted_is_recalled_whole(lake: LakeConfig) -> None:
    assert recall(lake) is None
    noted = Finished({"ops.runs": "3"}, 6, "Tables\n  …")
    note(lake, noted)
    assert recall(lake) == noted


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": {}}', '{"unknown": 1}'])
def test_a_note_that_cannot_be_read_is_no_note(
    lake: LakeConfig, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reviewlake")
    note(lake, Finished({}, 0, ""))
    (lake.landing_path / finished.FILE).write_text(text)
    assert recall(lake) is None
    assert caplog.messages[-1].endswith("demo.json: cannot be read, so every stage is asked")


class NoSparkError(Exception):
    """Raised where the demo would start Spark."""


def refuse_spark(*_: object) -> None:
    raise NoSparkError


def exit_code_of(*argv: str) -> int:
    try:
        demo.main(argv)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("exit_code", [0, 6])
def test_a_finished_demo_says_what_it_said_and_starts_no_spark(
    left: LakeConfig,
    exit_code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = inputs_for(left) | left_in(left, MODEL_NAME)
    note(left, Finished(state, exit_code, "Model review_classifier: .9285"))
    monkeypatch.setattr(demo, "get_session", refuse_spark)
    assert exit_code_of("--lake", left.lake) == exit_code
    printed = capsys.readouterr().out
    assert printed.startswith(
        "Nothing was to do: no table has a new version. All is as the last demo noted it"
    )
    assert "Model review_classifier: .9285" in printed
    assert f'--lake "{left.lake}"' in printed

    commit_file(left, "gold.scores", 2).write_text("{}")
    with pytest.raises(NoSparkError):
        demo.main(["--lake", left.lake])


@pytest.mark.parametrize(
    ("pipeline", "score", "argv", "state", "exit_code", "noted"),
    [
        (0, 0, [], {"a": "b"}, 0, 0),
        (0, 0, [], {}, 0, None),
        (6, 0, [], {"a": "b"}, 6, 6),
        (6, 0, ["--max-rows", "2000"], {"a": "b"}, 0, 0),
        (6, 4, [], {"a": "b"}, 4, None),
        (3, 0, ["--max-rows", "2000"], {"a": "b"}, 3, None),
    ],
    ids=[
        "promoted",
        "another job between",
        "refused",
        "few, refused",
        "scoring failed",
        "a stage failed",
    ],
)
def test_a_demo_is_noted_once_all_its_stages_have_run(
    lake: LakeConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    pipeline: int, score: int, argv: list[str], state: dict[str, str], exit_code: int, noted: int | None,
) -> None:  # fmt: skip
    codes = {"pipeline": pipeline, "score": score}
    replaced: dict[str, Any] = {
        "get_session": lambda *_: None,
        "TableStore": lambda *_: None,
        "run": lambda _definition, name, _parameters: codes[name],
        "summary": lambda *_, is_refused: f"a summary, refused: {is_refused}",
    }
    for name, value in replaced.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(finished, "left_in", lambda *_: {"a": "another"})
    monkeypatch.setattr(finished, "state_of", lambda *_, **_named: state)
    assert exit_code_of("--lake", lake.lake, *argv) == exit_code
    found = recall(lake)
    assert (found.exit_code if found else None) == noted
    printed = capsys.readouterr().out
    assert (f"a summary, refused: {pipeline == 6}" in printed) == (exit_code in (0, 6))
    assert NOTHING_NEW not in printed
