"""No damage to the files of a finished lake changes an answer unnoticed. Needs Spark and MLflow."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.errors import JobError
from pipelines.lake.config import DELTA_LOG, LakeConfig
from pipelines.lake.frames import content_hash
from pipelines.lake.tables import TableStore
from pipelines.operate.doctor import examine
from schemas import GOLD_SCORES, OPS_RUNS, TABLES, VIEWS
from tests.support.damage import invert_labels, rewrite, without_side_file
from tests.support.every_job import encoder_of_reviews, run_every_job, run_in_process

SEED = 15
# CI takes every third damage; `make stress`, which sets this variable, takes all.
STEP = 1 if "CRASH_KILLS" in os.environ else 3
MIN_DAMAGES = 113  # as many as were tried before the runs recorded what they left
Damage = Callable[[Path, random.Random], None]  # takes a table's directory, or the lake's


def log_files(table: Path) -> list[Path]:
    return sorted((table / DELTA_LOG).glob("[0-9]*.json"))


def data_files(table: Path) -> list[Path]:
    """Return the data files of the latest version, so that no damage hits an unused file."""
    return sorted(Path(uri) for uri in DeltaTable(str(table)).file_uris())


def flip_in(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def delete_last_commit(table: Path, _chance: random.Random) -> None:
    without_side_file(log_files(table)[-1]).unlink()


def delete_first_commit(table: Path, _chance: random.Random) -> None:
    without_side_file(log_files(table)[0]).unlink()


def empty_last_commit(table: Path, _chance: random.Random) -> None:
    without_side_file(log_files(table)[-1]).write_bytes(b"")


def cut_last_commit(table: Path, _chance: random.Random) -> None:
    file = without_side_file(log_files(table)[-1])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))  # without its last action


def flip_first_commit(table: Path, chance: random.Random) -> None:
    """The checkpoint covers this commit."""
    flip_in(without_side_file(log_files(table)[0]), chance)


def flip_last_commit(table: Path, chance: random.Random) -> None:
    flip_in(without_side_file(log_files(table)[-1]), chance)


def flip_last_commit_beside_its_side_file(table: Path, chance: random.Random) -> None:
    flip_in(log_files(table)[-1], chance)


def swap_last_commits(table: Path, _chance: random.Random) -> None:
    *_, one, other = map(without_side_file, log_files(table))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def repeat_last_commit(table: Path, _chance: random.Random) -> None:
    last = log_files(table)[-1]
    shutil.copy(last, last.with_name(f"{int(last.stem) + 1:020}.json"))


def delete_log(table: Path, _chance: random.Random) -> None:
    shutil.rmtree(table / DELTA_LOG)


def delete_table(table: Path, _chance: random.Random) -> None:
    shutil.rmtree(table)


def flip_checkpoint(table: Path, chance: random.Random) -> None:
    *_, file = sorted((table / DELTA_LOG).glob("*.checkpoint.parquet"))
    flip_in(file, chance)


def flip_data(table: Path, chance: random.Random) -> None:
    flip_in(without_side_file(chance.choice(data_files(table))), chance)


def flip_data_beside_its_side_file(table: Path, chance: random.Random) -> None:
    flip_in(chance.choice(data_files(table)), chance)


def cut_data(table: Path, chance: random.Random) -> None:
    file = without_side_file(chance.choice(data_files(table)))
    file.write_bytes(file.read_bytes()[:-100])


def delete_data(table: Path, chance: random.Random) -> None:
    without_side_file(chance.choice(data_files(table))).unlink()


def drop_a_row(table: Path, chance: random.Random) -> None:
    rewrite(chance.choice(data_files(table)), lambda rows: rows.iloc[1:])


def repeat_rows(table: Path, chance: random.Random) -> None:
    rewrite(chance.choice(data_files(table)), lambda rows: pd.concat([rows, rows]))


def link_data(table: Path, chance: random.Random) -> None:
    file = without_side_file(chance.choice(data_files(table)))
    moved = file.with_name("moved-away")
    file.rename(moved)
    file.symlink_to(moved)


def swap_data(table: Path, _chance: random.Random) -> None:
    one, other, *_ = map(without_side_file, data_files(table))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def copy_data_over_another(table: Path, _chance: random.Random) -> None:
    one, other, *_ = map(without_side_file, data_files(table))
    shutil.copy(one, other)


def invert_labels_of_silver(lake: Path, _chance: random.Random) -> None:
    for file in data_files(lake / "silver" / "reviews"):
        rewrite(file, invert_labels)


def alter_first_run(lake: Path, _chance: random.Random) -> None:
    rewrite(data_files(lake / "ops" / "runs")[0], lambda rows: rows.assign(stage="other"))


def alter_the_note(lake: Path, _chance: random.Random) -> None:
    (lake / "ledger_ops.json").write_text(json.dumps({"ends": ["0" * 64]}))


def empty_the_note(lake: Path, _chance: random.Random) -> None:
    (lake / "ledger_ops.json").write_bytes(b"")


def flip_weights(lake: Path, chance: random.Random) -> None:
    [file] = lake.rglob("model.safetensors")
    flip_in(file, chance)


def swap_id2label(lake: Path, _chance: random.Random) -> None:
    [file] = lake.rglob("artifacts/model/config.json")
    file.write_text(file.read_text().replace("negative", "n_").replace("positive", "negative"))


def delete_registry(lake: Path, _chance: random.Random) -> None:
    (lake / "mlflow" / "mlflow.db").unlink()


def move_registry_row(lake: Path, _chance: random.Random) -> None:
    with closing(sqlite3.connect(lake / "mlflow" / "mlflow.db")) as connection:
        connection.execute("UPDATE model_versions SET version = 9")
        connection.commit()


ON_LOGS: tuple[Damage, ...] = (
    delete_last_commit,
    delete_first_commit,
    empty_last_commit,
    cut_last_commit,
    flip_first_commit,
    flip_last_commit,
    flip_last_commit_beside_its_side_file,
    delete_log,
    delete_table,
)
ON_DATA: tuple[Damage, ...] = (
    flip_data,
    flip_data_beside_its_side_file,
    cut_data,
    delete_data,
    drop_a_row,
    repeat_rows,
    link_data,
)
# Mostly harmless, so that every check runs in vain: these take as long as all others together.
ON_SOME_TABLES: tuple[Damage, ...] = (flip_checkpoint, repeat_last_commit)
ON_TWO_COMMITS: tuple[Damage, ...] = (swap_last_commits,)
ON_TWO_FILES: tuple[Damage, ...] = (swap_data, copy_data_over_another)
ON_LAKE: tuple[Damage, ...] = (
    invert_labels_of_silver,
    alter_first_run,
    alter_the_note,
    empty_the_note,
    flip_weights,
    swap_id2label,
    delete_registry,
    move_registry_row,
)


def damages_of(lake: Path) -> dict[str, tuple[Path, Damage]]:
    """Return every damage that this lake allows by name: the directory it takes, the function."""
    damages: dict[str, tuple[Path, Damage]] = {
        damage.__name__: (lake, damage) for damage in ON_LAKE
    }
    for table in TABLES:
        directory = lake.joinpath(*table.name.split("."))
        n_files = len(data_files(directory))
        chosen = [*ON_LOGS]
        chosen += ON_TWO_COMMITS if len(log_files(directory)) > 1 else ()
        chosen += ON_DATA if n_files else ()
        chosen += ON_TWO_FILES if n_files > 1 else ()
        chosen += ON_SOME_TABLES if table in (GOLD_SCORES, OPS_RUNS) else ()
        for damage in chosen:
            damages[f"{damage.__name__} of {table.name}"] = (directory, damage)
    return damages


def answers(store: TableStore) -> dict[str, str]:
    """Return what SQL says of the lake: each table at each version, and the two views.

    A question that Spark refuses to answer is left out: whoever asks it notices.
    """
    questions = {view.name: store.spark.table(view.name) for view in VIEWS}
    by_name: dict[str, str] = {}
    for table in TABLES:
        for version in range(store.version(table) + 1):
            with contextlib.suppress(PySparkException, Py4JError):
                questions[f"{table.name} {version}"] = store.read(table, version)
    for name, rows in questions.items():
        with contextlib.suppress(PySparkException, Py4JError):
            by_name[name] = content_hash(rows)
    return by_name


def tree_hash(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        digest.update(f"{path.relative_to(directory)} {path.is_symlink()}".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def first_fault(spark: SparkSession, lake: LakeConfig) -> str:
    """Return the first fault of doctor --deep, or the line it ends with; empty if healthy."""
    try:
        return str(next(examine(spark, lake, is_deep=True), ""))
    except JobError as error:
        return str(error)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with two versions of most tables, whose first versions a checkpoint covers."""
    directory = tmp_path_factory.mktemp("damage")
    lake, encoder = directory / "lake", encoder_of_reviews(directory / "encoder")
    place = ["--lake", str(lake)]
    run_every_job(place, encoder)
    for table in TABLES:
        DeltaTable(str(lake.joinpath(*table.name.split(".")))).create_checkpoint()
    for job, *flags in (
        ["ingest", "--max-rows", "90"],
        ["clean"],
        ["curate", "--backbone", encoder],
        ["score", "--model", "challenger"],
    ):
        run_in_process(job, *flags, *place)
    return lake


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_no_damage_changes_an_answer_unnoticed(spark: SparkSession, sound: Path) -> None:
    config = LakeConfig(lake=str(sound))
    assert first_fault(spark, config) == ""
    expected = answers(TableStore(spark, config))
    before = tree_hash(sound)
    names = list(damages_of(sound))
    assert len(names) >= MIN_DAMAGES
    harmless: list[str] = []
    tried = names[::STEP]
    for number, name in enumerate(tried):
        # A place of its own: Delta and MLflow remember what they read at a path.
        lake = sound.with_name(f"lake-{number}")
        shutil.copytree(sound, lake)
        directory, damage = damages_of(lake)[name]
        damage(directory, random.Random(f"{SEED} {name}"))
        assert tree_hash(lake) != before, name
        copy = LakeConfig(lake=str(lake))
        fault = first_fault(spark, copy)
        assert "\n" not in fault, name
        if not fault:
            given = answers(TableStore(spark, copy))
            assert {key: given[key] for key in given if key in expected}.items() <= expected.items()
            harmless.append(name)
        shutil.rmtree(lake)
    assert len(harmless) < len(tried) / 5, harmless
