"""Suppressions of ruff and mypy do not grow without a reason. Reads the sources; needs no Spark."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("jobs", "pipelines", "schemas", "tests")
# The code inside a logged model (tests/model/logged_*/) is a recording of an older commit.
FILES = sorted(
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*.py")
    if not any(part.startswith("logged_") for part in file.relative_to(ROOT).parts)
)
PATTERNS = {
    "fmt: skip": re.compile(r"#\s*fmt: ?(skip|off)\b"),
    "type: ignore": re.compile(r"#\s*(type: ?ignore\b|mypy: )"),
    "noqa": re.compile(r"#\s*(ruff: ?)?noqa\b", re.IGNORECASE),
}
# The exact number of each kind in the code, and the reason why there is any.
ALLOWED = {
    "fmt: skip": 64,  # tables of values, whose rows are easier to compare when they are not wrapped
    "type: ignore": 38,  # libraries without type stubs, or whose stubs are wrong
    "noqa": 7,  # names that a base class prescribes, and lines that a rule misjudges
}
# Files that still keep code from the formatter. No file may be added; the list must become empty.
NOT_YET_FREE_OF_CODE: set[str] = {
    "jobs/score.py",
    "jobs/train.py",
    "pipelines/bundle/resolve.py",
    "pipelines/clean.py",
    "pipelines/ingest/bronze.py",
    "pipelines/lake/tables.py",
    "pipelines/model/classifier.py",
    "pipelines/tracking/model_table.py",
    "pipelines/train/encoder.py",
    "pipelines/train/figures.py",
    "pipelines/train/launch.py",
    "pipelines/train/loop.py",
    "pipelines/train/mlflow_log.py",
    "pipelines/train/settings.py",
    "pipelines/train/training.py",
    "tests/bundle/test_bundle.py",
    "tests/bundle/test_bundle_check.py",
    "tests/bundle/test_resolve.py",
    "tests/bundle/test_runner.py",
    "tests/ingest/test_fetch.py",
    "tests/ingest/test_readers.py",
    "tests/model/test_classifier.py",
    "tests/operate/test_diff.py",
    "tests/operate/test_doctor.py",
    "tests/operate/test_query.py",
    "tests/operate/test_vacuum.py",
    "tests/promote/test_promote.py",
    "tests/rules/test_bundle_faults.py",
    "tests/support/small_gold.py",
    "tests/support/tiny_encoder.py",
    "tests/test_cli.py",
    "tests/test_curate.py",
    "tests/test_reproduce.py",
    "tests/tracking/test_interrupted.py",
    "tests/train/test_environment.py",
    "tests/train/test_launch.py",
    "tests/train/test_loop.py",
    "tests/whole/test_finished.py",
}


def comments_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the text of each comment; strings that look like one are not."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def counts_of(source: str) -> Counter[str]:
    """Count the comments of each kind."""
    return Counter(
        kind
        for _, comment in comments_of(source)
        for kind, pattern in PATTERNS.items()
        if pattern.search(comment)
    )


def is_value(node: ast.expr) -> bool:
    """Return True for a constant, a negative number, or a container of values written out."""
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(operand=operand):
            return is_value(operand)
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return all(is_value(element) for element in elements)
        case ast.Dict(keys=keys, values=values):
            return all(key is not None and is_value(key) for key in [*keys, *values])
        case _:
            return False


def is_table(node: ast.expr | None) -> bool:
    """Return True for a tuple, list, set or dict of values."""
    return isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict) and is_value(node)


def skipped_code(source: str) -> list[int]:
    """Return the lines whose `fmt: skip` does not end the assignment of a table of values."""
    tables_end = {
        node.end_lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_table(node.value)
    }
    skip = PATTERNS["fmt: skip"]
    return [
        line
        for line, comment in comments_of(source)
        if skip.search(comment) and line not in tables_end
    ]


def test_suppressions_are_as_many_as_allowed() -> None:
    counts = Counter[str]()
    for file in FILES:
        counts += counts_of(file.read_text(encoding="utf-8"))
    for kind, allowed in ALLOWED.items():
        count = counts[kind]
        assert count <= allowed, (
            f"{count} comments with `{kind}`, {allowed} allowed: remove one, "
            f"or raise the number in ALLOWED of {Path(__file__).name} and give the reason there"
        )
        assert count == allowed, (
            f"{count} comments with `{kind}`, {allowed} allowed: "
            f"lower the number in ALLOWED of {Path(__file__).name} to {count}"
        )


def test_only_tables_of_values_are_kept_from_the_formatter() -> None:
    lines = {
        f"{file.relative_to(ROOT)}": skipped_code(file.read_text(encoding="utf-8"))
        for file in FILES
    }
    offenders = {name: numbers for name, numbers in lines.items() if numbers}
    assert set(offenders) <= NOT_YET_FREE_OF_CODE, (
        f"`fmt: skip` may only end the assignment of a table of constants, found {offenders}"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("SIZES = (1, -2)  # fmt: skip", []),
        ("NAMES: dict[str, int] = {\n    'a': 1, 'b': 2,\n}  # fmt: skip", []),
        ("ROWS = [('a', 1), ('b', None)]  # fmt: skip", []),
        ("TEXT = '# fmt: skip'", []),
        ("SIZE = 1  # fmt: skip", [1]),
        ("SIZES = (1, size)  # fmt: skip", [1]),
        ("SIZES = {'a': size(1)}  # fmt: skip", [1]),
        ("SIZES = {**OTHERS, 'a': 1}  # fmt: skip", [1]),
        ("call(\n    1, 2,\n)  # fmt: skip", [3]),
        ("def f(a, b):  # fmt: skip\n    return (1, 2)", [1]),
        ("SIZES = (1, 2)\ncall()  # fmt: skip", [2]),
        ("# fmt: off\nSIZES = (1, 2)", [1]),
    ],
)
def test_a_skip_on_code_is_found_and_one_on_a_table_is_not(
    source: str, expected: list[int]
) -> None:
    assert skipped_code(source) == expected


def test_each_kind_is_counted_once_per_comment_and_not_in_strings() -> None:
    source = (
        "a = f()  # type: ignore[index]  # noqa: S101\n"
        "b = '# type: ignore'\n"
        "# mypy: ignore-errors\n"
        "c = [1]  # fmt: skip\n"
    )
    assert counts_of(source) == {"type: ignore": 2, "noqa": 1, "fmt: skip": 1}
