"""Tables live in object storage; unsafe stores are refused. Needs Spark, a tiny encoder.

Hadoop's viewfs over a local disk stands in for an object store.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.errors import InputError
from pipelines.lake import locks
from pipelines.lake.commits import Commit
from pipelines.lake.config import LakeConfig
from pipelines.lake.locks import MULTI_CLUSTER, require_atomic
from pipelines.lake.tables import TableStore
from pipelines.operate import vacuum
from pipelines.tracking.store import connect
from schemas import GOLD_REJECTS, TABLES, VIEWS
from tests.support.every_job import FULL_LINEAGE, encoder_of_reviews, run_every_job

DYNAMO = {"spark.delta.logStore.s3a.impl": MULTI_CLUSTER}
OTHER_LOG_STORE = {"spark.delta.logStore.s3a.impl": "another.Store"}
SINGLE_DRIVER = "under Delta's log store for a single driver"
UNKNOWN = r"of which that is not known"


def session_with(settings: Mapping[str, str]) -> Any:
    """Return a stand-in for a Spark session with these settings: the check reads nothing else."""
    return SimpleNamespace(
        conf=SimpleNamespace(get=lambda name, default: settings.get(name, default))
    )


@pytest.mark.parametrize("scheme", ["abfs", "abfss", "adl", "gs", "hdfs", "wasb", "wasbs", "ABFSS"])
def test_a_store_with_atomic_commits_may_be_written(scheme: str) -> None:
    require_atomic(session_with({}), f"{scheme}://bucket/lake")


@pytest.mark.parametrize(
    ("lake", "settings", "words"),
    [
        ("s3a://b/l", {}, rf"found s3a {SINGLE_DRIVER}.* Set spark\.delta\.logStore\.s3a\."),
        ("s3://b/l", DYNAMO, f"found s3 {SINGLE_DRIVER}"),  # DYNAMO is the setting of s3a
        ("s3n://b/l", {}, "found s3n under"),
        ("s3a://b/l", OTHER_LOG_STORE, "found s3a under"),
        (
            "viewfs://l/l",
            {},
            rf"found the scheme viewfs, {UNKNOWN}\. Nothing was written\. Use a cat",
        ),
        ("oci://b/l", {}, f"found the scheme oci, {UNKNOWN}"),
    ],
)
def test_a_store_that_may_lose_a_commit_is_refused_with_advice(
    lake: str, settings: Mapping[str, str], words: str
) -> None:
    start = rf"^--lake {lake}: expected a store that lets one of two commits win, "
    with pytest.raises(InputError, match=start + words):
        require_atomic(session_with(settings), lake)


def test_s3_may_be_written_through_the_log_store_for_several_clusters() -> None:
    require_atomic(session_with(DYNAMO), "s3a://bucket/lake")


@pytest.mark.parametrize("landing", ["", "abfss://c@a/landing", "file:/landing"])
def test_tables_in_a_store_need_a_landing_directory(landing: str) -> None:
    words = (
        r"^--lake abfss://c@a/lake needs --landing: "
        r"a directory, without scheme, that the driver and all workers"
    )
    with pytest.raises(ValueError, match=words):
        LakeConfig(lake="abfss://c@a/lake", landing=landing)


@pytest.mark.parametrize(
    "lake", ["/tmp/lake", "file:/tmp/lake", "file:///tmp/lake", "FILE:/tmp/lake"]
)
def test_a_file_uri_is_a_directory(lake: str) -> None:
    config = LakeConfig(lake=lake)
    assert config.is_local is True
    assert config.lake_path == Path("/tmp/lake")
    assert config.where == "/tmp/lake"


def test_with_tables_in_a_store_mlflows_variable_must_name_the_tracking_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = r"^--lake gs://b/l: expected MLFLOW_TRACKING_URI to name an MLflow server"
    with pytest.raises(InputError, match=words):
        connect(LakeConfig(lake="gs://b/l", landing=str(tmp_path)))


@pytest.fixture
def stored(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeConfig:
    """An empty lake under viewfs://, mounted on a local directory and accepted as atomic."""
    (tmp_path / "disk").mkdir()
    mount = f"m{uuid.uuid4().hex}"  # unique: Hadoop caches a file system until its JVM ends
    spark.conf.set(f"fs.viewfs.mounttable.{mount}.link./lakes", (tmp_path / "disk").as_uri())
    monkeypatch.setattr(locks, "ATOMIC", locks.ATOMIC | {"viewfs"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)  # an earlier test may have left it
    return LakeConfig(lake=f"viewfs://{mount}/lakes/one/", landing=str(tmp_path / "landing"))


def test_tables_are_created_found_again_and_written_under_their_uri(
    spark: SparkSession, stored: LakeConfig, tmp_path: Path
) -> None:
    store = TableStore(spark, stored)
    assert not any(store.exists(table) for table in TABLES)
    assert list((tmp_path / "disk").iterdir()) == []  # looking for tables creates none
    for table in TABLES:
        store.create(table)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    assert store.append(GOLD_REJECTS, rows) == Commit(GOLD_REJECTS, 1, n_added=1)
    emptied = Commit(GOLD_REJECTS, 2, n_added=0, n_removed=1)
    assert store.synchronise(GOLD_REJECTS, rows.limit(0)) == emptied

    reopened = TableStore(spark, stored)
    assert [entry for entry in (*TABLES, *VIEWS) if not reopened.exists(entry)] == []
    assert (reopened.version(GOLD_REJECTS), reopened.read(GOLD_REJECTS, 1).count()) == (2, 1)
    assert reopened.config.location(GOLD_REJECTS) == f"{stored.lake}gold/rejects"
    assert (tmp_path / "disk" / "one" / "gold" / "rejects" / "_delta_log").is_dir()
    assert not list(tmp_path.rglob("locks"))
    files = vacuum.files_read_by(reopened, GOLD_REJECTS, [1])
    assert files.count() == 1
    vacuum.require_present(reopened, GOLD_REJECTS, files)

    other = LakeConfig(lake=stored.lake.replace("one/", "other"), landing=stored.landing)
    words = r"silver\.reviews: no such table in viewfs://\S+/lakes/other"
    with pytest.raises(InputError, match=words):
        TableStore(spark, other).latest(TABLES[1])


def test_an_unknown_store_is_read_but_not_written(
    spark: SparkSession, stored: LakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TableStore(spark, stored)
    rows = spark.createDataFrame([("a", "unlabelled")], GOLD_REJECTS.schema)
    store.append(GOLD_REJECTS, rows)
    monkeypatch.undo()  # viewfs is unknown from here on
    careful = TableStore(spark, stored)
    assert careful.read(GOLD_REJECTS).count() == 1
    words = rf"the scheme viewfs, {UNKNOWN}\. Nothing was written"
    for write in (careful.append, careful.merge, careful.synchronise):
        with pytest.raises(InputError, match=words):
            write(GOLD_REJECTS, rows)
    assert careful.version(GOLD_REJECTS) == 1


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_every_job_works_with_tables_in_a_store(stored: LakeConfig, tmp_path: Path) -> None:
    place = ["--lake", stored.lake, "--landing", stored.landing]
    printed = run_every_job(place, encoder_of_reviews(tmp_path / "encoder"))
    assert printed["query"] == FULL_LINEAGE
    assert printed["promote"].startswith("GateRefusedError: review_classifier version 1: ")
    assert printed["reproduce"].endswith("verdict  bit-identical\n")
    assert printed["vacuum"].startswith(
        "bronze.reviews: 0 files, 0 bytes deleted; needed: version 1 (latest or"
    )
    assert printed["doctor"] == ""
    schemas = {path.name for path in (tmp_path / "disk" / "one").iterdir()}
    assert schemas == {"bronze", "silver", "gold", "ops"}
