"""Every job through Spark Connect, which is what Databricks' serverless compute speaks: no JVM in the client."""

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
from tests.support.every_job import FEW, LINKS, encoder_in

BREAK_A_CHECK = """
    import sys
    from pipelines import cli
    from pipelines.lake.session import LakeConfig, get_session
    from pipelines.lake.tables import TableStore
    from schemas import GOLD_REJECTS
    def main(_argv):
        store = TableStore(get_session("broken", LakeConfig(lake=sys.argv[1])), LakeConfig(lake=sys.argv[1]))
        rows = store.spark.createDataFrame([("a", "a reason that is not known")], GOLD_REJECTS.schema)
        store.append(GOLD_REJECTS, rows)
    program.run(main)
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with connect_server(tmp_path_factory.mktemp("server")) as remote:
        yield remote


def python(*argv: str, remote: str = "", code: int = 0) -> "subprocess.CompletedProcess[str]":
    """A program of the checkout in a process of its own, with SPARK_REMOTE where one is given."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SPARK_", "PYSPARK_"))
    }
    environment |= {"PYTHONPATH": str(ROOT)} | ({"SPARK_REMOTE": remote} if remote else {})
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def every_job(lake: Path, encoder: str, remote: str = "") -> dict[str, Any]:
    """The report of tests/support/every_job.py, its last line: a VACUUM of a JVM of one's own prints too."""
    printed = python("-m", "tests.support.every_job", str(lake), encoder, remote=remote).stdout
    report: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return report


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_goes_wrong_on_the_server_is_one_line_with_the_exit_code_it_has_here(
    server: str, tmp_path: Path
) -> None:
    lake = str(tmp_path / "lake")
    missing = python("jobs/clean.py", "--lake", lake, remote=server, code=2)
    assert missing.stderr.startswith(
        f"InputError: bronze.reviews: expected a table in {lake}, found none. Built by "
    )
    assert len(missing.stderr.splitlines()) == 1
    store_and_break = textwrap.dedent(BREAK_A_CHECK)
    broken = python("-c", store_and_break, lake, remote=server, code=3)
    assert broken.stderr.splitlines()[-1] == (
        "IntegrityError: gold.rejects: expected rows that satisfy reason_is_known, found one that does not. "
        "Nothing was written. Fix the transformation, or change the contract in schemas/."
    )
    assert "Traceback" not in broken.stderr
    asked = python(
        "jobs/query.py",
        "--lake",
        lake,
        "--sql",
        "SELECT nothing FROM gold.rejects",
        remote=server,
        code=2,
    )
    assert asked.stderr.startswith("InputError: statement: [UNRESOLVED_COLUMN")
    assert len(asked.stderr.splitlines()) == 1


def test_where_no_server_listens_the_variable_is_named_at_once(tmp_path: Path) -> None:
    words = "SetupError: SPARK_REMOTE sc://127.0.0.1:9: expected a Spark Connect server, found: Connection refused."
    failed = python("jobs/doctor.py", "--lake", str(tmp_path), remote="sc://127.0.0.1:9", code=5)
    assert (
        failed.stderr == f"{words} Start it, or unset SPARK_REMOTE for a Spark of this process.\n"
    )


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_every_job_gives_the_same_through_connect_as_in_a_session_of_its_own(
    server: str, tmp_path: Path
) -> None:
    encoder = encoder_in(tmp_path / "encoder")
    remote, local = (
        every_job(tmp_path / "remote", encoder, server),
        every_job(tmp_path / "local", encoder),
    )
    assert (remote["session"], remote["has_gateway"]) == ("pyspark.sql.connect.session", False)
    assert (local["session"], local["has_gateway"]) == ("pyspark.sql.session", True)
    assert (remote["hashes"], remote["weights"]) == (local["hashes"], local["weights"])
    for name in ("ingest", "clean", "curate", "score", "query", "diff", "vacuum", "doctor"):
        assert remote["printed"][name] == local["printed"][name]
    assert (
        remote["printed"]["query"]
        == f"n,{','.join(LINKS)}\n{','.join([str(FEW)] * (len(LINKS) + 1))}\n"
    )
    assert remote["printed"]["promote"].startswith(
        "GateRefusedError: review_classifier version 1: "
    )
    assert remote["printed"]["reproduce"].endswith("verdict  bit-identical\n")
    assert remote["printed"]["doctor"] == ""
