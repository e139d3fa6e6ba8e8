"""Tables under another file system's scheme: Hadoop's viewfs over a local disk stands in for an object store."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.errors import InputError
from pipelines.lake import locks
from pipelines.lake.config import LakeConfig
from pipelines.lake.locks import MULTI_CLUSTER, require_atomic
from pipelines.lake.tables import Commit, TableStore
from pipelines.operate import vacuum
from pipelines.tracking.store import connect
from schemas import GOLD_REJECTS, TABLES, VIEWS
from tests.support.every_job import FEW, LINKS, encoder_in, run_every_job

DYNAMO = {"spark.delta.logStore.s3a.impl": MULTI_CLUSTER}


def session_with(settings: Mapping[str, str]) -> Any:
    """What a session has of what the policy asks for."""

    class Session:
        class conf:  # noqa: N801
            get = staticmethod(lambda name, default: settings.get(name, default))

    return Session()


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "adl", "gs", "hdfs", "wasb", "wasbs", "ABFSS"])
def test_a_store_that_commits_atomically_may_be_written(scheme: str) -> None:
    require_atomic(session_with({}), f"{scheme}://bucket/lake")


@pytest.mark.parametrize(
    ("lake", "settings", "words"),
    [
        (
            "s3a://b/l",
            {},
            r"found s3a under Delta's log store for a single driver.* Set spark\.delta\.logStore\.s3a\.",
        ),
        (
            "s3://b/l",
            DYNAMO,
            "found s3 under Delta's log store for a single driver",
        ),  # the setting is another scheme's
        ("s3n://b/l", {}, "found s3n under"),
        ("s3a://b/l", {"spark.delta.logStore.s3a.impl": "another.Store"}, "found s3a under"),
        (
            "viewfs://l/l",
            {},
            r"found the scheme viewfs, of which that is not known\. Nothing was written\. Use a cat",
        ),
        ("oci://b/l", {}, "found the scheme oci, of which that is not known"),
    ],
)
def test_a_store_that_may_lose_a_commit_is_refused_with_what_to_do(
    lake: str, settings: Mapping[str, str], words: str
) -> None:
    with pytest.raises(
        InputError,
        match=rf"^--lake {lake}: expected a store that lets one of two commits win, {words}",
    ):
        require_atomic(session_with(settings), lake)


def test_s3_may_be_written_through_the_log_store_for_several_clusters() -> None:
    require_atomic(session_with(DYNAMO), "s3a://bucket/lake")


@pytest.mark.parametrize("landing", ["", "abfss://c@a/landing", "file:/landing"])
def test_tables_in_a_store_need_a_landing_directory(landing: str) -> None:
    words = r"^--lake abfss://c@a/lake needs --landing: a directory, without scheme, that the driver and all workers"
    with pytest.raises(ValueError, match=words):
        LakeConfig(lake="abfss://c@a/lake", landing=landing)


@pytest.mark.parametrize(
    "lake", ["/tmp/lake", "file:/tmp/lake", "file:///tmp/lake", "FILE:/tmp/lake"]
)
def test_a_file_uri_is_a_directory(lake: str) -> None:
    config = LakeConfig(lake=lake)
    assert (config.is_local, config.lake_path, config.where) == (
        True,
        Path("/tmp/lake"),
        "/tmp/lake",
    )


def test_models_of_tables_in_a_store_are_kept_where_mlflows_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(
        InputError, match=r"^--lake gs://b/l: expected MLFLOW_TRACKING_URI to name an MLflow server"
    ):
        connect(LakeConfig(lake="gs://b/l", landing=str(tmp_path)))


@pytest.fixture
def stored(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeConfig:
    """A lake under viewfs://, whose targets are directories here; the test takes it for a store that is known."""
    (tmp_path / "disk").mkdir()
    mount = f"m{uuid.uuid4().hex}"  # Hadoop keeps a file system for as long as its JVM runs
    spark.conf.set(f"fs.viewfs.mounttable.{mount}.link./lakes", (tmp_path / "disk").as_uri())
    monkeypatch.setattr(locks, "ATOMIC", locks.ATOMIC | {"viewfs"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return LakeConfig(lake=f"viewfs://{mount}/lakes/one/", landing=str(tmp_path / "landing"))


def test_tables_are_made_found_again_and_written_under_their_uri(
    spark: SparkSession, stored: LakeConfig, tmp_path: Path
) -> None:
    store = TableStore(spark, stored)
    assert not any(store.exists(table) for table in TABLES)
    assert list((tmp_path / "disk").iterdir()) == []  # looking for tables makes none
    for table in TABLES:
        store.create(table)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    assert store.append(GOLD_REJECTS, rows) == Commit(GOLD_REJECTS, 1, 1)
    assert store.synchronise(GOLD_REJECTS, rows.limit(0)) == Commit(GOLD_REJECTS, 2, 0, n_removed=1)
    again = TableStore(spark, stored)
    assert [entry for entry in (*TABLES, *VIEWS) if not again.exists(entry)] == []
    assert (again.version(GOLD_REJECTS), again.read(GOLD_REJECTS, 1).count()) == (2, 1)
    assert again.location(GOLD_REJECTS) == f"{stored.lake}gold/rejects"
    assert (tmp_path / "disk" / "one" / "gold" / "rejects" / "_delta_log").is_dir()
    assert not list(tmp_path.rglob("locks"))
    needed = vacuum.files_read_by(again, GOLD_REJECTS, [1])
    assert needed.count() == 1
    vacuum.require_present(again, GOLD_REJECTS, needed)
    with pytest.raises(
        InputError,
        match=r"silver\.reviews: expected a table in viewfs://\S+/lakes/other, found none",
    ):
        TableStore(
            spark, LakeConfig(lake=stored.lake.replace("one/", "other"), landing=stored.landing)
        ).latest(TABLES[1])


def test_a_store_that_is_not_known_is_read_but_not_written(
    spark: SparkSession, stored: LakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TableStore(spark, stored)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    store.append(GOLD_REJECTS, rows)
    monkeypatch.undo()
    careful = TableStore(spark, stored)
    assert careful.read(GOLD_REJECTS).count() == 1
    for write in (careful.append, careful.merge, careful.synchronise):
        with pytest.raises(
            InputError, match=r"the scheme viewfs, of which that is not known\. Nothing was written"
        ):
            write(GOLD_REJECTS, rows)
    assert careful.version(GOLD_REJECTS) == 1


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_every_job_works_with_tables_in_a_store(stored: LakeConfig, tmp_path: Path) -> None:
    place = ["--lake", stored.lake, "--landing", stored.landing]
    printed = run_every_job(place, encoder_in(tmp_path / "encoder"))
    assert printed["query"] == f"n,{','.join(LINKS)}\n{','.join([str(FEW)] * (len(LINKS) + 1))}\n"
    assert printed["promote"].startswith("GateRefusedError: review_classifier version 1: ")
    assert printed["reproduce"].endswith("verdict  bit-identical\n")
    assert printed["vacuum"].startswith(
        "bronze.reviews: 0 files, 0 bytes deleted; needed: version 1 (latest or"
    )
    assert printed["doctor"] == ""
    assert {path.name for path in (tmp_path / "disk" / "one").iterdir()} == {
        "bronze",
        "silver",
        "gold",
        "ops",
    }
