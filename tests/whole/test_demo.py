"""The demo's stages; slow: all of it on real reviews, with the real backbone and Spark."""

import re
import sys
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.bundle.graph import Script, job_of
from pipelines.bundle.resolve import LOCAL, definition_for
from pipelines.demo import STAGES, variables
from pipelines.lake.config import LakeConfig
from schemas import TABLES
from tests.support.every_job import submit
from tests.support.processes import own_environment, run_to_end


def run_demo(lake: Path, *argv: str) -> str:
    """The demo as `make demo` runs it; its summary."""
    command = [sys.executable, "jobs/demo.py", "--lake", str(lake), *argv]
    return run_to_end(command, environment=own_environment()).stdout


def versions(lake: LakeConfig) -> dict[str, int]:
    """The version of every table, by a reader that is not Spark."""
    return {
        t.name: DeltaTable(str(lake.lake_path.joinpath(*t.name.split(".")))).version()
        for t in TABLES
    }


def test_the_demo_shows_the_stages_of_the_bundles_pipeline_and_sets_only_its_variables() -> None:
    whole = job_of(definition_for(LOCAL, variables("x", 0)), "pipeline")
    assert tuple(task.key for task in whole.tasks) == STAGES
    quick = job_of(definition_for(LOCAL, variables("x", 2_000)), "pipeline")
    scripts = {task.key: task.work for task in quick.tasks if isinstance(task.work, Script)}
    argv = {key: " ".join(script.argv) for key, script in scripts.items()}
    assert all("--lake x" in words for words in argv.values())
    assert "--batch-size 8" in argv["train"]
    assert quick.parameters["max_rows"] == "2000"


@pytest.mark.slow
def test_the_demo_runs_on_real_reviews_and_finds_nothing_to_do_the_second_time(
    tmp_path: Path,
) -> None:
    place = LakeConfig(lake=str(tmp_path / "lake"))
    first = run_demo(place.lake_path, "--max-rows", "2000")
    assert "QUICK: 2,000 reviews are too few to judge quality by." in first
    assert re.search(r"gold\.scores +version +\d+ +(1,9\d\d|2,000) rows", first)
    assert re.search(r"accuracy +0\.\d{4}  \(95 % 0\.\d{4}-0\.\d{4}\)", first)
    assert "Nothing to do" not in first
    assert re.search(r"SQL over the scored table\n(.+\n)+\n +source +label +reviews", first)
    versions_left = versions(place)

    again = run_demo(place.lake_path, "--max-rows", "2000")
    assert "\nNothing to do: no table has a new version.\n" in again
    assert versions(place) == versions_left
    # The same summary but for the question in SQL, which needs Spark; and Spark was not started.
    summary = first.split("Tables\n")[1].split("SQL over the scored table")[0]
    assert again.split("Tables\n")[1].split("What to look at next")[0] == summary

    place_flags = ["--lake", str(place.lake_path)]
    assert "verdict  bit-identical" in submit(
        "reproduce", "models:/review_classifier@challenger", *place_flags
    )
