"""The SparkSession and its requirements: Java, disk and loopback, or a Spark server."""

import contextlib
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from pipelines import program
from pipelines.errors import SetupError
from pipelines.java_noise import Forwarder
from pipelines.lake import own_spark
from pipelines.lake.config import LakeConfig
from pipelines.lake.jars import EXCLUDED_MODULES, delta_for, jar_settings
from pipelines.lake.locks import set_neutral_locale
from pipelines.lake.own_spark import NEUTRAL_OPTIONS
from pipelines.provenance import ROOT
from pipelines.quoting import shown

log = logging.getLogger("reviewlake")

LOG4J = Path(__file__).parent / "log4j2.properties"
REMOTE = "SPARK_REMOTE"  # pyspark's own variable: sc://host:port of a Spark Connect server
CONNECT_PORT = 15002  # if the URL names none
TIME_ZONE = "spark.sql.session.timeZone"
SUBSTITUTION = "spark.sql.variable.substitute"
LOG4J_OPTION = "-Dlog4j2.configurationFile="
MIN_JAVA = 17
STDERR = 2  # the file descriptor that a child process inherits
CHUNK_BYTES = 65_536
MIN_FREE_BYTES = 2_000_000_000  # the demo's lake takes about 600 MB; Spark spills there too

# These must be set before the JVM starts, so they are written to spark-defaults.conf too.
SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.catalogImplementation": "in-memory",  # Derby would lock out a second process
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.ui.enabled": "false",  # by default it listens on all interfaces
    "spark.log.level": "FATAL",  # a failed task logs its row (a review); users see exceptions
    "spark.driver.extraJavaOptions": f"{LOG4J_OPTION}pipelines/lake/log4j2.properties "
    f"{NEUTRAL_OPTIONS}",
    "spark.executor.extraJavaOptions": NEUTRAL_OPTIONS,
    TIME_ZONE: "UTC",
    # The defaults of these two, 200 and 50, take most of a small job's time.
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    # The default of 100 is less than what two stages generate: each one compiled all of it anew.
    "spark.sql.codegen.cache.maxEntries": "1000",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "2000",
    "spark.sql.runSQLOnFiles": "false",  # else SELECT * FROM text.`/etc/passwd` reads it
    SUBSTITUTION: "false",  # else ${env:PATH} in a statement becomes text that nobody has checked
    # Without checksums 102 of 120 flipped bits were read as valid data.
    "spark.hadoop.parquet.page.verify-checksum.enabled": "true",
    "spark.python.worker.faulthandler.enabled": "true",
}
# Set in a session that we did not start too; serverless compute accepts none of them.
SAFETY_SETTINGS = (
    "spark.sql.runSQLOnFiles",
    SUBSTITUTION,
    "spark.hadoop.parquet.page.verify-checksum.enabled",
)


def get_session(app: str, config: LakeConfig) -> SparkSession:
    """Return this process's session. Raises SetupError (exit 5) if the machine lacks something."""
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        # These loggers repeat the JVM's stack trace of the exception.
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL + 1)
    if not config.is_local:
        return _given_session(app)
    check_disk(config.lake_path)
    if REMOTE in os.environ:
        check_server(os.environ[REMOTE])
        return _given_session(app)
    is_submitted = program.is_submitted()
    if is_submitted:
        program.set_environment({"PYSPARK_PYTHON": sys.executable})
    else:
        check_java(java_version())
        program.set_environment(own_spark.own_spark(os.environ))
    if "SPARK_LOCAL_IP" not in os.environ:
        program.set_environment({"SPARK_LOCAL_IP": "127.0.0.1"})
    try:
        with _quiet_java():
            session = _local_builder(app, config).getOrCreate()
        set_neutral_locale(session)
        session.sql("SHOW SCHEMAS")  # loads the catalog, and with it Delta's classes
    except (PySparkException, Py4JError) as error:
        raise SetupError(_start_fault(error, is_submitted)) from error
    return session


@contextlib.contextmanager
def _quiet_java() -> Iterator[None]:
    """Filter the stderr of a JVM started in this block: drop the lines of every start.

    The JVM keeps its end of the pipe, so the thread forwards its progress bars for as long as it
    runs. If it fails to start, its output is shown before the block raises.
    """
    read_end, write_end = os.pipe()
    own_stderr = os.dup(STDERR)
    forwarder = threading.Thread(target=_forward, args=(read_end, own_stderr), daemon=True)
    os.dup2(write_end, STDERR)
    os.close(write_end)
    forwarder.start()
    try:
        yield
    except BaseException:
        os.dup2(own_stderr, STDERR)
        forwarder.join(timeout=5)
        raise
    else:
        os.dup2(own_stderr, STDERR)


def _forward(read_end: int, stderr: int) -> None:
    java = Forwarder(shows_download=False)  # jar_settings has logged it
    while chunk := os.read(read_end, CHUNK_BYTES):
        os.write(stderr, java.feed(chunk))
    os.write(stderr, java.rest())
    os.close(read_end)
    os.close(stderr)


def _given_session(app: str) -> SparkSession:
    """Return a session of a running Spark, with the settings that results depend on."""
    try:
        session = SparkSession.builder.appName(app).getOrCreate()
        session.conf.set(TIME_ZONE, SETTINGS[TIME_ZONE])
        for name in SAFETY_SETTINGS:
            with contextlib.suppress(PySparkException):
                session.conf.set(name.removeprefix("spark.hadoop."), SETTINGS[name])
        session.sql("SHOW SCHEMAS")
        require_ascii_digits(session)
    except (PySparkException, Py4JError) as error:
        raise SetupError(
            f"spark: no session with Delta: {program.first_cause(error)} "
            "Start the server with the settings of spark-defaults.conf, and with this package on "
            "its Python's path."
        ) from error
    return session


def require_ascii_digits(session: SparkSession) -> None:
    """Raise SetupError if this Spark's JVM writes numbers, and so Delta's log, in other digits."""
    style = "DecimalStyle[0"  # if the server does not tell, as serverless compute may not
    with contextlib.suppress(PySparkException):
        answer = session.sql("SELECT reflect('java.time.format.DecimalStyle', 'ofDefaultLocale')")
        style = next(str(row[0]) for row in answer.head(1))
    if not style.startswith("DecimalStyle[0"):
        raise SetupError(
            f"spark: expected a locale with the digits 0-9, found {shown(style)}: Delta would not "
            f"find its own log files. Start the server with {NEUTRAL_OPTIONS}."
        )


def check_server(remote: str) -> None:
    """Raise SetupError unless a server listens: the client itself would try for ten minutes."""
    shown = remote.split("/;")[0]  # a token may follow
    try:
        place = urlsplit(remote)
        address = (place.hostname or "", place.port or CONNECT_PORT)
        socket.create_connection(address, timeout=10).close()
    except OSError as error:
        raise SetupError(
            f"{REMOTE} {shown}: no Spark Connect server answers: {error.strerror or error}. "
            f"Start it, or unset {REMOTE} to run Spark in this process."
        ) from error
    except ValueError as error:
        raise SetupError(
            f"{REMOTE} {shown}: expected sc://host:port, found: {error}. "
            f"Correct it, or unset {REMOTE} to run Spark in this process."
        ) from error


def spark_defaults() -> str:
    """Return the text of spark-defaults.conf, which spark-submit reads before it starts the JVM."""
    jars = {
        "spark.jars.packages": delta_for().package,
        "spark.jars.excludes": ",".join(EXCLUDED_MODULES),
    }
    lines = [f"{name} {value}" for name, value in sorted((SETTINGS | jars).items())]
    head = "# Written by `python -m pipelines.lake.session`; do not edit."
    return "\n".join([head, *lines, ""])


def check_java(version: int | None) -> None:
    """Raise SetupError unless Spark 4.2 can start on this version of Java."""
    if version is None:
        raise SetupError(
            "java: not found on PATH or in JAVA_HOME. Install a Java runtime (JRE) of version 17."
        )
    if version < MIN_JAVA:
        raise SetupError(
            f"java: expected Java {MIN_JAVA} or later, found {version}. "
            "Point JAVA_HOME to a newer one."
        )


def java_version() -> int | None:
    """Return the major version of the Java that Spark would start; None if there is none."""
    home = os.environ.get("JAVA_HOME")
    program_path = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if program_path is None or not Path(program_path).exists():
        return None
    command = [program_path, "-version"]
    answer = subprocess.run(command, capture_output=True, check=False)
    version = re.search(rb'version "(?:1\.)?(\d+)', answer.stderr)
    return int(version[1]) if version else None


def check_disk(directory: Path) -> None:
    """Raise SetupError if the lake's disk is nearly full or cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{directory}: cannot be created: {error.strerror}. Pass another --lake."
        ) from error
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < MIN_FREE_BYTES:
        raise SetupError(
            f"{directory}: expected {MIN_FREE_BYTES / 1e9:.0f} GB free, found "
            f"{free_bytes / 1e9:.1f} GB. Free some space, or pass --lake on another disk."
        )


def _local_builder(app: str, config: LakeConfig) -> SparkSession.Builder:
    n_cores = os.cpu_count() or 1
    # Four attempts per task: local[n] alone has one.
    builder = SparkSession.builder.appName(app).master(f"local[{n_cores},4]")
    own_settings = {
        # spark-defaults.conf names the file relative to the checkout; here its place is known.
        "spark.driver.extraJavaOptions": driver_options(),
        "spark.hadoop.fs.defaultFS": "file:///",  # HADOOP_CONF_DIR may name another one
        # Workers import the code of this process; from the current directory they import nothing.
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.executorEnv.PYTHONSAFEPATH": "1",
        # A place without tables: dropping an in-memory database deletes its directory.
        "spark.sql.warehouse.dir": str(config.lake_path / "spark-warehouse"),
        "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
    }
    for name, value in (SETTINGS | own_settings | jar_settings(config.jars)).items():
        builder = builder.config(name, value)
    return builder


def driver_options() -> str:
    """Return the options of a driver's JVM. The file of log4j is named absolutely."""
    return f"{LOG4J_OPTION}{LOG4J.as_uri()} {NEUTRAL_OPTIONS}"


def _start_fault(error: Exception, is_submitted: bool) -> str:
    if is_submitted:
        return (
            "spark-submit: Delta's jars are not on the class path. "
            "Run spark-submit --properties-file spark-defaults.conf jobs/<stage>.py"
        )
    return (
        f"spark: no session with {delta_for().package}: {program.first_cause(error)} "
        "Java's own message is above. If it says 'download failed' or 'unresolved dependency', "
        "connect to the network once, delete that artifact's folder from the local Maven and Ivy "
        "caches, or pass --jars DIR."
    )


if __name__ == "__main__":
    sys.stdout.write(spark_defaults())
