"""The rules of the layout, checked in the code: rooms, budgets, banned words. Needs no Spark.

import-linter checks the layers within pipelines/ (`make lint`).
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("schemas", "pipelines", "jobs")
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
CODE = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
MAX_LINES, MAX_JOB_LINES, MAX_FUNCTION_LINES = 300, 110, 80
OWN_BUDGET = {"classifier.py": 460}  # MLflow logs it as the model's code, which is one file


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, at its top or inside a function."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return modules


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_jobs_and_modules_to_look_at() -> None:
    assert {"ingest", "clean", "curate", "train", "promote", "score", "query", "demo"} <= set(JOBS)
    assert len(CODE) > 60


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_imports_go_from_jobs_to_pipelines_to_schemas_only(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    above = LAYERS[LAYERS.index(layer) + 1 :] if layer != "jobs" else ("jobs",)
    top_packages = {module.split(".")[0] for module in imported(path)}
    assert not top_packages & {*above, "tests"}


@pytest.mark.parametrize("job", JOBS)
def test_each_job_has_a_room_or_a_module_and_tests_of_its_name(job: str) -> None:
    rooms = [path.parent.name for path in (ROOT / "pipelines").glob("*/__init__.py")]
    assert job in rooms or list((ROOT / "pipelines").rglob(f"{job}.py"))
    assert (ROOT / "tests" / job).is_dir() or list((ROOT / "tests").rglob(f"test_{job}.py"))


def test_every_room_says_what_it_is_and_has_its_tests() -> None:
    rooms = sorted(path.parent for path in (ROOT / "pipelines").glob("*/__init__.py"))
    assert len(rooms) >= 8
    for room in rooms:
        tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree)
        assert len(tree.body) == 1  # modules are imported by their own names
        order = ast.get_docstring(tree) or ""
        modules = [path.stem for path in room.glob("[a-z]*.py")]
        assert [name for name in modules if not re.search(rf"\b{name}\b", order)] == [], room.name
        assert list((ROOT / "tests" / room.name).glob("test_*.py")), room.name


def test_every_test_file_opens_with_what_it_proves() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    trees = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in files}
    assert len(trees) > 50
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_results_are_printed_by_one_function_that_escapes_them() -> None:
    own = {
        "pipelines/program.py",  # that function
        "jobs/query.py",  # exact text for other programs
        "pipelines/train/rank_process.py",  # a signal to its parent process
    }
    printing = {
        name_of(path)
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert printing == own


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_files_and_functions_keep_to_their_budgets(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(source))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    lengths = [(node.end_lineno or 0) - node.lineno + 1 for node in functions]
    budget = OWN_BUDGET.get(path.name, MAX_LINES)
    if path.parent.name == "jobs":
        budget = MAX_JOB_LINES
    assert len(source.splitlines()) <= budget
    assert max(lengths, default=0) <= MAX_FUNCTION_LINES


@pytest.mark.parametrize(
    "word",
    [
        "_jvm",
        "_jsparkSession",
        "_jsc",
        ".rdd",
        "sparkContext",
        "dropDuplicates",
        "inferSchema",
        "except Exception",
    ],
)
def test_nothing_that_serverless_refuses_or_that_hides_a_fault(word: str) -> None:
    users = [path.name for path in CODE if word in path.read_text(encoding="utf-8")]
    # For locks on local paths, signals, and Spark's own parser, which judges a person's SQL.
    owners = {"_jvm": ["locks.py", "signals.py"], "_jsparkSession": ["judge.py"]}
    assert users == owners.get(word, [])


# These bring rows to the driver, and few of them: totals, one row per kind, stage, run, model or
# version, or one page of a person's query. Training reads its table through a memory-mapped file.
FEW_ROWS = {
    "bronze.py",
    "catalog.py",
    "clean.py",
    "curate.py",
    "deep.py",
    "demo.py",
    "diff.py",
    "doctor.py",
    "frames.py",
    "model_table.py",
    "query.py",
    "reading.py",
    "tables.py",
    "vacuum.py",
}


def test_no_step_collects_a_table_to_the_driver() -> None:
    collecting = {"collect", "toPandas", "toArrow", "toLocalIterator"}
    collectors = set()
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in collecting:
                collectors.add(path.name)
    assert collectors == FEW_ROWS


def test_the_top_level_holds_the_four_folders_and_files_only() -> None:
    ignored = {".git", ".venv", "dist", "build"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ignored}
    visible = {name for name in folders if not name.startswith(("lake", ".", "spark-", "__"))}
    packages = {name for name in visible if not name.endswith("egg-info")}
    assert packages == {"jobs", "pipelines", "schemas", "tests"}
