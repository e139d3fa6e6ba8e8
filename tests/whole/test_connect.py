"""Jobs work through Spark Connect, without a JVM. Needs subprocesses, a Spark server on loopback.

Databricks' serverless compute speaks the same protocol.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.connect_server import connect_server
from tests.support.every_job import FULL_LINEAGE, encoder_of_reviews
from tests.support.processes import ROOT, run_to_end

BREAK_A_CHECK = """
    import sys
    from pipelines import program
    from pipelines.lake.config import LakeConfig
    from pipelines.lake.session import get_session
    from pipelines.lake.tables import TableStore
    from schemas import GOLD_REJECTS
    def main(_argv):
        config = LakeConfig(lake=sys.argv[1])
        store = TableStore(get_session("broken", config), config)
        invalid = [("a", "a reason that is not known")]
        store.append(GOLD_REJECTS, store.spark.createDataFrame(invalid, GOLD_REJECTS.schema))
    program.run(main)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Spark Connect server that runs for all tests of this file."""
    with connect_server(tmp_path_factory.mktemp("server")) as url:
        yield url


def python(*argv: str, remote: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python in the checkout, with SPARK_REMOTE set to `remote` unless that is empty."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SPARK_", "PYSPARK_"))
    }
    environment["PYTHONPATH"] = str(ROOT)
    if remote:
        environment["SPARK_REMOTE"] = remote
    command = [sys.executable, *argv]
    return run_to_end(command, environment=environment, exit_code=code, timeout_s=800)


def report_of_every_job(lake: Path, encoder: str, remote: str = "") -> dict[str, Any]:
    """Run tests/support/every_job.py; its last line is the report, since VACUUM prints too."""
    process = python("-m", "tests.support.every_job", str(lake), encoder, remote=remote)
    report: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return report


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_error_on_the_server_is_one_line_with_the_same_exit_code_as_a_local_one(
    server: str, tmp_path: Path
) -> None:
    lake = str(tmp_path / "lake")
    missing = python("jobs/clean.py", "--lake", lake, remote=server, code=2)
    assert missing.stderr.startswith(
        f"InputError: bronze.reviews: no such table in {lake}. Built by "
    )
    assert len(missing.stderr.splitlines()) == 1
    broken = python("-c", textwrap.dedent(BREAK_A_CHECK), lake, remote=server, code=3)
    assert broken.stderr.splitlines()[-1] == (
        "IntegrityError: gold.rejects: expected rows that satisfy reason_is_known, found one that "
        "does not. Nothing was written. Fix the transformation, or change the contract in schemas/."
    )
    assert "Traceback" not in broken.stderr
    unknown_column = ["--sql", "SELECT nothing FROM gold.rejects"]
    failed = python("jobs/query.py", "--lake", lake, *unknown_column, remote=server, code=2)
    assert failed.stderr.startswith("InputError: statement: [UNRESOLVED_COLUMN")
    assert len(failed.stderr.splitlines()) == 1
    program = ["--sql", "SELECT reflect('java.lang.System', 'getenv')"]
    refused = python("jobs/query.py", "--lake", lake, *program, remote=server, code=2)
    assert refused.stderr.startswith("InputError: statement: the function reflect is not allowed")
    variable = ["--sql", "SELECT '${env:HOME}' AS text", "--format", "jsonl"]
    exact = python("jobs/query.py", "--lake", lake, *variable, remote=server)
    assert exact.stdout == '{"text":"${env:HOME}"}\n'


def test_where_no_server_listens_the_error_names_the_variable(tmp_path: Path) -> None:
    remote = "sc://127.0.0.1:9"
    failed = python("jobs/doctor.py", "--lake", str(tmp_path), remote=remote, code=5)
    assert failed.stderr == (
        "SetupError: SPARK_REMOTE sc://127.0.0.1:9: no Spark Connect server answers: "
        "Connection refused. Start it, or unset SPARK_REMOTE to run Spark in this process.\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_every_job_has_the_same_results_through_connect_as_in_a_session_of_its_own(
    server: str, tmp_path: Path
) -> None:
    encoder = encoder_of_reviews(tmp_path / "encoder")
    remote = report_of_every_job(tmp_path / "remote", encoder, server)
    local = report_of_every_job(tmp_path / "local", encoder)
    assert (remote["session"], remote["has_gateway"]) == ("pyspark.sql.connect.session", False)
    assert (local["session"], local["has_gateway"]) == ("pyspark.sql.session", True)
    assert (remote["hashes"], remote["weights"]) == (local["hashes"], local["weights"])
    printed = remote["printed"]
    for job in ("ingest", "clean", "curate", "score", "query", "diff", "vacuum", "doctor"):
        assert printed[job] == local["printed"][job]
    assert printed["query"] == FULL_LINEAGE
    assert printed["promote"].startswith("GateRefusedError: review_classifier version 1: ")
    assert printed["reproduce"].endswith("verdict  bit-identical\n")
    assert printed["doctor"] == ""
