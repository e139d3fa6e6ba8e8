"""Every job starts quickly: --help imports nothing heavy, a finished job needs no Java.

Runs jobs in processes of their own; needs no Spark.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
HEAVY = ("mlflow", "pandas", "py4j", "pyspark", "sklearn", "tokenizers", "torch", "transformers")
WRITING_METHODS = ("clear", "pop", "putenv", "setdefault", "update")
CODE = [*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]


def python(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("flags", [["--help"], ["--no-such-flag"]], ids=["help", "wrong flag"])
def test_help_and_errors_of_flags_come_before_anything_heavy_is_imported(
    job: str, flags: list[str]
) -> None:
    look = (
        "import runpy, sys\n"
        f"sys.argv = ['jobs/{job}.py', *{flags!r}]\n"
        "try:\n"
        f"    runpy.run_path('jobs/{job}.py', run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    print('exit', ended.code)\n"
        f"print('heavy', sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    printed = python("-c", look)
    exit_code = 0 if flags == ["--help"] else 2
    assert printed.stdout.splitlines()[-2:] == [f"exit {exit_code}", "heavy []"], printed.stderr


def test_the_runner_shows_its_help_before_anything_heavy_is_imported() -> None:
    look = (
        "import runpy, sys\n"
        "sys.argv = ['bundle', '--help']\n"
        "try:\n"
        "    runpy.run_module('pipelines.bundle', run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    print('exit', ended.code)\n"
        f"print('heavy', sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    printed = python("-c", look)
    assert printed.stdout.splitlines()[-2:] == ["exit 0", "heavy []"], printed.stderr


def changes_of_environ(path: Path) -> list[str]:
    """Return the statements of a file that change os.environ."""
    changes = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            changes.append(ast.unparse(node))
        if isinstance(node, ast.Attribute) and node.attr in WRITING_METHODS:
            changes.append(ast.unparse(node))
    return [change for change in changes if change.startswith(("os.environ", "os.putenv"))]


def test_environment_variables_are_written_in_one_place_and_at_the_start() -> None:
    writers = {path.relative_to(ROOT).as_posix() for path in CODE if changes_of_environ(path)}
    # The defaults that libraries read when they load, and the one function that sets others.
    assert writers == {"pipelines/__init__.py", "pipelines/program.py"}
