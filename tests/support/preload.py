"""Compile the C libraries that tests preload: a clock set ahead, a kill at the n-th file change."""

import subprocess
import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ZIG_COMPILER = [sys.executable, "-m", "ziglang", "cc"]  # from the extra `dev`


@cache
def library(name: str, directory: Path) -> Path:
    """Compile NAME.c, which lies somewhere below tests/; return the shared library."""
    target = directory / f"{name}.so"
    source = next(TESTS.rglob(f"{name}.c"))
    options = ["-shared", "-fPIC", "-O2", "-o", str(target)]
    command = [*ZIG_COMPILER, *options, str(source), "-ldl"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return target
