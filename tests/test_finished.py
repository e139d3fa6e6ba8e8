"""A demo that finds all done: what it looks at instead of asking Spark, and that any change is seen."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import demo
from pipelines import bundle, finished, ingest, registry
from pipelines.demo import MODEL_NAME, variables
from pipelines.finished import Finished, note, recall, state_of
from pipelines.promote import CHALLENGER, CHAMPION
from pipelines.session import LakeConfig
from schemas import TABLES


def definition_of(lake: LakeConfig, max_rows: int = 0) -> dict[str, Any]:
    return bundle.resolved(bundle.LOCAL, variables(str(lake.lake_path), max_rows))


def commit_file(lake: LakeConfig, table: str, version: int) -> Path:
    file = lake.lake_path.joinpath(*table.split("."), "_delta_log", f"{version:020}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


@pytest.fixture
def left(lake: LakeConfig) -> LakeConfig:
    """A lake as a demo leaves it, as far as `state_of` looks: a commit of every table, and a champion."""
    for table in TABLES:
        commit_file(lake, table.name, 0).write_text('{"commitInfo": {}}\n')
    client = registry.connect(lake)
    client.create_registered_model(MODEL_NAME)
    for alias in (CHAMPION, CHALLENGER):
        version = client.create_model_version(MODEL_NAME, source=str(lake.lake_path / "mlflow" / "model"))
        client.set_registered_model_alias(MODEL_NAME, alias, version.version)
    return lake


def test_the_state_of_a_lake_that_nobody_touched_is_the_same_again(left: LakeConfig) -> None:
    state = state_of(definition_of(left), left)
    assert state == state_of(definition_of(left), left)
    assert (state[CHAMPION], state[CHALLENGER], state["previous_champion"]) == ("1", "2", "none")
    assert {name for name, head in state.items() if head.startswith("0" * 20)} == {table.name for table in TABLES}


def test_a_lake_without_tables_and_models_has_none(lake: LakeConfig) -> None:
    state = state_of(definition_of(lake), lake)
    assert {state[table.name] for table in TABLES} == {state[CHAMPION]} == {"none"}


CHANGES: dict[str, tuple[str, Callable[[LakeConfig], object]]] = {
    "a commit by another job": ("gold.scores", lambda lake: commit_file(lake, "gold.scores", 1).write_text("{}")),
    "a log of other content": ("gold.reviews", lambda lake: commit_file(lake, "gold.reviews", 0).write_text("{}")),
    "a table taken away": ("ops.runs", lambda lake: commit_file(lake, "ops.runs", 0).unlink()),
    "an alias that moved": (
        CHAMPION,
        lambda lake: registry.connect(lake).set_registered_model_alias(MODEL_NAME, CHAMPION, "2"),
    ),
    "an alias taken away": (
        CHALLENGER,
        lambda lake: registry.connect(lake).delete_registered_model_alias(MODEL_NAME, CHALLENGER),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_the_demo_left_is_seen_and_named(left: LakeConfig, change: str) -> None:
    where, make = CHANGES[change]
    before = state_of(definition_of(left), left)
    make(left)
    after = state_of(definition_of(left), left)
    assert {name for name in before if after[name] != before[name]} == {where}


def test_other_arguments_code_or_reviews_are_seen(
    left: LakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(definition_of(left), left)
    assert state_of(definition_of(left, max_rows=2_000), left)["calls"] != before["calls"]
    monkeypatch.setattr(finished, "ROOT", tmp_path)
    (tmp_path / "pipelines").mkdir()
    found = [state_of(definition_of(left), left)["code"]]
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "pipelines" / "new.py").write_text(text)
        found.append(state_of(definition_of(left), left)["code"])
    assert len({before["code"], *found}) == 4

    delivered = tmp_path / "other.csv"
    delivered.write_text("text\nA good film.\n")
    monkeypatch.setattr(ingest, "packaged_file", lambda: (delivered, ""))
    assert state_of(definition_of(left), left)["delivery"] != before["delivery"]


def test_what_was_noted_is_recalled_whole(lake: LakeConfig) -> None:
    assert recall(lake) is None
    noted = Finished({"ops.runs": "3"}, 6, "Tables\n  …")
    note(lake, noted)
    assert recall(lake) == noted


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": {}}', '{"unknown": 1}'])
def test_a_note_that_cannot_be_read_is_no_note(lake: LakeConfig, text: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "reviewlake")
    note(lake, Finished({}, 0, ""))
    (lake.landing_path / finished.FILE).write_text(text)
    assert recall(lake) is None
    assert caplog.messages[-1].endswith("demo.json: no finished demo that can be read; every stage is asked")


class NoSparkError(Exception):
    """Raised where the demo would start Spark."""


def refuse_spark(*_: object) -> None:
    raise NoSparkError


@pytest.mark.parametrize("exit_code", [0, 6])
def test_a_finished_demo_says_what_it_said_and_starts_no_spark(
    left: LakeConfig, exit_code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    note(left, Finished(state_of(definition_of(left), left), exit_code, "Model review_classifier: .9285"))
    monkeypatch.setattr(demo, "get_session", refuse_spark)
    ended = 0
    try:
        demo.main(["--lake", left.lake])
    except SystemExit as error:
        ended = int(error.code or 0)
    printed = capsys.readouterr().out
    assert ended == exit_code
    assert printed.startswith("Nothing was to do: no table has a new version. ")
    assert "Model review_classifier: .9285" in printed
    assert f'--lake "{left.lake}"' in printed

    commit_file(left, "gold.scores", 1).write_text("{}")
    with pytest.raises(NoSparkError):
        demo.main(["--lake", left.lake])
