"""The manifest of a logged model: path, size and SHA-256 of every file.

It is verified before any code of the model is imported.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipelines.provenance import sha256_of


class ManifestError(ValueError):
    """The files of a directory do not match its manifest."""


ModelFile = tuple[str, int, str]  # path, bytes, SHA-256


def manifest_of(directory: Path) -> list[ModelFile]:
    """List path, size in bytes and SHA-256 of every file below a directory, sorted by path."""
    files: list[ModelFile] = []
    for file in directory.rglob("*"):
        if file.is_file():
            path = file.relative_to(directory).as_posix()
            files.append((path, file.stat().st_size, sha256_of(file)))
    return sorted(files)


def verify_manifest(directory: Path, manifest: Iterable[ModelFile]) -> None:
    """Raise ManifestError, naming the file, if a file is missing, extra or changed."""
    expected = {path: (size, sha256) for path, size, sha256 in manifest}
    actual = {path: (size, sha256) for path, size, sha256 in manifest_of(directory)}
    for path in sorted(expected.keys() | actual.keys()):
        if expected.get(path) != actual.get(path):
            raise ManifestError(
                f"{directory}/{path}: the manifest says {_shown(expected.get(path))}, "
                f"found {_shown(actual.get(path))}"
            )


def manifest_sha256(files: Iterable[ModelFile]) -> str:
    """Hash a manifest in the format of `sha256sum`: one line per file, sorted by path."""
    lines = [f"{sha256}  {path}\n" for path, _, sha256 in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _shown(file: tuple[int, str] | None) -> str:
    if file is None:
        return "no such file"
    size, sha256 = file
    return f"{size} bytes of SHA-256 {sha256}"
