"""Small C libraries that a test preloads into a program: a clock that is ahead, a kill at the n-th file change."""

import subprocess
import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


@cache
def library(name: str, directory: Path) -> Path:
    """The C file of that name below tests/, compiled by the C compiler of the extra `dev`."""
    target = directory / f"{name}.so"
    source = next(TESTS.rglob(f"{name}.c"))
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-shared",
        "-fPIC",
        "-O2",
        "-o",
        str(target),
        str(source),
    ]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target
