"""jobs/vacuum.py deletes only files that no needed table version reads. Most tests need Spark."""

import os
import re
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from jobs import train
from jobs import vacuum as job
from pipelines.errors import InputError, IntegrityError
from pipelines.lake import ledger
from pipelines.lake.commits import Commit
from pipelines.lake.frames import content_hash
from pipelines.lake.snapshot import snapshot_of
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from pipelines.operate.vacuum import (
    RECENT,
    Pin,
    pins_of_model,
    plain_path,
    require_known,
    summary,
    versions_kept,
)
from pipelines.tracking import runs
from pipelines.tracking.model_table import ModelRecord
from pipelines.tracking.store import connect
from schemas import GOLD_REJECTS, GOLD_REVIEWS, OPS_RUNS, SILVER_REVIEWS
from tests.support.preload import library
from tests.support.registered import register_tiny
from tests.support.small_gold import TRAIN, encoder_in, gold_rows, train_rows

ROOT = Path(__file__).resolve().parents[2]

MODEL = ModelRecord("m", 2, "r1", 5, 4, None, "h", "a" * 64, [])
PINS = [Pin("gold.reviews", 2, "m version 1"), Pin("gold.reviews", 6, RECENT)]


def test_a_model_pins_its_gold_version_and_the_recorded_upstream_versions() -> None:
    assert pins_of_model(MODEL) == [
        Pin("gold.reviews", 5, "m version 2"),
        Pin("silver.reviews", 4, "m version 2"),
    ]


@pytest.mark.parametrize(
    ("forget", "expected"),
    [("", {2, 6}), ("0-1", {2, 3, 4, 5, 6}), ("3", {0, 1, 2, 4, 5, 6}), ("3-5", {0, 1, 2, 6})],
)
def test_the_pinned_versions_are_kept_or_all_except_the_forgotten_ones(
    forget: str, expected: set[int]
) -> None:
    assert versions_kept("gold.reviews", forget, 6, PINS) == expected


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        (
            "0-3",
            r"gold\.reviews versions still needed: version 2 \(m version 1\)\. Nothing was",
        ),
        ("6", r"needed: version 6 \(latest or recent\)\. Nothing was deleted\."),
        ("7", r"--forget must name versions from 0 to 6, the lower one first, got 7"),
        ("5-3", r"--forget must name versions from 0 to 6, the lower one first, got 5-3"),
    ],
)
def test_forgetting_a_needed_version_or_an_unknown_one_is_refused(forget: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        versions_kept("gold.reviews", forget, 6, PINS)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a%20b/c.parquet", "file:/a b/c.parquet"),
        ("file:/a/c.parquet", "file:/a/c.parquet"),
        ("s3a://bucket/a%20b", "s3a://bucket/a b"),
    ],
)
def test_paths_are_compared_in_one_spelling(uri: str, path: str) -> None:
    assert plain_path(uri) == path


def test_the_summary_lists_the_needed_versions_with_reasons() -> None:
    pins = [
        Pin("t", 6, RECENT),
        Pin("t", 2, "m version 1"),
        Pin("t", 2, "m version 1"),
        Pin("t", 2, "run x, keep"),
    ]
    needed = "needed: version 2 (m version 1, run x, keep); version 6 (latest or recent)"
    planned = summary("t", pins, n_files=3, n_bytes=4_096, is_dry_run=True)
    assert planned == f"t: 3 files, 4,096 bytes would be deleted; {needed}"
    deleted = summary("t", pins, n_files=0, n_bytes=0, is_dry_run=False)
    assert deleted == f"t: 0 files, 0 bytes deleted; {needed}"


def rewrite(store: TableStore, n_versions: int) -> None:
    """Write versions 1 to n of gold.rejects, which share no rows."""
    for number in range(1, n_versions + 1):
        rows = [(f"{number}-{row}", "unlabelled") for row in range(3)]
        store.synchronise(GOLD_REJECTS, store.spark.createDataFrame(rows, GOLD_REJECTS.schema))


def rows_at(store: TableStore, version: int) -> int:
    return store.read(GOLD_REJECTS, version).where(f"review_id LIKE '{version}-%'").count()


def data_files(store: TableStore) -> set[Path]:
    return set(Path(store.config.location(GOLD_REJECTS)).glob("*.parquet"))


def files_of_rows_and_changes(store: TableStore) -> set[Path]:
    changes = Path(store.config.location(GOLD_REJECTS), "_change_data")
    return data_files(store) | set(changes.glob("*.parquet"))


@pytest.fixture
def client(store: TableStore) -> MlflowClient:
    return connect(store.config)


@pytest.mark.slow
def test_the_version_of_a_kept_run_stays_and_files_of_other_versions_are_deleted(
    store: TableStore, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(store, 5)
    tags = {"delta.table": "gold.rejects", "delta.version": "2", "keep": "true"}
    with runs.tracked(client, store.config, "tests", {}, tags) as run_id:
        pass
    place = ["--lake", store.config.lake, "--older-than-hours", "0"]
    before = files_of_rows_and_changes(store)
    hash_2 = content_hash(store.read(GOLD_REJECTS, 2))

    job.main([*place, "--dry-run"])
    report = capsys.readouterr().out
    reasons = f"version 2 (run {run_id}, keep); version 5 (latest or recent)"
    assert f"bytes would be deleted; needed: {reasons}" in report
    assert files_of_rows_and_changes(store) == before

    job.main(place)
    deleted = before - files_of_rows_and_changes(store)
    size = report.split("gold.rejects: ")[1].split(" files, ")[1].split(" bytes")[0]
    expected = f"gold.rejects: {len(deleted)} files, {size} bytes deleted"
    assert expected in capsys.readouterr().out
    assert len(deleted) >= 3  # versions 1, 3 and 4, and changes
    assert rows_at(store, 2) == 3
    assert rows_at(store, 5) == 3
    assert content_hash(store.read(GOLD_REJECTS, 2)) == hash_2
    assert store.version(GOLD_REJECTS) == 5  # a vacuum adds no version
    with pytest.raises(Exception, match="FAILED_READ_FILE"):
        rows_at(store, 3)

    job.main(place)
    assert "gold.rejects: 0 files, 0 bytes deleted" in capsys.readouterr().out


def test_files_younger_than_the_limit_stay(
    store: TableStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(store, 3)
    before = data_files(store)
    job.main(["--lake", store.config.lake])
    assert "gold.rejects: 0 files, 0 bytes deleted" in capsys.readouterr().out
    assert data_files(store) == before


@pytest.mark.slow
def test_forgetting_a_model_s_version_is_refused_until_the_model_is_deleted(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    for rows in ([("a", "b")], [("c", "d")], [("e", "f")]):
        frame = store.spark.createDataFrame(rows, "x string, text string")
        store.synchronise(GOLD_REVIEWS, train_rows(frame))
    register_tiny(store, client, tmp_path, ["good film"], gold_version=2)
    place = ["--lake", store.config.lake, "--table", "gold.reviews", "--older-than-hours", "0"]
    words = r"needed: version 2 \(review_classifier version 1\)\. Nothing was deleted\. To forget"
    with pytest.raises(InputError, match=words):
        job.main([*place, "--forget", "1-2"])
    job.main([*place, "--forget", "1"])
    job.main([*place, "--forget", "1"])  # already deleted, which is no error
    assert store.read(GOLD_REVIEWS, 2).count() == 1
    client.delete_model_version("review_classifier", "1")
    job.main([*place, "--forget", "1-2"])
    words = r"gold\.reviews version 2: a data file cannot be read\. jobs/doctor\.py"
    with pytest.raises(IntegrityError, match=words), snapshot_of(store, 2):
        raise AssertionError("read")
    assert store.read(GOLD_REVIEWS).count() == 1


def test_a_missing_file_of_a_needed_version_stops_the_vacuum_before_it_deletes(
    store: TableStore, client: MlflowClient
) -> None:
    rewrite(store, 2)
    lost = min(data_files(store), key=lambda file: file.stat().st_mtime_ns)
    tags = {"delta.table": "gold.rejects", "delta.version": "1", "keep": "true"}
    with runs.tracked(client, store.config, "tests", {}, tags):
        lost.unlink()
    left = data_files(store)
    words = r"^gold\.rejects: missing data file .*\.parquet, which a needed version"
    with pytest.raises(IntegrityError, match=words):
        job.main(["--lake", store.config.lake, "--older-than-hours", "0"])
    assert data_files(store) == left


@pytest.mark.parametrize(
    ("live", "known", "names", "words"),
    [
        ({("m", 1)}, {("m", 1)}, {"m"}, ""),
        (set(), {("m", 1)}, {"m"}, ""),  # deleted on purpose
        (set(), set(), set(), ""),
        ({("m", 2)}, {("m", 1)}, {"m"}, "m version 2 in the registry only"),
        (set(), {("m", 1), ("m", 2)}, set(), "m in ops.models only"),
    ],
)
def test_nothing_is_deleted_if_registry_and_ops_models_do_not_match(
    live: set[tuple[str, int]], known: set[tuple[str, int]], names: set[str], words: str
) -> None:
    fault: AbstractContextManager[Any] = nullcontext()
    if words:
        message = f"do not match: {re.escape(words)}. Nothing was deleted; jobs/doctor.py"
        fault = pytest.raises(IntegrityError, match=message)
    with fault:
        require_known(live, known, names)


def test_a_lost_registry_stops_the_vacuum(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    rewrite(store, 3)
    register_tiny(store, client, tmp_path, ["good film"])
    # The effect of a new mlflow.db in place of a lost one.
    client.delete_registered_model("review_classifier")
    before = data_files(store)
    with pytest.raises(IntegrityError, match=r"review_classifier in ops\.models only"):
        job.main(["--lake", store.config.lake, "--older-than-hours", "0"])
    assert data_files(store) == before


def test_a_version_current_within_the_limit_stays_even_if_its_files_are_old(
    store: TableStore, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(store, 3)
    for file in data_files(store):
        os.utime(file, (0, 0))
    job.main(["--lake", store.config.lake, "--older-than-hours", "1"])
    assert "gold.rejects: 0 files, 0 bytes deleted" in capsys.readouterr().out
    assert [rows_at(store, version) for version in (1, 2, 3)] == [3, 3, 3]


def test_old_leftovers_of_killed_runs_in_the_landing_directory_are_deleted(
    store: TableStore,
) -> None:
    landing = store.config.landing_path
    for left in ("staging/clean-0", "ingest-1", "snapshot-2", "staging/young", "delivered"):
        (landing / left).mkdir(parents=True)
        os.utime(landing / left, None if left.endswith("young") else (0, 0))
    job.main(["--lake", store.config.lake, "--older-than-hours", "1"])
    assert sorted(path.name for path in landing.glob("*")) == ["delivered", "staging"]
    assert [path.name for path in landing.glob("staging/*")] == ["young"]


def test_the_listing_holds_data_files_only(store: TableStore) -> None:
    rewrite(store, 1)
    listed = {row.path for row in vacuum.data_files(store, GOLD_REJECTS).collect()}
    assert listed == {f"file:{file}" for file in data_files(store)}
    assert len(listed) >= 1


def job_in_400_days(name: str, clock: Path, *argv: str) -> str:
    environment = os.environ | {"LD_PRELOAD": str(clock), "CLOCK_AHEAD_S": str(400 * 86_400)}
    command = [sys.executable, f"jobs/{name}.py", *argv]
    process = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.stress
@pytest.mark.timeout(1_200)
def test_after_50_versions_400_days_and_a_vacuum_the_champion_is_reproduced_bit_for_bit(
    store: TableStore, client: MlflowClient, tmp_path: Path
) -> None:
    store.append(GOLD_REVIEWS, gold_rows(store, 0, 64))
    place = ["--lake", store.config.lake]
    train.main([*place, *TRAIN, "--backbone", encoder_in(tmp_path / "encoder")])
    client.set_registered_model_alias("review_classifier", "champion", "1")
    for _ in range(49):
        store.spark.sql("UPDATE gold.reviews SET n_tokens = n_tokens + 1")
    assert store.version(GOLD_REVIEWS) == 50
    before = set(Path(store.config.location(GOLD_REVIEWS)).glob("*.parquet"))

    clock = library("clock", tmp_path)
    report = job_in_400_days("vacuum", clock, *place)
    reasons = "version 1 (review_classifier version 1); version 50 (latest or recent)"
    assert f"needed: {reasons}" in report
    left = set(Path(store.config.location(GOLD_REVIEWS)).glob("*.parquet"))
    needed = {row.path for row in vacuum.files_read_by(store, GOLD_REVIEWS, [1, 50]).collect()}
    assert {f"file:{file}" for file in left} == needed
    assert len(before - left) >= 48
    for version in (2, 25, 49):
        with pytest.raises(Exception, match="FAILED_READ_FILE"):
            store.read(GOLD_REVIEWS, version).collect()

    verdict = job_in_400_days("reproduce", clock, "models:/review_classifier@champion", *place)
    assert verdict.splitlines()[-1] == "verdict  bit-identical"


def finish_curate(store: TableStore) -> None:
    """Write the ledger's row of a curate that left gold.rejects as it is."""
    run = ledger.start("curate", job.VacuumConfig(lake=store.config), {})
    left = Commit(GOLD_REJECTS, store.version(GOLD_REJECTS), 0)
    ledger.finish(store, run, [left], {})


def change_files(store: TableStore) -> set[str]:
    return {file.name for file in Path(store.config.location(GOLD_REJECTS)).glob("*/cdc-*.parquet")}


def test_files_of_changes_go_once_each_stage_has_read_them(store: TableStore) -> None:
    argv = ["--lake", store.config.lake, "--older-than-hours", "0"]
    rewrite(store, 2)
    read = change_files(store)
    assert read != set()
    finish_curate(store)
    rewrite(store, 3)  # later versions, which no run has recorded
    unread = change_files(store) - read
    assert unread != set()
    job.main(argv)
    assert change_files(store) == unread
    finish_curate(store)
    job.main(argv)
    assert change_files(store) == set()


def test_after_a_vacuum_only_the_last_run_of_a_stage_can_be_gone_on_from(
    store: TableStore,
) -> None:
    rewrite(store, 2)

    def run_of(version: int, hours: float) -> ledger.Run:
        config = job.VacuumConfig(older_than_hours=hours, lake=store.config)
        return ledger.start("curate", config, {SILVER_REVIEWS.name: version})

    def base_of(hours: float) -> int | None:
        base = ledger.base_of(store, run_of(9, hours), SILVER_REVIEWS)
        return base.since if base else None

    left = Commit(GOLD_REJECTS, store.version(GOLD_REJECTS), 0)
    ledger.finish(store, run_of(3, 1.0), [left], {})  # of other settings
    ledger.finish(store, run_of(4, 2.0), [left], {})
    assert (base_of(1.0), base_of(2.0), base_of(3.0)) == (3, 4, None)
    job.main(["--lake", store.config.lake, "--older-than-hours", "0"])
    assert store.read(OPS_RUNS).where("stage = 'vacuum'").count() == 1
    assert (base_of(1.0), base_of(2.0), base_of(3.0)) == (None, 4, None)
