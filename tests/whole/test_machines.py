"""Jobs run where people run them: beside other code, in any locale. Starts its own Spark, twice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines import provenance
from pipelines.lake.config import LakeConfig
from pipelines.lake.delta_log import opened
from schemas import SILVER_REVIEWS
from tests.support.processes import ROOT, own_environment

# Ingest and clean in one process, so that Spark starts once.
BOTH = """
import runpy
import sys
from pathlib import Path
from pipelines import program

def main(argv):
    lake, file = argv
    jobs = Path(__file__).parent
    columns = ["--text-column", "review", "--label-column", "label"]
    source = ["--source", "csv", "--name", "shop", "--path", file, *columns]
    runpy.run_path(str(jobs / "ingest.py"))["main"](["--lake", lake, *source])
    runpy.run_path(str(jobs / "clean.py"))["main"](["--lake", lake])

program.run(main)
"""
OTHER_RULE = """
def clean_text(raw: str) -> str:
    return "cleaned by the other checkout"
"""
NO_MODULE = "raise SystemExit('imported from the current directory')\n"
NOTEBOOK = {
    "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_PYTHON": "python3",
    "PYSPARK_SUBMIT_ARGS": "--no-such-option",
    "PYSPARK_GATEWAY_PORT": "1",
    "SPARK_HOME": "/opt/spark-3.5",
    "MASTER": "yarn",
}
PERSIAN = "-Duser.language=fa -Duser.extensions=u-nu-arabext"
TURKISH = "-Duser.language=tr"


def checkout(place: Path, rule: str = "") -> Path:
    """Copy the code, with another rule if one is given."""
    for folder in (*provenance.PACKAGES, "jobs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, place / folder, ignore=ignored)
    (place / "jobs" / "both.py").write_text(BOTH)
    with (place / "pipelines" / "clean.py").open("a") as clean:
        clean.write(rule)
    return place


def run_in(
    around: Path, *command: object, imported: Path, locale: str
) -> subprocess.CompletedProcess[str]:
    """Run a job in a directory that holds other code, with the variables of a notebook."""
    (around / "queue.py").write_text(NO_MODULE)
    (around / "pandas.py").write_text(NO_MODULE)
    (imported / "queue.py").unlink(missing_ok=True)  # PYTHONPATH comes before Python's own modules
    (imported / "pandas.py").unlink(missing_ok=True)
    variables = {"PYTHONPATH": str(imported), "JAVA_TOOL_OPTIONS": locale, "LC_ALL": "C"}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=around,
        env=own_environment() | NOTEBOOK | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def hash_said(log: str) -> str:
    return log.partition("clean: the workers ran this code, ")[2][:12]


def texts_of(lake: LakeConfig) -> list[str]:
    with opened(SILVER_REVIEWS, lake.log_directory(SILVER_REVIEWS)) as table:
        texts: list[str] = pa.table(table.scan())["text"].to_pylist()
    return texts


@pytest.mark.slow
def test_workers_run_the_code_of_the_driver_in_any_directory_environment_and_locale(
    tmp_path: Path,
) -> None:
    own, other = checkout(tmp_path / "own"), checkout(tmp_path / "other", OTHER_RULE)
    file = tmp_path / "отзывы.csv"
    file.write_text("review,label\nA <b>good</b> film,1\n", encoding="utf-8")
    lake = LakeConfig(lake=str(tmp_path / "озеро"))
    first = run_in(other, own / "jobs/both.py", lake.lake, file, imported=own, locale=PERSIAN)
    assert first.returncode == 0, first.stderr
    assert texts_of(lake) == ["A good film"]
    assert "PYSPARK_SUBMIT_ARGS, SPARK_HOME overruled" in first.stderr
    assert "commit unknown: this code is installed, or was copied without .git" in first.stderr
    again = ["--lake", lake.lake, "--rerun"]
    second = run_in(own, own / "jobs/clean.py", *again, imported=other, locale=TURKISH)
    assert second.returncode == 0, second.stderr
    assert texts_of(lake) == ["cleaned by the other checkout"]
    assert hash_said(first.stderr) != hash_said(second.stderr)
    log = sorted(path.name for path in lake.log_directory(SILVER_REVIEWS).glob("*.json"))
    assert log == [f"{version:020}.json" for version in range(len(log))]
