"""The session checks its flags, Java, disk and jars, and is safe by default. Needs Spark."""

import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pyspark
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import SparkSession

from pipelines.errors import InputError, SetupError
from pipelines.lake.config import LakeConfig
from pipelines.lake.jars import DELTA_FOR_SPARK, delta_for, jar_settings
from pipelines.lake.locks import set_neutral_locale
from pipelines.lake.session import (
    SAFETY_SETTINGS,
    SUBSTITUTION,
    _start_fault,
    check_disk,
    check_java,
    check_server,
    get_session,
    java_version,
    require_ascii_digits,
    spark_defaults,
)
from tests.support.processes import own_environment

DiskUsage = namedtuple("DiskUsage", "total used free")
LANDING_NEEDED = (
    "--catalog needs --landing: a directory, without scheme, "
    "that the driver and all workers can read, got ''"
)
NO_JAVA = (
    r"^java: not found on PATH or in JAVA_HOME\. "
    r"Install a Java runtime \(JRE\) of version 17\.$"
)
OLD_JAVA = r"^java: expected Java 17 or later, found 11\. Point JAVA_HOME to a newer one\.$"


@pytest.mark.parametrize(
    ("catalog", "words"),
    [
        ("a.b", r"--catalog must be ASCII letters, digits and _, but no number, got 'a\.b'"),
        ("dev", LANDING_NEEDED),
    ],
)
def test_a_catalog_needs_a_valid_name_and_a_landing_directory(catalog: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LakeConfig(catalog=catalog)
    assert not LakeConfig(catalog="dev", landing="/Volumes/x").is_local
    assert LakeConfig(lake="/l").landing_path == Path("/l/landing")


@pytest.mark.parametrize("character", list("*?[]{}\\"))
def test_a_path_that_spark_would_read_as_a_pattern_is_refused(character: str) -> None:
    words = "--lake and --landing must not contain " + re.escape(character)
    for lake, landing in ((f"/l{character}", ""), ("/l", f"/x{character}y")):
        with pytest.raises(ValueError, match=words):
            LakeConfig(lake=lake, landing=landing)
    assert LakeConfig(lake="/a lake, (mine) #1 50%").is_local


@pytest.mark.parametrize(
    ("remote", "words"),
    [
        (
            "sc://h:99999",
            r"^SPARK_REMOTE sc://h:99999: expected sc://host:port, found: Port out of",
        ),
        ("sc://[bad", r"^SPARK_REMOTE sc://\[bad: expected sc://host:port, found: Invalid IPv6"),
        (
            "sc://h:abc/;token=secret",
            r"^SPARK_REMOTE sc://h:abc: expected sc://host:port, found: Po",
        ),
        (f"sc://{'h' * 64}.x", r"expected sc://host:port, found: .*label (empty or )?too long"),
        ("sc://127.0.0.1:9", r"^SPARK_REMOTE sc://127\.0\.0\.1:9: no Spark Connect server answers"),
    ],
)
def test_a_server_that_cannot_be_reached_is_an_error_with_advice(remote: str, words: str) -> None:
    with pytest.raises(SetupError, match=words) as caught:
        check_server(remote)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("version", "words"), [(None, NO_JAVA), (11, OLD_JAVA)])
def test_a_missing_or_old_java_is_an_error_with_advice(version: int | None, words: str) -> None:
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
@pytest.mark.parametrize("is_in_java_home", [True, False])
def test_the_version_is_that_of_the_java_that_spark_would_start(
    answer: str,
    version: int | None,
    is_in_java_home: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere" if is_in_java_home else str(program.parent))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path) if is_in_java_home else "")
    assert java_version() == version


def test_a_machine_without_java_has_no_java_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert java_version() is None
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "missing"))
    assert java_version() is None


def test_a_full_disk_and_a_path_below_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    words = r"file/lake: cannot be created: Not a directory\. Pass another --l"
    with pytest.raises(SetupError, match=words):
        check_disk(tmp_path / "file" / "lake")
    check_disk(tmp_path / "lake")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(10, 9, 300_000_000))
    words = r"lake: expected 2 GB free, found 0\.3 GB\. Free some space, or pass --lake"
    with pytest.raises(SetupError, match=words):
        get_session("tests", LakeConfig(lake=str(tmp_path / "lake")))


def test_a_jar_directory_must_hold_both_jars(tmp_path: Path) -> None:
    directory = str(tmp_path)
    words = rf"^--jars {tmp_path}: expected {', '.join(delta_for().jars)}, found no jar\.$"
    with pytest.raises(InputError, match=words):
        jar_settings(directory)
    first = tmp_path / delta_for().jars[0]
    first.touch()
    with pytest.raises(InputError, match=rf", found {delta_for().jars[0]}\.$"):
        jar_settings(directory)
    second = tmp_path / f"io.delta_{delta_for().jars[1]}"  # as Ivy names its files
    second.touch()
    assert jar_settings(directory) == {"spark.jars": f"{first},{second}"}


def test_the_error_of_a_failed_start_says_what_to_do() -> None:
    error = PySparkException("[JAVA_GATEWAY_EXITED] Java gateway exited.\nmore")
    words = ": [JAVA_GATEWAY_EXITED] Java gateway exited. Java's own message is above."
    assert words in _start_fault(error, is_submitted=False)
    advice = "Run spark-submit --properties-file spark-defaults.conf"
    assert advice in _start_fault(error, is_submitted=True)


def test_each_version_of_spark_has_its_delta() -> None:
    assert delta_for("4.2.0") == ("delta-spark_4.2_2.13", "4.4.0")
    assert delta_for("4.0.1") == ("delta-spark_2.13", "4.0.1")
    known = " or ".join(DELTA_FOR_SPARK)
    with pytest.raises(SetupError, match=rf"^pyspark: expected {known}, found 3\.5\.9\. Install"):
        delta_for("3.5.9")


def test_a_server_or_databricks_may_have_a_spark_for_which_we_know_no_delta() -> None:
    program = (
        "import pyspark; pyspark.__version__ = '4.1.0'; import pipelines.lake.session as session\n"
        "try: session.jar_settings('')\n"
        "except session.SetupError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.stdout.startswith("pyspark: expected 4.0 or 4.2, found 4.1.0."), answer.stderr


@pytest.mark.skipif(not pyspark.__version__.startswith("4.2."), reason="the file is for Spark 4.2")
def test_the_properties_file_of_spark_submit_holds_the_settings_of_the_code() -> None:
    file = Path(__file__).resolve().parents[2] / "spark-defaults.conf"
    assert file.read_text(encoding="utf-8") == spark_defaults(), "stale; run make generated"


def test_the_session_listens_on_this_machine_only(spark: SparkSession) -> None:
    settings = dict(spark.sparkContext.getConf().getAll())
    assert settings["spark.driver.bindAddress"] == settings["spark.driver.host"] == "127.0.0.1"
    assert settings["spark.ui.enabled"] == "false"
    assert spark.sparkContext.uiWebUrl is None
    assert settings["spark.master"].endswith(",4]")
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"


def test_sql_does_not_read_files_by_their_path(spark: SparkSession) -> None:
    with pytest.raises(AnalysisException, match=r"TABLE_OR_VIEW_NOT_FOUND|SCHEMA_NOT_FOUND"):
        spark.sql("SELECT * FROM text.`/etc/passwd`").collect()


def test_variables_in_sql_are_not_substituted(spark: SparkSession) -> None:
    assert f"{SUBSTITUTION} false" in spark_defaults()
    assert SUBSTITUTION in SAFETY_SETTINGS  # those of a session that somebody else started
    assert spark.sql("SELECT '${env:HOME}' AS a").collect()[0]["a"] == "${env:HOME}"


@pytest.mark.parametrize("language", ["fa", "ar-EG", "th-TH-u-nu-thai"])
def test_a_jvm_that_would_write_numbers_in_other_digits_is_mended_or_refused(
    spark: SparkSession, language: str
) -> None:
    locale = vars(spark)["_jvm"].java.util.Locale
    locale.setDefault(locale.forLanguageTag(language))
    try:
        with pytest.raises(SetupError, match=r"^spark: expected a locale with the digits 0-9"):
            require_ascii_digits(spark)  # a server of somebody else
    finally:
        set_neutral_locale(spark)  # a JVM of our own
    require_ascii_digits(spark)


def test_a_flipped_bit_in_a_data_page_is_an_error(spark: SparkSession, tmp_path: Path) -> None:
    directory = tmp_path / "numbers"
    numbers = spark.range(2_000).selectExpr("xxhash64(id) AS n").coalesce(1)
    numbers.write.option("compression", "none").parquet(str(directory))
    for checksum_file in directory.glob(".*.crc"):  # Hadoop's own; an object store has none
        checksum_file.unlink()
    reading = spark.read.parquet(str(directory)).selectExpr("bit_xor(n)")
    reading.collect()  # the intact file is read without an error
    file = next(directory.glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises((PySparkException, Py4JJavaError), match="CRC checksum verification failed"):
        spark.read.parquet(str(directory)).selectExpr("bit_xor(n)").collect()


START = """
from pipelines.lake.config import LakeConfig
from pipelines.lake.session import get_session
get_session("quiet", LakeConfig(lake={lake!r}))
"""


def start_elsewhere(lake: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a session in a process of its own, with these environment variables."""
    return subprocess.run(
        [sys.executable, "-c", START.format(lake=str(lake))],
        cwd=Path(__file__).resolve().parents[2],
        env=own_environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_session_starts_without_a_word_on_stderr(tmp_path: Path) -> None:
    started = start_elsewhere(tmp_path / "lake")
    assert (started.returncode, started.stderr) == (0, "")


def test_the_message_of_a_java_that_does_not_start_comes_before_the_error(tmp_path: Path) -> None:
    (tmp_path / "spark-env.sh").write_text("echo much >&2; exit 1\n")
    failed = start_elsewhere(tmp_path / "lake", SPARK_CONF_DIR=str(tmp_path))
    java, _, ours = failed.stderr.partition("Traceback")
    assert failed.returncode == 1
    assert "much" in java
    assert "Java's own message is above" in ours
