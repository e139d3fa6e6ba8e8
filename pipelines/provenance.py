"""Identify the running code by its git commit, and files by their content hash."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def git_commit() -> str | None:
    """Return the commit of the running code; None in an installed wheel."""
    return _git("rev-parse", "HEAD")


def git_is_dirty() -> bool | None:
    """Return whether tracked or new files differ from the commit; None outside a git checkout."""
    changes = _git("status", "--porcelain")
    return None if changes is None else changes != ""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, lower-case hex. The file is read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None
