"""Nothing in a changed model directory runs, and no other score comes out. Needs no Spark."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines.errors import IntegrityError
from pipelines.lake.config import LakeConfig
from pipelines.model import classifier
from pipelines.model.manifest import (
    ManifestError,
    ModelFile,
    copy_verified,
    extra_files,
    manifest_of,
)
from pipelines.tracking import model_files, registry, runs
from pipelines.tracking.store import connect
from pipelines.train.encoder import load_for_training
from tests.support import model_mutations, tiny_encoder
from tests.support.model_mutations import REFUSED, SAME, Places
from tests.support.processes import own_environment, run_to_end

TEXTS = ["a good film", "a bad film", "good good", "Bad BAD"]
NAME = "review_classifier"
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowClient, Places]:
    """Two versions of a tiny model in a store of their own; sound copies of their directories."""
    root = tmp_path_factory.mktemp("models")
    lake = LakeConfig(lake=str(root / "lake"))
    client = connect(lake)
    copies = []
    for seed in (0, 1):
        model, tokenizer = load_for_training(tiny_encoder.build(root / "encoder", TEXTS), seed)
        saved = root / str(seed) / "model"
        classifier.save(saved, model, tokenizer, classifier.Policy(max_tokens=16, precision="fp32"))
        with runs.tracked(client, lake, "tests", {}, {}):
            version = registry.register(client, NAME, saved, {}, "A card.")
        source = str(client.get_model_version(NAME, str(version.version)).source)
        directory = model_files.directory_of(client, source.removeprefix("models:/"))
        copies.append(Path(shutil.copytree(directory, root / f"sound-{seed}")))
    (root / "aside").mkdir()
    return client, Places(
        sound=copies[0], other=copies[1], aside=root / "aside", canary=root / "canary"
    )


@pytest.fixture
def places(registered: tuple[MlflowClient, Places]) -> Places:
    return registered[1]


@pytest.fixture(params=[False, True], ids=["", "with PYTHONPYCACHEPREFIX"])
def prefix(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path | None:
    """Another place for bytecode, as PYTHONPYCACHEPREFIX names one, or none."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    if not request.param:
        return None
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    return tmp_path / "bytecode"


def copied(places: Places, tmp_path: Path) -> Path:
    """Return a fresh copy of the sound model, with the times of its files."""
    model = tmp_path / "model"
    if model.is_symlink():
        model.unlink()
    shutil.rmtree(model, ignore_errors=True)
    return Path(shutil.copytree(places.sound, model))


def plant_below(prefix: Path, model: Path, places: Places) -> None:
    """Plant bytecode where Python looks for that of this directory with PYTHONPYCACHEPREFIX."""
    cached = prefix / str(model.resolve())[1:] / model_mutations.cached_name(model).name
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(model_mutations.bytecode(model, places.attack))


def outcome_of(model: Path, files: list[ModelFile], expected: pd.DataFrame) -> str:
    try:
        scores = model_files.load(model, files)(TEXTS)
    except IntegrityError as error:
        line = str(error)
        assert ": the manifest says " in line or ": expected a directory, found: " in line
        assert line.isprintable()
        return REFUSED
    # The last bits depend on how memory is aligned; other weights differ by more.
    is_same = np.allclose(scores.astype(float), expected.astype(float), rtol=0, atol=TOLERANCE)
    return SAME if is_same else f"other scores: {scores}"


@pytest.mark.parametrize(
    ("step", "n_expected"), [pytest.param(1, 370, marks=pytest.mark.slow), (7, 50)]
)
def test_no_mutation_of_a_model_runs_code_or_changes_a_score(
    places: Places, tmp_path: Path, step: int, n_expected: int
) -> None:
    files = manifest_of(places.sound)
    expected = model_files.load(places.sound, files)(TEXTS)
    assert outcome_of(copied(places, tmp_path), files, expected) == SAME
    other = model_files.load(places.other, manifest_of(places.other))(TEXTS)
    assert (other["probability"] - expected["probability"]).abs().max() > 1_000 * TOLERANCE
    n_mutations = 0
    wrong = {}
    for mutation in list(model_mutations.mutations(places))[::step]:
        n_mutations += 1
        model = copied(places, tmp_path)
        mutation.change(model)
        outcome = outcome_of(model, files, expected)
        if outcome != mutation.outcome or places.canary.exists():
            wrong[mutation.name] = outcome, places.canary.exists()
            places.canary.unlink(missing_ok=True)
    assert wrong == {}
    assert n_mutations >= n_expected
    assert list(Path(tempfile.gettempdir()).glob("reviewlake-model-*")) == []


def test_prepared_bytecode_is_not_read_and_none_is_written(
    places: Places, tmp_path: Path, prefix: Path | None
) -> None:
    files = manifest_of(places.sound)
    expected = model_files.load(places.sound, files)(TEXTS)
    for mutation in model_mutations.of_bytecode(places):
        model = copied(places, tmp_path)
        mutation.change(model)
        if prefix:
            plant_below(prefix, model, places)
        before = sorted(model.rglob("*"))
        assert outcome_of(model, files, expected) == SAME
        assert sorted(model.rglob("*")) == before
        assert not places.canary.exists()
    assert not prefix or list(prefix.rglob("reviewlake-model-*")) == []


def test_the_prepared_bytecode_is_real_as_plain_mlflow_runs_it(
    places: Places, tmp_path: Path, prefix: Path | None
) -> None:
    changes = {mutation.name: mutation.change for mutation in model_mutations.of_bytecode(places)}
    if prefix:
        changes = {"bytecode elsewhere": lambda model: plant_below(prefix, model, places)}
    n_ran = 0
    for change in changes.values():
        model = copied(places, tmp_path)
        change(model)
        assert not places.canary.exists()
        with contextlib.suppress(MlflowException):  # the code sets no model
            mlflow.pyfunc.load_model(str(model))
        places.canary.unlink()
        n_ran += 1
    assert n_ran == (1 if prefix else 6)


OUR_LOAD = """
import json, sys
from pathlib import Path
from pipelines.tracking import model_files
directory, files, texts = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
scores = model_files.load(Path(directory), [tuple(file) for file in files])(texts)
print(json.dumps(scores["probability"].tolist()))
"""


def test_a_fresh_process_runs_none_of_the_added_code(places: Places, tmp_path: Path) -> None:
    """In the process of the tests torch and mlflow are imported already: nothing shadows them."""
    files = manifest_of(places.sound)
    expected = model_files.load(places.sound, files)(TEXTS)["probability"].tolist()
    model = copied(places, tmp_path)
    added = [change for change in model_mutations.of_extra_code(places) if "added" in change.name]
    for mutation in added:
        if "link" not in mutation.name:
            mutation.change(model)
    before = sorted(model.rglob("*"))
    environment = {**own_environment(), "PYTHONDONTWRITEBYTECODE": ""}
    arguments = [str(model), json.dumps(files), json.dumps(TEXTS)]
    process = run_to_end([sys.executable, "-c", OUR_LOAD, *arguments], environment=environment)
    assert json.loads(process.stdout) == pytest.approx(expected, abs=TOLERANCE)
    assert not places.canary.exists()
    assert sorted(model.rglob("*")) == before


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def test_after_plain_mlflow_has_loaded_a_model_it_still_verifies_loads_and_is_adopted(
    registered: tuple[MlflowClient, Places], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, places = registered
    version = registry.resolve(client, NAME, "1")
    files = manifest_of(places.sound)
    directory = model_files.verified_directory(client, version, files)
    expected = model_files.load(directory, files)(TEXTS)
    before = tree(directory)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    plain = mlflow.pyfunc.load_model(f"models:/{NAME}/1")
    assert plain.predict(pd.DataFrame({"text": TEXTS})).equals(expected)
    added = sorted(tree(directory).keys() - before.keys())
    cached = f"__pycache__/{model_mutations.cached_name(directory).name}"
    assert added == [cached, "registered_model_meta"]

    assert model_files.extras_of(client, version, files) == []
    assert model_files.verified_directory(client, version, files) == directory
    assert model_files.load(directory, files)(TEXTS).equals(expected)
    client.set_model_version_tag(NAME, "1", registry.RUN_KEY, "key")
    client.set_model_version_tag(NAME, "1", "content_hash", "hash")
    adopted = registry.adopt_interrupted(client, NAME, "key", recorded={(NAME, 2)})
    assert adopted
    assert adopted[0].files == files


EXTRAS = {
    "evil.py": "a file",
    "a\nb.py": "a file",
    "code": "a directory",
    "artifacts/model/__pycache__": "a directory",
    "__pycache__/evil.cpython-311.pyc": "a file",
    "__pycache__/classifier.cpython-311.pyc": "a link",
    "registered_model_meta": "a link",
    "pipe": "no regular file",
}


def test_what_is_beside_a_model_is_listed_unless_mlflow_or_python_writes_it(
    places: Places, tmp_path: Path
) -> None:
    files = manifest_of(places.sound)
    model = copied(places, tmp_path)
    assert extra_files(model, files) == []
    (model / "__pycache__").mkdir()
    for name in ("cpython-311.pyc", "cpython-312.opt-1.pyc", "cpython-311.pyc.140234"):
        (model / "__pycache__" / f"classifier.{name}").write_bytes(b"")
    (model / "registered_model_meta").write_text("model_name: review_classifier\n")
    assert extra_files(model, files) == []
    for path, kind in EXTRAS.items():
        (model / path).unlink(missing_ok=True)
        if kind == "a file":
            (model / path).write_bytes(b"")
        elif kind == "a directory":
            (model / path / "below").mkdir(parents=True)
        elif kind == "a link":
            (model / path).symlink_to(places.sound / "MLmodel")
        else:
            os.mkfifo(model / path)
    escaped = {path.replace("\n", "\\n"): kind for path, kind in EXTRAS.items()}
    assert dict(extra_files(model, files)) == escaped


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a//b", ".", "", "a/../b", "a\0b"])
def test_a_path_of_a_manifest_stays_below_the_directory(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "model").mkdir()
    with pytest.raises(ManifestError, match="a path of the manifest must be relative"):
        copy_verified(tmp_path / "model", tmp_path / "copy", [(path, 6, "0" * 64)])
    assert list((tmp_path / "copy").iterdir()) == []
