"""A model logged by commit 8bdf75b, before the modules moved, still works. Needs no Spark.

logged_8bdf75b/model/ was logged by that commit's jobs/train.py for a tiny encoder, trained on 120
generated reviews; only three paths in MLmodel were shortened. expected.json contains its manifest,
the scores by that commit's code, the params of three trainings as MLflow stores them, and the tags
of the first.
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
from pipelines.tracking.model_files import load
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
# Bit-identical on the machine that made them; another processor may round differently.
TOLERANCE = 1e-6


def assert_scores(scores: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(scores, SCORES.drop(columns="text"), rtol=0, atol=TOLERANCE)


def test_its_files_verify_and_its_own_code_gives_the_recorded_scores() -> None:
    verify_manifest(MODEL, MANIFEST)
    assert_scores(load(MODEL, MANIFEST)(TEXTS))
    verify_manifest(MODEL, MANIFEST)  # loading has added no file


def test_todays_code_gives_the_recorded_scores() -> None:
    loaded = classifier.load(MODEL / "artifacts" / "model")
    assert_scores(loaded.predict(TEXTS))
    assert loaded.lexical is not None
    assert len(loaded.lexical.idf) == loaded.tokenizer.get_vocab_size() + 64  # 64 buckets of pairs
    policy = loaded.policy
    assert 0 not in (policy.temperature - 1, policy.lexical_weight, policy.bias)


def test_the_fixture_contains_no_path_of_a_machine_and_no_user() -> None:
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
def test_reproduce_reads_the_settings_of_an_older_run(run: str, settings: TrainSettings) -> None:
    params = {**reproduce.LATER, **EXPECTED["params"][run]}
    assert cli.from_params(TrainSettings, params) == settings


def test_settings_that_an_even_older_run_lacks_are_added() -> None:
    """Runs before these settings existed have no params for them."""
    params = {
        name: value
        for name, value in EXPECTED["params"]["default"].items()
        if name not in reproduce.LATER
    }
    settings = cli.from_params(TrainSettings, {**reproduce.LATER, **params})
    assert settings == dataclasses.replace(TrainSettings(), processes=1, pairs=0)


def test_the_older_run_has_every_tag_that_reproduce_compares() -> None:
    assert environment(TrainSettings(threads=1)).keys() <= EXPECTED["tags"].keys()
