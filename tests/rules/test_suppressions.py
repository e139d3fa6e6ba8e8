"""Suppressions of ruff and mypy do not grow without a reason. Reads the sources; needs no Spark."""

import io
import re
import tokenize
from collections import Counter
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
    "fmt: skip": 0,
    "type: ignore": 26,  # libraries without type stubs, or whose stubs are wrong
    "noqa": 4,  # names and signatures that a base class prescribes
}


def counts_of(source: str) -> Counter[str]:
    """Count the comments of each kind; strings that look like one are not counted."""
    counts = Counter[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            counts.update(
                kind for kind, pattern in PATTERNS.items() if pattern.search(token.string)
            )
    return counts


@pytest.mark.parametrize("kind", sorted(ALLOWED))
def test_suppressions_are_exactly_as_many_as_allowed(kind: str) -> None:
    counts = {
        str(file.relative_to(ROOT)): counts_of(file.read_text(encoding="utf-8"))[kind]
        for file in FILES
    }
    where = {name: count for name, count in counts.items() if count}
    assert sum(where.values()) == ALLOWED[kind], (
        f"remove one, or change the number in ALLOWED of {Path(__file__).name} and give the reason "
        f"there; `{kind}` is in {where}"
    )


def test_each_kind_is_counted_once_per_comment_and_not_in_strings() -> None:
    source = (
        "a = f()  # type: ignore[index]  # noqa: S101\n"
        "b = '# type: ignore'\n"
        "# mypy: ignore-errors\n"
        "c = [1]  # fmt: skip\n"
    )
    assert counts_of(source) == {"type: ignore": 2, "noqa": 1, "fmt: skip": 1}
