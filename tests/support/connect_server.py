"""A real Spark Connect server on loopback, with Delta's jars, for the duration of a test."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.lake.jars import jar_settings
from pipelines.lake.session import LOG4J, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
START_TIMEOUT_S = 120


@contextmanager
def connect_server(directory: Path) -> Iterator[str]:
    """Start a server that keeps its databases in `directory`; yield its URL; always stop it."""
    port = _free_port()
    log = directory / "server.log"
    environment = os.environ | {
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            _command(directory, port),
            cwd=directory,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_for(server, port, log)
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _command(directory: Path, port: int) -> list[str]:
    settings = SETTINGS | jar_settings("")
    settings |= {
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG4J.as_uri()}",
        "spark.sql.warehouse.dir": str(directory / "warehouse"),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.master": "local[2,4]",
    }
    flags = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    submit = str(Path(sys.executable).parent / "spark-submit")
    return [submit, "--class", SERVER, *flags, "spark-internal"]


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    log_tail = log.read_text(errors="replace")[-2_000:]
    raise AssertionError(f"no Spark Connect server on port {port}: {log_tail}")
