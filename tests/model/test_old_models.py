"""A model logged by commit 8bdf75b, before the modules moved, still loads and scores. Needs no Spark.

logged_8bdf75b/model/ is what that commit's jobs/train.py logged for a tiny encoder, trained on 120 reviews of a few
words; only three paths in its MLmodel were shortened. expected.json holds its manifest, the scores that the commit's
own code gave, the params of three trainings as MLflow keeps them, and the tags of the first.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines import cli, reproduce
from pipelines.model import classifier
from pipelines.model.manifest import ModelFile, verify_manifest
from pipelines.tracking.model_files import load_verified
from pipelines.train.environment import environment
from pipelines.train.settings import BEST_PRESET, TrainSettings

LOGGED = Path(__file__).parent / "logged_8bdf75b"
MODEL = LOGGED / "model"
EXPECTED: dict[str, Any] = json.loads((LOGGED / "expected.json").read_text(encoding="utf-8"))
MANIFEST: list[ModelFile] = [(path, size, sha256) for path, size, sha256 in EXPECTED["manifest"]]
SCORES = pd.DataFrame(
    EXPECTED["scores"], columns=["text", "probability", "prediction", "is_truncated"]
)
TEXTS = SCORES["text"].tolist()
TOLERANCE = 1e-6  # equal to the last bit on the machine that made them; another processor may round otherwise


def assert_scores(scores: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(scores, SCORES.drop(columns="text"), rtol=0, atol=TOLERANCE)


def test_its_files_verify_and_it_scores_as_before_by_its_own_code() -> None:
    verify_manifest(MODEL, MANIFEST)
    assert_scores(load_verified(MODEL, MANIFEST)(TEXTS))
    verify_manifest(MODEL, MANIFEST)  # loading has left no file behind


def test_its_files_score_as_before_by_the_code_of_today() -> None:
    loaded = classifier.load(MODEL / "artifacts" / "model")
    assert_scores(loaded.predict(TEXTS))
    assert loaded.lexical is not None
    assert len(loaded.lexical.idf) == loaded.tokenizer.get_vocab_size() + 64  # pairs count too
    policy = loaded.policy
    assert 0 not in (policy.temperature - 1, policy.lexical_weight, policy.bias)


def test_the_fixture_names_no_machine_and_no_user() -> None:
    for name in ("model/MLmodel", "expected.json"):
        text = (LOGGED / name).read_text(encoding="utf-8")
        assert not [place for place in ("/tmp", "/home", "/work", "root") if place in text]


MODEL_SETTINGS = TrainSettings(
    backbone="encoder",
    max_tokens=16,
    score_tokens=24,
    epochs=3,
    batch_size=8,
    learning_rate=0.01,
    pairs=64,
    freeze_layers=0,
    precision="fp32",
    threads=1,
)


@pytest.mark.parametrize(
    ("run", "settings"),
    [("default", TrainSettings()), ("best", BEST_PRESET), ("model", MODEL_SETTINGS)],
)
def test_reproduce_finds_the_settings_of_a_run_made_before(
    run: str, settings: TrainSettings
) -> None:
    params = {**reproduce.LATER, **EXPECTED["params"][run]}
    assert cli.from_params(TrainSettings, params) == settings


def test_settings_without_a_default_of_before_are_given_one() -> None:
    """A run that is older still has no params for the settings in LATER."""
    params = {
        name: value
        for name, value in EXPECTED["params"]["default"].items()
        if name not in reproduce.LATER
    }
    found = cli.from_params(TrainSettings, {**reproduce.LATER, **params})
    assert found == dataclasses.replace(TrainSettings(), processes=1, pairs=0)


def test_every_tag_of_today_was_recorded_too_so_that_a_difference_can_be_named() -> None:
    assert environment(threads=1).keys() <= EXPECTED["tags"].keys()
