"""Every job as a user runs it, by spark-submit, on a few dozen real reviews and a tiny encoder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipelines.ingest.sources import packaged_file
from tests.support import tiny_encoder

ROOT = Path(__file__).resolve().parents[2]
FEW = 60


def submit(job: str, *argv: str, code: int = 0) -> str:
    """What one spark-submit prints; run from the root of the checkout; the exit code must be `code`."""
    bin_ = Path(sys.executable).parent
    command = [
        str(bin_ / "spark-submit"),
        "--properties-file",
        "spark-defaults.conf",
        f"jobs/{job}.py",
        *argv,
    ]
    environment = os.environ | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PYSPARK_PYTHON": sys.executable,
    }
    environment.pop("PYSPARK_GATEWAY_PORT", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout  # spark-submit sends both streams of Python there


def run_job(job: str, *argv: str, code: int = 0) -> str:
    """A job of the bundle by `make run`, every task by spark-submit; what it prints."""
    command = [sys.executable, "-m", "pipelines.bundle", "run", job, *argv]
    environment = {
        name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_bundles_jobs_run_by_spark_submit_and_find_nothing_to_do_the_second_time(
    tmp_path: Path,
) -> None:
    texts = pd.read_csv(packaged_file()[0], nrows=500)["text"].tolist()
    encoder = str(tiny_encoder.build(tmp_path / "encoder", texts))
    place = [
        "--var",
        f"lake={tmp_path / 'lake'}",
        "--var",
        f"max_rows={FEW}",
        "--var",
        f"backbone={encoder}",
    ]

    told = run_job("pipeline", *place, code=6)  # an untrained encoder can not beat the baseline
    for line in (
        f"{FEW} rows added", f"silver.reviews v1: {FEW} rows added", f"gold.reviews v1: {FEW} rows added",
        "--gold-version 1 ", "review_classifier version 1: registered, alias challenger",
        "GateRefusedError: review_classifier version 1: ",
    ):  # fmt: skip
        assert line in told
    assert "Traceback" not in told
    assert [line.split()[:3] for line in told.splitlines()[-3:]] == [
        ["promote", "failed", "6"], ["score", "upstream", "failed"], ["pipeline:", "failed"],
    ]  # fmt: skip
    resumed = run_job("pipeline", *place, "--resume", code=6)
    assert "train: done in the run before" in resumed
    assert "refused before (ops.promotions)" in resumed
    assert f"gold.scores v1: {FEW} rows added" in run_job(
        "score", *place, "--param", "model=challenger"
    )

    links = (
        "run_id",
        "code_commit",
        "gold_version",
        "silver_version",
        "bronze_version",
        "source_sha256",
        "row_number",
    )
    lineage = f"SELECT count(*) AS n, {', '.join(f'count({link}) AS {link}' for link in links)} FROM gold.lineage"
    answer = submit(
        "query", "--lake", str(tmp_path / "lake"), "--sql", lineage, "--format", "jsonl"
    )
    assert json.loads(answer.splitlines()[-1]) == {"n": FEW} | dict.fromkeys(links, FEW)
    assert run_job("score", *place, "--param", "model=challenger").count("nothing to do") == 3


@pytest.mark.timeout(300)
def test_a_job_without_its_table_says_which_job_builds_it_and_exits_2(tmp_path: Path) -> None:
    failed = submit("clean", "--lake", str(tmp_path / "lake"), code=2)
    assert "InputError: bronze.reviews: expected a table in " in failed
    assert "Built by jobs/ingest.py." in failed
    assert "Traceback" not in failed


@pytest.mark.timeout(300)
def test_spark_submit_without_the_properties_file_says_what_to_pass_and_exits_5(
    tmp_path: Path,
) -> None:
    bin_ = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "SPARK_CONF_DIR": str(tmp_path),
    }
    environment.pop("PYSPARK_GATEWAY_PORT", None)
    done = subprocess.run(
        [str(bin_ / "spark-submit"), "jobs/clean.py", "--lake", str(tmp_path / "lake")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stdout
    assert "Run spark-submit --properties-file spark-defaults.conf jobs/<stage>.py" in done.stdout
