"""Small C libraries that a test preloads into a program: a clock that is ahead, a kill at the n-th file change."""

import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def library(name: str, directory: Path) -> Path:
    """tests/<name>.c, compiled by the C compiler that is installed with the developers' dependencies."""
    target = directory / f"{name}.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O2", "-o", str(target), f"{HERE / name}.c"]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target
