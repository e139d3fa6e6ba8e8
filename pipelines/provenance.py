"""Identify the running code by its git commit and its hash, and files by their content hash."""

import hashlib
import importlib.resources
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

from pipelines.errors import SetupError
from pipelines.quoting import shown

log = logging.getLogger("reviewlake")

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipelines", "schemas")
GIT_WAIT_S = 60  # `git status` of a checkout on a slow disk
# Git sets them for its hooks; they name the repository that git then takes.
ELSEWHERE = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"}
SHORT = 12  # characters of a hash in a message
Rows = TypeVar("Rows")
Returned = TypeVar("Returned")


@cache
def git_commit() -> str | None:
    """Return the commit of the running code; None if it is not known, which is logged once."""
    try:
        return _git("rev-parse", "--verify", "HEAD")
    except _UnknownError as error:
        code = package_sha256()[:SHORT]
        log.info("commit unknown: %s; runs are recorded without it (code %s)", error, code)
        return None


def git_is_dirty() -> bool | None:
    """Return whether tracked or new files differ from the commit; None if it is not known."""
    try:
        return _git("status", "--porcelain") != ""
    except _UnknownError:
        return None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, lower-case hex. The file is read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def package_sha256() -> str:
    """Return the hash of this project's Python files: equal in a checkout, a wheel and a zip."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path, content in sorted(_sources(importlib.resources.files(package), package)):
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def same_code(
    function: Callable[[Iterator[Rows]], Iterator[Returned]],
) -> Callable[[Iterator[Rows]], Iterator[Returned]]:
    """Let a pandas UDF run only where Python imports the same code as here, in the driver."""
    expected, place = package_sha256(), str(ROOT)

    @wraps(function)
    def checked(batches: Iterator[Rows]) -> Iterator[Returned]:
        require_code(expected, place)
        return function(batches)

    return checked


def require_code(expected: str, place: str) -> None:
    """Raise SetupError unless this process imports the code of that hash, the driver's."""
    if package_sha256() != expected:
        raise SetupError(
            f"workers: expected the driver's code {expected[:SHORT]} of {place}, found "
            f"{package_sha256()[:SHORT]} of {ROOT}. Give the workers the same wheel or zip; if "
            "these files have just changed, run it again."
        )


def python_path(environment: Mapping[str, str]) -> str:
    """Return PYTHONPATH for child processes: this code first, never the current directory."""
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [str(Path(part).absolute()) for part in given if part]
    return os.pathsep.join(dict.fromkeys([str(ROOT), *absolute]))


def _sources(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{path}/{entry.name}", entry.read_bytes()


def log_code(stage: str) -> None:
    """Log which code the workers of a stage have run: `same_code` has compared it."""
    log.info("%s: the workers ran this code, %s", stage, package_sha256()[:SHORT])


class _UnknownError(Exception):
    """The reason why git does not answer."""


def _git(*arguments: str) -> str:
    """Ask git about this checkout, and no other one: neither one around it nor that of GIT_DIR."""
    if not (ROOT / ".git").exists():
        raise _UnknownError("this code is installed, or was copied without .git")
    outside = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    only_here = {"GIT_CEILING_DIRECTORIES": str(ROOT.parent), "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            env=outside | only_here | {"LC_ALL": "C"},
            capture_output=True,
            timeout=GIT_WAIT_S,
            check=True,
        )
    except FileNotFoundError as error:
        raise _UnknownError("git is not on PATH") from error
    except OSError as error:
        raise _UnknownError(f"git does not start: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise _UnknownError(f"git has not answered in {GIT_WAIT_S} s") from error
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").partition("\n")[0]
        raise _UnknownError(f"git says: {shown(words)}") from error
    return answer.stdout.decode(errors="replace").strip()
