"""A lake's MLflow store works after the lake was moved or copied. Needs MLflow, no Spark."""

import hashlib
import logging
import multiprocessing
import os
import shutil
import sqlite3
from pathlib import Path, PurePosixPath

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from pipelines.errors import ConflictError, IntegrityError, SetupError
from pipelines.lake.config import LakeConfig
from pipelines.model import classifier
from pipelines.model.manifest import manifest_of
from pipelines.tracking import aliases, model_files, places, registry, runs
from pipelines.tracking.places import moved, path_of
from pipelines.tracking.store import connect
from pipelines.train.encoder import load_for_training
from tests.support import tiny_encoder

TEXTS = ["a good film", "a bad film"]
NAME = "review_classifier"
ODD = 'l\'ake 9% #1 "ü" & so; on'
LOG = "reviewlake"


def made_at(lake: Path, encoder: Path) -> None:
    """Make a lake's MLflow store with one registered model, and an experiment elsewhere."""
    config = LakeConfig(lake=str(lake))
    client = connect(config)
    model, tokenizer = load_for_training(tiny_encoder.build(encoder, TEXTS), 0)
    saved = encoder.parent / f"{encoder.name}-saved" / "model"
    classifier.save(saved, model, tokenizer, classifier.Policy(max_tokens=16, precision="fp32"))
    with runs.tracked(client, config, "tests", {}, {"delta.version": "1"}):
        mlflow.log_text("logged", "note.txt")
        registry.register(client, NAME, saved, {}, "A card.")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original")
    made_at(root / ODD, root / "encoder")
    return root / ODD


@pytest.fixture
def copied(original: Path, tmp_path: Path) -> Path:
    """A copy of the lake in another place."""
    return Path(shutil.copytree(original, tmp_path / f"copy of {ODD}"))


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def stored(lake: Path) -> list[str]:
    """Return every place in the lake's database, sorted."""
    with sqlite3.connect(lake / "mlflow" / "mlflow.db") as connection:
        return sorted(
            place
            for table, column, condition in places.COLUMNS
            for (place,) in connection.execute(
                f"SELECT {column} FROM {table} WHERE {condition} AND {column} IS NOT NULL"
            )
        )


def directory_of_model(client: MlflowClient) -> Path:
    version = registry.resolve(client, NAME, "1")
    return model_files.directory_of(client, str(version.source).removeprefix("models:/"))


def log_a_run(client: MlflowClient, lake: Path) -> None:
    with runs.tracked(client, LakeConfig(lake=str(lake)), "tests", {}, {}):
        mlflow.log_text("new", "new.txt")


def test_a_copied_lake_uses_its_own_files_and_leaves_the_original_unchanged(
    original: Path, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = hashes(original)
    with caplog.at_level(logging.INFO, LOG):
        client = connect(LakeConfig(lake=str(copied)))
    line = f"{copied}: moved from {original}: 5 places in mlflow.db rewritten"
    assert [record.message for record in caplog.records if "moved" in record.message] == [line]
    local = [place for place in stored(copied) if not place.startswith("models:/")]
    assert len(local) == 5
    assert all(place.startswith((copied / "mlflow" / "artifacts").as_uri()) for place in local)

    directory = directory_of_model(client)
    assert directory.is_relative_to(copied)
    files = manifest_of(directory)
    assert len(model_files.load(directory, files)(TEXTS)) == len(TEXTS)
    log_a_run(client, copied)
    assert len(list(copied.rglob("new.txt"))) == 1
    (directory / "MLmodel").unlink()  # it must be missing, although the original has it
    with pytest.raises(IntegrityError, match="MLmodel: the manifest says a file, found no such"):
        model_files.load(directory_of_model(client), files)
    assert hashes(original) == before


def test_a_moved_lake_finds_its_models_also_after_several_moves(
    copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connect(LakeConfig(lake=str(copied)))
    for name in ("first", "second"):  # the first move was not followed by an opening
        lake = copied.rename(tmp_path / name)
        copied = lake
    with caplog.at_level(logging.INFO, LOG):
        client = connect(LakeConfig(lake=str(lake)))
    assert directory_of_model(client).is_relative_to(tmp_path / "second")
    log_a_run(client, lake)
    caplog.clear()
    with caplog.at_level(logging.INFO, LOG):
        connect(LakeConfig(lake=str(lake)))
    assert [record for record in caplog.records if "moved" in record.message] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second"]


def test_a_lake_that_did_not_move_is_not_written(
    original: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = hashes(original)
    with caplog.at_level(logging.INFO, LOG):
        connect(LakeConfig(lake=str(original)))
    assert (hashes(original), caplog.records) == (before, [])


def test_a_lake_that_is_reached_through_a_link_is_the_same_lake_until_the_link_changes(
    copied: Path, tmp_path: Path
) -> None:
    connect(LakeConfig(lake=str(copied)))
    before = hashes(copied)
    link = tmp_path / "link"
    link.symlink_to(copied)
    client = connect(LakeConfig(lake=str(link)))
    assert hashes(copied) == before
    log_a_run(client, link)
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    link.unlink()
    link.symlink_to(other)
    connect(LakeConfig(lake=str(link)))
    # Not by MLflow: in this process it still has the first database open under that name.
    assert {place.startswith((link.as_uri(), "models:/")) for place in stored(other)} == {True}


OLD = (PurePosixPath("/a/lake"), PurePosixPath("/b c/lake"))
NEW = Path("/new %/lake")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/a/lake/mlflow/artifacts", "/new %/lake/mlflow/artifacts"),
        ("file:///a/lake/mlflow/artifacts/x", "file:///new%20%25/lake/mlflow/artifacts/x"),
        ("file:/a/lake", "file:///new%20%25/lake"),
        ("file://localhost/a/lake/%C3%BC", "file:///new%20%25/lake/%C3%BC"),
        ("file:///%61/lake/x", "file:///new%20%25/lake/x"),
        ("file:///b%20c/lake/x%25", "file:///new%20%25/lake/x%25"),
        ("/b c/lake/x%25", "/new %/lake/x%25"),
        ("/a/lake2/mlflow/artifacts", None),
        ("/a/lak", None),
        ("/b%20c/lake", None),
        ("file:///a/lake2", None),
        ("file://host/a/lake", None),
        ("file:///a/lake?x", None),
        ("file://[", None),
        ("s3://a/lake", None),
        ("models:/m-1", None),
        ("./a/lake", None),
        ("", None),
        ("/new %/lake/x", None),
        ("/a/lake/../other", None),
    ],
)
def test_only_places_below_an_old_root_are_rewritten(place: str, expected: str | None) -> None:
    assert moved(place, OLD, NEW) == (place if expected is None else expected)


def test_a_lake_that_moved_into_or_out_of_itself_is_rewritten_once() -> None:
    assert moved("/a/x/mlflow", [PurePosixPath("/a")], Path("/a/x")) == "/a/x/mlflow"
    assert moved("/a/mlflow", [PurePosixPath("/a")], Path("/a/x")) == "/a/x/mlflow"
    assert moved("/a/x/mlflow", [PurePosixPath("/a/x")], Path("/a")) == "/a/mlflow"


def test_a_lake_whose_path_looks_escaped_has_its_own_store(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    connect(LakeConfig(lake=str(tmp_path / "%41")))
    assert (tmp_path / "%41" / "mlflow" / "mlflow.db").is_file()
    assert list((tmp_path / "A").iterdir()) == []


def test_a_path_survives_as_a_uri() -> None:
    for path in ("/a b/%41", "/ü/'\"", "/#?;", "/a+b&c=d"):
        assert path_of(Path(path).as_uri()) == path_of(path) == PurePosixPath(path)


def test_experiments_of_others_elsewhere_stay(copied: Path, tmp_path: Path) -> None:
    here = LakeConfig(lake=str(copied))
    client = connect(here)
    theirs = {
        "theirs": (tmp_path / "theirs").as_uri(),
        "same name": (tmp_path / "shared" / "mlflow" / "artifacts").as_uri(),
        "store": "s3://bucket/mlflow/artifacts",
        "within": (copied / "own").as_uri(),
    }
    for name, place in theirs.items():
        client.create_run(client.create_experiment(name, artifact_location=place))
    lake = copied.rename(tmp_path / "moved")
    client = connect(LakeConfig(lake=str(lake)))
    expected = {**theirs, "within": (lake / "own").as_uri()}
    experiments = client.search_experiments(filter_string="name != 'tests' AND name != 'Default'")
    actual = {experiment.name: experiment.artifact_location for experiment in experiments}
    assert actual == expected


def test_every_place_of_the_database_is_known_or_a_record_of_the_past(original: Path) -> None:
    """A new release of MLflow may have a new column; then it must be added to COLUMNS."""
    known = {(table, column) for table, column, _ in places.COLUMNS}
    with_place = set()
    with sqlite3.connect(original / "mlflow" / "mlflow.db") as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                texts = connection.execute(f'SELECT "{column}" FROM "{table}"').fetchall()
                for needle in (str(original), original.as_uri()):
                    if any(needle in str(text) for (text,) in texts):
                        with_place.add((table, column))
    assert ("runs", "artifact_uri") in with_place
    assert with_place <= known


def test_a_locked_database_is_one_line_and_exit_4(copied: Path) -> None:
    database = copied / "mlflow" / "mlflow.db"
    before = stored(copied)
    with sqlite3.connect(database) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConflictError, match="another process keeps it locked") as refused:
            connect(LakeConfig(lake=str(copied), lock_wait_s=0.1))
    assert "\n" not in str(refused.value)
    assert stored(copied) == before
    connect(LakeConfig(lake=str(copied)))
    assert stored(copied) != before


def test_a_read_only_database_is_one_line_and_exit_5(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.connect

    def read_only(database: str, **_: object) -> sqlite3.Connection:  # root can write any file
        return real(database.replace("mode=rw", "mode=ro"), uri=True, isolation_level=None)

    monkeypatch.setattr("pipelines.tracking.places.sqlite3.connect", read_only)
    with pytest.raises(SetupError, match=r"the database is read-only\. Make it writable"):
        connect(LakeConfig(lake=str(copied)))


def test_a_database_shared_by_a_hard_link_is_refused(copied: Path, tmp_path: Path) -> None:
    os.link(copied / "mlflow" / "mlflow.db", tmp_path / "mlflow.db")
    with pytest.raises(SetupError, match="another place has a hard link to it"):
        connect(LakeConfig(lake=str(copied)))


def open_lake(lake: str) -> list[str]:
    connect(LakeConfig(lake=lake))
    return stored(Path(lake))


def test_several_processes_can_open_a_moved_lake_at_once(copied: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        answers = pool.map(open_lake, [str(copied)] * 8)
    assert answers == [stored(copied)] * 8
    assert sum(place.startswith(copied.as_uri()) for place in stored(copied)) == 5


@pytest.mark.parametrize("part", ["mlflow", "mlflow/mlflow.db", "mlflow/artifacts"])
def test_a_part_of_the_store_that_is_a_link_out_of_the_lake_is_refused(
    copied: Path, tmp_path: Path, part: str
) -> None:
    config = LakeConfig(lake=str(copied))
    outside = (copied / part).rename(tmp_path / "outside")
    (copied / part).symlink_to(outside)
    words = rf"{part}: leads out of .* through a link\. Nothing was written or deleted there\."
    with pytest.raises(IntegrityError, match=words):
        connect(config)
    with pytest.raises(IntegrityError, match=words):
        aliases.versions_by_alias(config, NAME)
    (copied / part).unlink()
    outside.rename(copied / "inside")
    (copied / part).symlink_to(copied / "inside")
    connect(config)


def test_a_model_directory_that_is_a_link_is_refused(copied: Path, tmp_path: Path) -> None:
    client = connect(LakeConfig(lake=str(copied)))
    version = registry.resolve(client, NAME, "1")
    directory = directory_of_model(client)
    files = manifest_of(directory)
    words = "version 1: .*(found: a link|resolved path is outside the artifact directory)"
    for place in (directory, directory.parent):
        outside = place.rename(tmp_path / "outside")
        place.symlink_to(outside)
        with pytest.raises(IntegrityError, match=words):
            model_files.verified_directory(client, version, files)
        place.unlink()
        outside.rename(place)
    assert model_files.verified_directory(client, version, files) == directory
