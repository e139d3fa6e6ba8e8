"""What a result depends on besides data and settings: code, lock, Python, torch, processor."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def git_commit() -> str | None:
    """Commit of the code that runs; None where it is not a git checkout, as in an installed wheel."""
    return _git("rev-parse", "HEAD")


def git_is_dirty() -> bool | None:
    """Whether files differ from the commit, or are not in it (ignored ones aside); None outside a checkout."""
    changes = _git("status", "--porcelain")
    return None if changes is None else changes != ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else None
