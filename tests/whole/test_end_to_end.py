"""Jobs work as a user runs them, by spark-submit. Needs subprocesses with Spark, a tiny encoder."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.every_job import (
    LINEAGE,
    LINKS,
    N_REVIEWS,
    encoder_of_reviews,
    run_bundle_job,
    submit,
)
from tests.support.processes import own_environment, run_to_end


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_bundles_jobs_run_by_spark_submit_and_have_nothing_to_do_the_second_time(
    tmp_path: Path,
) -> None:
    lake = str(tmp_path / "lake")
    variables = {
        "lake": lake,
        "max_rows": str(N_REVIEWS),
        "backbone": encoder_of_reviews(tmp_path / "encoder"),
    }
    flags = [part for name, value in variables.items() for part in ("--var", f"{name}={value}")]
    score_by_challenger = ["score", *flags, "--param", "model=challenger"]

    first = run_bundle_job("pipeline", *flags, code=6)  # a tiny encoder does not beat the baseline
    expected_lines = (
        f"{N_REVIEWS} rows added",
        f"silver.reviews v1: {N_REVIEWS} rows added",
        f"gold.reviews v1: {N_REVIEWS} rows added",
        "--gold-version 1 ",
        "review_classifier version 1: registered, alias challenger",
        "GateRefusedError: review_classifier version 1: ",
    )
    for line in expected_lines:
        assert line in first
    assert "Traceback" not in first
    assert [line.split()[:3] for line in first.splitlines()[-3:]] == [
        ["promote", "failed", "6"],
        ["score", "upstream", "failed"],
        ["pipeline:", "failed"],
    ]
    resumed = run_bundle_job("pipeline", *flags, "--resume", code=6)
    assert "train: done in the run before" in resumed
    assert "refused before (ops.promotions)" in resumed
    assert f"gold.scores v1: {N_REVIEWS} rows added" in run_bundle_job(*score_by_challenger)

    answer = submit("query", "--lake", lake, "--sql", LINEAGE, "--format", "jsonl")
    counts = json.loads(answer.splitlines()[-1])
    assert counts == {"n": N_REVIEWS} | dict.fromkeys(LINKS, N_REVIEWS)
    assert run_bundle_job(*score_by_challenger).count("nothing to do") == 3


@pytest.mark.timeout(300)
def test_a_job_without_its_table_names_the_job_that_builds_it_and_exits_2(tmp_path: Path) -> None:
    printed = submit("clean", "--lake", str(tmp_path / "lake"), code=2)
    assert "InputError: bronze.reviews: no such table in " in printed
    assert "Built by jobs/ingest.py." in printed
    assert "Traceback" not in printed


@pytest.mark.timeout(300)
def test_without_the_properties_file_spark_submit_exits_5_with_advice(
    tmp_path: Path,
) -> None:
    programs = Path(sys.executable).parent
    job = ["jobs/query.py", "--lake", str(tmp_path / "lake"), "--sql", "SELECT 1"]
    command = [str(programs / "spark-submit"), *job]
    environment = own_environment() | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SPARK_CONF_DIR": str(tmp_path),
    }
    process = run_to_end(command, environment=environment, exit_code=5, timeout_s=200)
    advice = "Run spark-submit --properties-file spark-defaults.conf jobs/<stage>.py"
    assert advice in process.stdout
