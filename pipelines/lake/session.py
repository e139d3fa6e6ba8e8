"""The SparkSession, and what it needs of the machine: Java, disk, loopback; or of a server elsewhere."""

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from pipelines.errors import SetupError
from pipelines.lake.config import LakeConfig
from pipelines.lake.jars import DELTA_PACKAGE, EXCLUDED_MODULES, jar_settings

log = logging.getLogger("reviewlake")

LOG4J = Path(__file__).parent / "log4j2.properties"
REMOTE, CONNECT_PORT = (
    "SPARK_REMOTE",
    15002,
)  # pyspark's own variable; the port where the URL names none
TIME_ZONE = "spark.sql.session.timeZone"
LEAST_JAVA = 17
LEAST_FREE_BYTES = 2_000_000_000  # the demo's lake takes about 600 MB; Spark spills beside it

# What must be set before the JVM starts, hence also in spark-defaults.conf for spark-submit.
SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.catalogImplementation": "in-memory",  # no Derby: a second process would wait for its lock
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.ui.enabled": "false",  # it listens on all interfaces unless SPARK_LOCAL_IP says otherwise
    "spark.log.level": "FATAL",  # a failed task prints its row, so a review; errors reach the user as exceptions
    "spark.driver.extraJavaOptions": "-Dlog4j2.configurationFile=pipelines/lake/log4j2.properties",
    TIME_ZONE: "UTC",
    "spark.sql.shuffle.partitions": "4",  # 200 and 50 by default: most of a small job's time
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "2000",
    "spark.sql.runSQLOnFiles": "false",  # else SELECT * FROM text.`/etc/passwd` reads it
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",  # 102 of 120 flipped bits were read as truth
    "spark.python.worker.faulthandler.enabled": "true",
}


def get_session(app: str, config: LakeConfig) -> SparkSession:
    """The session of this process. Raises SetupError (exit 5) where the machine lacks what it needs."""
    for name in (
        "SQLQueryContextLogger",
        "DataFrameQueryContextLogger",
    ):  # the JVM's trace, beside the exception
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL + 1)
    if not config.is_local:
        return _given_session(app)
    check_disk(config.lake_path)
    if REMOTE in os.environ:
        check_server(os.environ[REMOTE])
        return _given_session(app)
    is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit has started the JVM already
    if not is_submitted:
        check_java(java_version())
    os.environ["PYSPARK_PYTHON"] = (
        sys.executable
    )  # workers would take whatever python3 is first on PATH
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    try:
        session = _local_builder(app, config).getOrCreate()
        session.sql("SHOW SCHEMAS")  # loads the catalog, so Delta's classes
    except (PySparkException, Py4JError) as error:
        raise SetupError(_start_fault(error, is_submitted)) from error
    return session


def _given_session(app: str) -> SparkSession:
    """A session of a Spark that runs already, as its server was started; what answers and safety depend on is set."""
    try:
        session = SparkSession.builder.appName(app).getOrCreate()
        session.conf.set(TIME_ZONE, SETTINGS[TIME_ZONE])
        for name in (
            "spark.sql.runSQLOnFiles",
            "spark.hadoop.parquet.page.verify-checksum.enabled",
        ):
            with contextlib.suppress(PySparkException):  # serverless compute takes neither
                session.conf.set(name.removeprefix("spark.hadoop."), SETTINGS[name])
        session.sql("SHOW SCHEMAS")
    except (PySparkException, Py4JError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise SetupError(
            f"spark: expected a server with Delta, found: {first_line} Start it with the settings of "
            "spark-defaults.conf, and with this package where its Python finds it."
        ) from error
    return session


def check_server(remote: str) -> None:
    """Raise SetupError unless something listens at sc://host:port: the client itself would try for ten minutes."""
    place = urlsplit(remote)
    try:
        socket.create_connection(
            (place.hostname or "", place.port or CONNECT_PORT), timeout=10
        ).close()
    except OSError as error:
        raise SetupError(
            f"{REMOTE} {remote}: expected a Spark Connect server, found: {error.strerror or error}. "
            f"Start it, or unset {REMOTE} for a Spark of this process."
        ) from error


def spark_defaults() -> str:
    """Text of spark-defaults.conf: the settings spark-submit must know before it starts."""
    settings = SETTINGS | {
        "spark.jars.packages": DELTA_PACKAGE,
        "spark.jars.excludes": ",".join(EXCLUDED_MODULES),
    }
    lines = [f"{name} {value}" for name, value in sorted(settings.items())]
    return "\n".join(["# Written by `python -m pipelines.lake.session`; do not edit.", *lines, ""])


def check_java(version: int | None) -> None:
    """Raise SetupError unless `version` is a Java that Spark 4.2 starts on."""
    if version is None:
        raise SetupError(
            "java: expected Java 17 or later on PATH or in JAVA_HOME, found none. Install a JRE 17."
        )
    if version < LEAST_JAVA:
        raise SetupError(
            f"java: expected Java {LEAST_JAVA} or later, found {version}. Point JAVA_HOME to a newer one."
        )


def java_version() -> int | None:
    """Major version of the Java that Spark would start; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if program is None or not Path(program).exists():
        return None
    answer = subprocess.run(
        [program, "-version"], capture_output=True, text=True, check=False
    ).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    return int(found.group(1)) if found else None


def check_disk(directory: Path) -> None:
    """Raise SetupError where the lake's disk is nearly full or cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{directory}: expected a directory to write, found {error.strerror}. Pass --lake."
        ) from error
    free = shutil.disk_usage(directory).free
    if free < LEAST_FREE_BYTES:
        raise SetupError(
            f"{directory}: expected {LEAST_FREE_BYTES / 1e9:.0f} GB free, found {free / 1e9:.1f} GB. "
            "Free some space, or pass --lake on another disk."
        )


def _local_builder(app: str, config: LakeConfig) -> SparkSession.Builder:
    cores = os.cpu_count() or 1
    builder = SparkSession.builder.appName(app).master(
        f"local[{cores},4]"
    )  # 4 attempts a task; local[n] has one
    # spark-defaults.conf names the file from the root of the checkout; here we know where it lies.
    quiet = {"spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG4J.as_uri()}"}
    for name, value in (SETTINGS | quiet | jar_settings(config.jars)).items():
        builder = builder.config(name, value)
    # Databases get a place that holds no table: dropping an in-memory database deletes its directory.
    builder = builder.config("spark.sql.warehouse.dir", str(config.lake_path / "spark-warehouse"))
    return builder.config("spark.ui.showConsoleProgress", str(sys.stderr.isatty()).lower())


def _start_fault(error: Exception, is_submitted: bool) -> str:
    if is_submitted:
        return (
            "spark-submit: expected Delta's jars on the class path, found none. "
            "Run spark-submit --properties-file spark-defaults.conf jobs/<stage>.py"
        )
    first_line = str(error).strip().splitlines()[0]
    return (
        f"spark: expected a session with {DELTA_PACKAGE}, found: {first_line} "
        "Java's own message stands above; with 'download failed' or 'unresolved dependency', connect to the network "
        "once, delete that artifact's folder from the local Maven and Ivy caches, or pass --jars DIR."
    )


if __name__ == "__main__":
    sys.stdout.write(spark_defaults())
