"""The hash of a stage's code changes with what decides its result and nothing else. No Spark."""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import schemas
from pipelines import stage_code
from pipelines.stage_code import code_sha256, modules_of

ROOT = Path(__file__).resolve().parents[1]
INPUTS = {
    "ingest": {"reviews.csv"},
    "clean": {"bronze.reviews"},
    "curate": {"silver.reviews", "tokenizer"},
    "train": {"gold.reviews", "backbone"},
    "promote": {"challenger", "champion"},
    "score": {"silver.reviews", "model_version"},
    "reproduce": {"gold.reviews"},
    "vacuum": set(),
}
Change = Callable[[str], str]


def hashes() -> dict[str, str]:
    return {stage: code_sha256(stage, inputs) for stage, inputs in INPUTS.items()}


def forget() -> None:
    for cached in (stage_code.modules_of, stage_code._imports_of):
        cached.cache_clear()


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Change], set[str]]]:
    """Return a function that gives the stages whose hash changes with a module's source."""
    before = hashes()
    original = stage_code._source_of

    def stages(changed_module: str, change: Change) -> set[str]:
        def source_of(module: str) -> str:
            source = original(module)
            return change(source) if module == changed_module else source

        monkeypatch.setattr(stage_code, "_source_of", source_of)
        forget()
        return {stage for stage, sha256 in hashes().items() if sha256 != before[stage]}

    yield stages
    forget()


def test_the_stages_are_those_of_the_jobs() -> None:
    files = [*(ROOT / "jobs").glob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    started = {stage for text in texts for stage in re.findall(r'ledger\.start\("(\w+)"', text)}
    assert started == set(INPUTS)
    assert [stage for stage in INPUTS if not modules_of(stage)] == []
    assert len(set(hashes().values())) == len(INPUTS)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("pipelines.clean", {"clean"}),
        ("pipelines.text_rules", {"clean"}),
        ("pipelines.ingest.json_reader", {"ingest"}),
        ("pipelines.train.loop", {"train", "reproduce"}),
        ("pipelines.train.figures", {"train"}),
        ("pipelines.model.classifier", {"train", "reproduce"}),
        ("pipelines.model.metrics", {"train", "promote", "reproduce"}),
        ("pipelines.model.predict", {"score"}),
        ("pipelines.lake.snapshot", {"train", "promote", "reproduce"}),
        ("pipelines.lake.tables", set()),
        ("pipelines.tracking.registry", set()),
        ("pipelines.cli", set()),
        ("pipelines.demo", set()),
    ],
)
def test_a_changed_comment_changes_the_hash_of_the_stages_that_use_the_module(
    changed: Callable[[str, Change], set[str]], module: str, expected: set[str]
) -> None:
    assert changed(module, lambda source: source + "\n# another comment") == expected


def test_every_module_below_the_stages_is_plumbing_or_counts_by_intent() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    below = lines[lines.index("tracking") :]
    modules = {name for line in below for name in line.split(" | ")}
    assert modules - stage_code.PLUMBING == {"model", "flag_rules", "stage_code", "text_rules"}
    assert modules >= stage_code.PLUMBING


def test_a_module_that_is_imported_inside_a_function_counts(
    changed: Callable[[str, Change], set[str]],
) -> None:
    lazy = "def later():\n    from pipelines.model import metrics\n"
    assert "pipelines.model.metrics" not in modules_of("clean")
    assert changed("pipelines.clean", lambda source: f"{source}\n{lazy}") == {"clean"}
    assert "pipelines.model.metrics" in modules_of("clean")


# table, stages that read or build it
CONTRACTS = [
    (schemas.BRONZE_REVIEWS, {"ingest", "clean", "vacuum"}),
    (schemas.SILVER_REVIEWS, {"clean", "curate", "score", "vacuum"}),
    (schemas.SILVER_REJECTS, {"clean"}),
    (schemas.GOLD_REVIEWS, {"curate", "train", "promote", "reproduce", "vacuum"}),
    (schemas.GOLD_SCORES, {"score"}),
    (schemas.OPS_RUNS, set()),
]


@pytest.mark.parametrize(
    ("table", "expected"), CONTRACTS, ids=[table.name for table, _ in CONTRACTS]
)
def test_a_changed_contract_changes_the_hash_of_the_stages_that_read_or_build_the_table(
    monkeypatch: pytest.MonkeyPatch, table: schemas.Table, expected: set[str]
) -> None:
    before = hashes()
    other = replace(table, checks=table.checks | {"is_new": "true"})
    tables = tuple(other if known is table else known for known in schemas.TABLES)
    monkeypatch.setattr(schemas, "TABLES", tables)
    constant = table.name.replace(".", "_").upper()
    monkeypatch.setattr(schemas, constant, other)
    after = hashes()
    assert {stage for stage in INPUTS if after[stage] != before[stage]} == expected


def test_a_changed_spelling_of_a_label_changes_ingest_and_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = hashes()
    spellings = schemas.LABEL_SPELLINGS | {"superb": "positive"}
    monkeypatch.setattr(schemas, "LABEL_SPELLINGS", spellings)
    after = hashes()
    assert {stage for stage in INPUTS if after[stage] != before[stage]} == {"ingest", "clean"}


def test_our_modules_are_imported_by_from_and_full_name_which_is_what_the_hash_reads() -> None:
    files = sorted((ROOT / "pipelines").rglob("*.py"))
    others = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                others |= {alias.name for alias in node.names if alias.name.startswith("pipelines")}
            elif isinstance(node, ast.ImportFrom) and node.level:
                others.add(path.name)
    assert len(files) > 60
    assert others == {"pipelines"}  # stage_code itself, which asks for the place of the package
