import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession

from pipelines.errors import InputError, SetupError
from pipelines.lake.config import LakeConfig
from pipelines.lake.jars import DELTA_JARS, jar_settings
from pipelines.lake.session import (
    _start_fault,
    check_disk,
    check_java,
    get_session,
    java_version,
    spark_defaults,
)

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("catalog", "words"),
    [
        ("a.b", r"--catalog must be letters, digits and _, got 'a\.b'"),
        (
            "dev",
            r"--catalog needs --landing: a directory, without scheme, that the driver and all workers can read, got ''",
        ),
    ],
)
def test_a_catalog_is_a_name_with_a_landing_place(catalog: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LakeConfig(catalog=catalog)
    assert not LakeConfig(catalog="dev", landing="/Volumes/x").is_local
    assert LakeConfig(lake="/l").landing_path == Path("/l/landing")


@pytest.mark.parametrize("character", list("*?[]{}\\"))
def test_a_path_that_spark_would_read_as_a_pattern_is_refused(character: str) -> None:
    for lake, landing in ((f"/l{character}", ""), ("/l", f"/x{character}y")):
        with pytest.raises(
            ValueError, match="--lake and --landing must be free of " + re.escape(character)
        ):
            LakeConfig(lake=lake, landing=landing)
    assert LakeConfig(lake="/a lake, (mine) #1 50%").is_local


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (
            None,
            r"^java: expected Java 17 or later on PATH or in JAVA_HOME, found none\. Install a JRE 17\.$",
        ),
        (11, r"^java: expected Java 17 or later, found 11\. Point JAVA_HOME to a newer one\.$"),
    ],
)
def test_java_that_spark_does_not_start_on_is_named(version: int | None, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        check_java(version)
    check_java(17)


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ('openjdk version "17.0.9" 2023-10-17', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21-ea" 2023-09-19', 21),
        ("no such thing", None),
    ],
)
@pytest.mark.parametrize("is_home", [True, False])
def test_the_version_is_that_of_the_java_that_spark_would_start(
    answer: str, version: int | None, is_home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere" if is_home else str(program.parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path) if is_home else "")
    assert java_version() == version


def test_no_java_anywhere_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert java_version() is None
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    assert java_version() is None


def test_a_full_disk_and_a_place_that_is_no_directory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        SetupError,
        match=r"file/lake: expected a directory to write, found Not a directory\. Pass --l",
    ):
        check_disk(tmp_path / "file" / "lake")
    check_disk(tmp_path / "lake")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 300_000_000))
    with pytest.raises(
        SetupError,
        match=r"lake: expected 2 GB free, found 0\.3 GB\. Free some space, or pass --lake",
    ):
        get_session("tests", LakeConfig(lake=str(tmp_path / "lake")))


def test_a_jar_directory_must_hold_both_jars(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"^--jars {tmp_path}: expected {', '.join(DELTA_JARS)}, found no jar\.$"
    ):
        jar_settings(str(tmp_path))
    (tmp_path / DELTA_JARS[0]).touch()
    with pytest.raises(InputError, match=rf", found {DELTA_JARS[0]}\.$"):
        jar_settings(str(tmp_path))
    (tmp_path / f"io.delta_{DELTA_JARS[1]}").touch()  # as Ivy names them
    jars = [str(tmp_path / DELTA_JARS[0]), str(tmp_path / f"io.delta_{DELTA_JARS[1]}")]
    assert jar_settings(str(tmp_path)) == {"spark.jars": ",".join(jars)}


def test_a_start_that_fails_says_what_to_do() -> None:
    fault = PySparkException("[JAVA_GATEWAY_EXITED] Java gateway exited.\nmore")
    assert (
        "found: [JAVA_GATEWAY_EXITED] Java gateway exited. Java's own message stands above"
        in _start_fault(fault, is_submitted=False)
    )
    assert "Run spark-submit --properties-file spark-defaults.conf" in _start_fault(
        fault, is_submitted=True
    )


def test_spark_submit_reads_the_settings_of_the_code() -> None:
    stored = (Path(__file__).resolve().parents[2] / "spark-defaults.conf").read_text(
        encoding="utf-8"
    )
    assert stored == spark_defaults(), "stale; run make generated"


def test_the_session_keeps_to_this_machine(spark: SparkSession) -> None:
    settings = dict(spark.sparkContext.getConf().getAll())
    assert settings["spark.driver.bindAddress"] == settings["spark.driver.host"] == "127.0.0.1"
    assert settings["spark.ui.enabled"] == "false"
    assert spark.sparkContext.uiWebUrl is None
    assert settings["spark.master"].endswith(",4]")
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"


def test_sql_does_not_read_files_by_their_path(spark: SparkSession) -> None:
    with pytest.raises(AnalysisException, match=r"TABLE_OR_VIEW_NOT_FOUND|SCHEMA_NOT_FOUND"):
        spark.sql("SELECT * FROM text.`/etc/passwd`").collect()


def test_a_flipped_bit_in_a_data_page_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    place = str(tmp_path / "numbers")
    spark.range(2_000).selectExpr("xxhash64(id) AS n").coalesce(1).write.option(
        "compression", "none"
    ).parquet(place)
    for side_file in Path(place).glob(
        ".*.crc"
    ):  # Hadoop's own check, which an object store does not have
        side_file.unlink()
    spark.read.parquet(place).selectExpr("bit_xor(n)").collect()  # whole, it is read
    file = next(Path(place).glob("*.parquet"))
    stored = bytearray(file.read_bytes())
    stored[len(stored) // 2] ^= 1
    file.write_bytes(stored)
    with pytest.raises((PySparkException, Py4JJavaError), match="CRC checksum verification failed"):
        spark.read.parquet(place).selectExpr("bit_xor(n)").collect()
