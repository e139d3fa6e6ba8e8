"""The manifest of a logged model: path, size and SHA-256 of every file, checked before anything is imported."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipelines.provenance import sha256_of


class ManifestError(ValueError):
    """A directory whose files are not those of its manifest."""


ModelFile = tuple[str, int, str]  # path, bytes, SHA-256


def manifest_of(directory: Path) -> list[ModelFile]:
    """Path, size in bytes and SHA-256 of every file below a directory, sorted by path."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    return sorted(
        (file.relative_to(directory).as_posix(), file.stat().st_size, sha256_of(file))
        for file in files
    )


def verify_manifest(directory: Path, manifest: Iterable[ModelFile]) -> None:
    """Raise ManifestError, naming the file, unless the directory holds exactly the manifest's files."""
    expected, found = (
        {row[0]: [str(row[1]), row[2]] for row in rows}
        for rows in (manifest, manifest_of(directory))
    )
    for path in sorted(expected | found):
        if expected.get(path) != found.get(path):
            said = [
                " bytes of SHA-256 ".join(rows.get(path, ["no such file"]))
                for rows in (expected, found)
            ]
            raise ManifestError(f"{directory}/{path}: the manifest says {said[0]}, found {said[1]}")


def manifest_sha256(files: Iterable[ModelFile]) -> str:
    """SHA-256 of a manifest, in the form `sha256sum` reads: a line a file, sorted by path."""
    lines = [f"{sha256}  {path}\n" for path, _, sha256 in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
