"""The layout rules of the design, held by reading the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("schemas", "pipelines", "jobs")
STAGES = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
CODE = sorted(path for layer in LAYERS for path in (ROOT / layer).glob("**/*.py"))
OWN_BUDGET = {"classifier.py": 450}  # one file by design: MLflow logs it as the model's code
MOST_LINES, MOST_JOB_LINES, MOST_FUNCTION_LINES = 300, 110, 80


def imported(path: Path) -> set[str]:
    """First parts of all modules that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_there_are_jobs_and_modules_to_look_at() -> None:
    assert {"ingest", "clean", "curate", "train", "promote", "score", "query", "demo"} <= set(
        STAGES
    )
    assert len(CODE) > 25


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_from_jobs_to_pipelines_to_schemas_only(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    above = LAYERS[LAYERS.index(layer) + 1 :] if layer != "jobs" else ("jobs",)
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & {*above, "tests"}


@pytest.mark.parametrize("stage", STAGES)
def test_each_job_has_a_module_and_a_test_of_its_name(stage: str) -> None:
    rooms = [path.parent.name for path in (ROOT / "pipelines").glob("*/__init__.py")]
    assert stage in rooms or list((ROOT / "pipelines").rglob(f"{stage}.py"))
    assert (ROOT / "tests" / stage).is_dir() or list((ROOT / "tests").rglob(f"test_{stage}.py"))


def test_every_room_says_what_it_is_and_has_its_tests() -> None:
    rooms = sorted(path.parent for path in (ROOT / "pipelines").glob("*/__init__.py"))
    assert len(rooms) >= 8
    for room in rooms:
        tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree)
        assert len(tree.body) == 1  # a room's modules are imported by their own names
        assert list((ROOT / "tests" / room.name).glob("test_*.py")), room.name


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_keep_to_their_budgets(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
    longest = max(((n.end_lineno or 0) - n.lineno + 1 for n in functions), default=0)
    most = MOST_JOB_LINES if path.parent.name == "jobs" else OWN_BUDGET.get(path.name, MOST_LINES)
    assert len(source.splitlines()) <= most
    assert longest <= MOST_FUNCTION_LINES


@pytest.mark.parametrize(
    "name",
    ["_jvm", "_jsc", ".rdd", "sparkContext", "dropDuplicates", "inferSchema", "except Exception"],
)
def test_nothing_that_serverless_refuses_or_that_hides_a_fault(name: str) -> None:
    offenders = [path.name for path in CODE if name in path.read_text(encoding="utf-8")]
    assert offenders == (
        ["locks.py"] if name == "_jvm" else []
    )  # local only, and steps aside under Connect


# What brings rows to the driver, and why each is few: a total or a row a kind, stage, model or version; a page of a
# person's question. Training reads its table through Parquet and one memory-mapped file instead.
FEW_ROWS = {
    "bronze.py", "curate.py", "demo.py", "diff.py", "doctor.py", "finished.py", "model_table.py", "query.py",
    "tables.py", "vacuum.py",
}  # fmt: skip


def test_no_step_collects_a_table_to_the_driver() -> None:
    collecting = {"collect", "toPandas", "toArrow", "toLocalIterator"}
    found = {
        path.name
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in collecting
        and isinstance(node.ctx, ast.Load)
    }
    assert found == FEW_ROWS


def test_the_top_level_holds_the_four_folders_and_files_only() -> None:
    ignored = {".git", ".venv", "dist", "build"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ignored}
    visible = {name for name in folders if not name.startswith(("lake", ".", "spark-", "__"))}
    assert {name for name in visible if not name.endswith("egg-info")} == {
        "jobs",
        "pipelines",
        "schemas",
        "tests",
    }
