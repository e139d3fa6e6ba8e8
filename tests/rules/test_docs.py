"""The README lists every file of code, and its example runs. Needs Spark, a subprocess."""

import contextlib
import io
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from pipelines.lake.tables import TableStore
from schemas import GOLD_SCORES

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_a_line_for_every_file_of_code() -> None:
    files = [
        path.relative_to(ROOT).as_posix()
        for layer in ("jobs", "pipelines", "schemas")
        for path in (ROOT / layer).rglob("[a-z]*.*")
        if path.suffix != ".pyc"
    ]
    assert len(files) > 40
    assert [name for name in files if f"| {name} |" not in README] == []
    listed = re.findall(r"^\| ([a-z]+/\S+) \|", README, re.MULTILINE)
    assert [name for name in listed if not (ROOT / name).is_file()] == []


def test_the_readme_has_no_placeholder_left() -> None:
    assert "@@" not in README
    assert "make demo" in README.split("##")[0]


def test_the_readmes_example_reads_the_scored_table_without_spark(store: TableStore) -> None:
    row = {
        "review_id": "r" * 64,
        "model_name": "m",
        "model_version": 1,
        "probability": 0.75,
        "prediction": 1,
        "is_truncated": False,
        "score_error": None,
        "run_id": "run",
        "silver_version": 0,
        "source": "imdb",
        "origins": [("a" * 64, 1, "f.csv")],
        "scored_at": datetime.now(UTC),
    }
    store.append(GOLD_SCORES, store.spark.createDataFrame([row], GOLD_SCORES.schema))
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 1
    program = examples[0].replace('"lake/gold/scores"', repr(store.config.location(GOLD_SCORES)))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    assert re.search(r"1 +│ +1 +│ +0\.75", printed.getvalue())


def test_make_help_lists_the_targets() -> None:
    process = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = ("venv", "demo", "test", "test-slow", "lint", "generated")
    assert [name for name in targets if f"make {name} " not in process.stdout] == []
