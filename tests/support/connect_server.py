"""A real Spark Connect server on loopback, with Delta's jars, for as long as a test needs it."""

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
START_S = 120


@contextmanager
def connect_server(directory: Path) -> Iterator[str]:
    """Yields sc://127.0.0.1:port of a server whose databases lie in `directory`; ends it whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = SETTINGS | jar_settings("") | {
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG4J.as_uri()}",
        "spark.sql.warehouse.dir": str(directory / "warehouse"),
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.master": "local[2,4]",
    }  # fmt: skip
    submit = str(Path(sys.executable).parent / "spark-submit")
    flags = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    environment = os.environ | {
        "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1",
    }  # fmt: skip
    log = directory / "server.log"
    with log.open("wb") as out:
        command = [submit, "--class", SERVER, *flags, "spark-internal"]
        server = subprocess.Popen(command, cwd=directory, env=environment, stdout=out, stderr=out)
    try:
        _wait_for(server, port, log)
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no server on port {port}: {log.read_text(errors='replace')[-2_000:]}")
