"""The pages say what is there: rooms, jobs, flags, paths, tables; the example runs. Needs Spark."""

import contextlib
import dataclasses
import io
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import clean, cli, demo, errors, text_rules
from pipelines.bundle.__main__ import BundleConfig
from pipelines.bundle.check import config_of
from pipelines.ingest.records import SPLIT_SPELLINGS
from pipelines.ingest.sources import SOURCES
from pipelines.lake.tables import TableStore
from pipelines.train.settings import PRESETS, TrainSettings
from schemas import GOLD_SCORES, LABEL_SPELLINGS, TABLES, VIEWS

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}
README = PAGES["README.md"]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
PATH = re.compile(r"(?:jobs|pipelines|schemas|tests)/[\w/]+\.(?:py|sql|json)")


def flags_of(config: type[object]) -> set[str]:
    parser = cli.build_parser(config, None)
    return {name for action in parser._actions for name in action.option_strings}


def commands_in(page: str) -> list[str]:
    """Return the commands in a page's code: without quoted SQL, one per && and per comment."""
    lines = [re.sub(r'"[^"]*"', '""', line) for line in page.splitlines()]
    return [command for line in lines for command in re.split(r"&&|\s#\s|`", line)]


def test_the_readme_names_every_room_every_module_beside_them_and_every_job() -> None:
    table = README.split("## Where to find things")[1]
    rooms = [path.parent.name for path in (ROOT / "pipelines").glob("*/__init__.py")]
    modules = [path.name for path in (ROOT / "pipelines").glob("[a-z]*.py")]
    assert len(rooms) >= 8
    assert [room for room in rooms if f"{room}/" not in table] == []
    assert [module for module in modules if module not in table] == []
    jobs_row = next(line for line in table.splitlines() if line.startswith("| jobs/"))
    assert [job for job in JOBS if not re.search(rf"\b{job}\b", jobs_row)] == []


def test_every_page_is_linked_from_the_readme_and_every_link_resolves() -> None:
    others = [name for name in PAGES if name != "README.md"]
    assert [name for name in others if f"]({name})" not in README] == []
    links = [
        (page, link) for page, text in PAGES.items() for link in re.findall(r"\]\((.+?)\)", text)
    ]
    assert len(links) > 10
    assert [(page, link) for page, link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"DECISIONS.md", "CHANGELOG.md"}))
def test_every_flag_path_target_and_table_of_a_page_exists(page: str) -> None:
    commands = commands_in(PAGES[page])
    for command in commands:
        if job := re.search(r"jobs/(\w+)\.py(.*)", command):
            given = set(re.findall(r"(?<!\S)--[a-z0-9-]+", job[2]))
            assert given <= flags_of(config_of(ROOT / "jobs" / f"{job[1]}.py")), command
        if runner := re.search(r"pipelines\.bundle(.*)", command):
            given = set(re.findall(r"(?<!\S)--[a-z-]+", runner[1]))
            assert given <= flags_of(BundleConfig), command
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    called = set(re.findall(r"(?:^    |`)make ([a-z-]+)", PAGES[page], re.MULTILINE))
    assert called <= targets
    assert [path for path in PATH.findall(PAGES[page]) if not (ROOT / path).is_file()] == []
    known = {table.name for table in (*TABLES, *VIEWS)}
    assert set(re.findall(r"\b(?:bronze|silver|gold|ops)\.[a-z_]+\b", PAGES[page])) <= known


@pytest.mark.parametrize("page", ["README.md", "OPERATIONS.md"])
def test_the_table_of_exit_codes_is_that_of_the_errors(page: str) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.JobError)}
    listed = {int(code) for code in re.findall(r"^\| (\d) \|", PAGES[page], re.MULTILINE)}
    assert listed == codes | {0}


def test_the_table_of_training_settings_is_that_of_the_code() -> None:
    rows = {}
    for line in PAGES["TRAINING.md"].splitlines():
        if row := re.match(r"\| `--([\w-]+)` \| (.*) \|$", line):
            rows[row[1].replace("-", "_")] = [cell.strip() for cell in row[2].split("|")]
    default = TrainSettings()
    assert set(rows) == {field.name for field in dataclasses.fields(TrainSettings)}
    for name, (value, best, seed, _meaning) in rows.items():
        assert value == str(getattr(default, name)), name
        for preset, cell in (("best", best), ("seed", seed)):
            preset_value = str(getattr(PRESETS[preset], name))
            assert cell == ("" if preset_value == value else preset_value), (name, preset)


def test_the_page_of_sources_names_each_source_spelling_rule_and_mask() -> None:
    words = [*SOURCES, *SPLIT_SPELLINGS, *LABEL_SPELLINGS, *clean.ROW_RULES, *text_rules.MASKS]
    assert [word for word in words if f"`{word}`" not in PAGES["SOURCES.md"]] == []


def test_the_readme_shows_what_the_demo_prints_last_and_has_no_placeholder() -> None:
    next_steps = demo.NEXT_STEPS.format(lake="lake").splitlines()
    assert "".join(f"    {line}\n" for line in next_steps) in README
    assert "@@" not in README
    assert not re.search(r"<[A-Z_]+>", README)
    assert "make demo" in README.split("##")[0]
    assert sum(page.count("```python") for page in PAGES.values()) == 1


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
