"""The README says what is there, and its code runs."""

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
    assert [
        name
        for name in re.findall(r"^\| ([a-z]+/\S+) \|", README, re.MULTILINE)
        if not (ROOT / name).is_file()
    ] == []


def test_the_readme_has_no_gap_left() -> None:
    assert "@@" not in README
    assert "make demo" in README.split("##")[0]


def test_the_readmes_reader_without_spark_reads_the_scored_table(store: TableStore) -> None:
    row = (
        "r" * 64,
        "m",
        1,
        0.75,
        1,
        False,
        None,
        "run",
        0,
        "imdb",
        [("a" * 64, 1, "f.csv")],
        datetime.now(UTC),
    )
    store.append(GOLD_SCORES, store.spark.createDataFrame([row], GOLD_SCORES.schema))
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(blocks[0].replace('"lake/gold/scores"', repr(store.location(GOLD_SCORES))), {})
    assert re.search(r"1 +│ +1 +│ +0\.75", printed.getvalue())


def test_make_help_lists_the_targets() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [
        name
        for name in ("venv", "demo", "test", "test-slow", "lint", "generated")
        if f"make {name} " not in listed
    ] == []
