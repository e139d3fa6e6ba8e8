"""The manifest of a logged model: path, size and SHA-256 of every file.

A model is loaded from a private copy that holds exactly these files. They are opened without
following links, and hashed as they are copied. Nothing else in the directory is read.
"""

import contextlib
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipelines.quoting import shown

ModelFile = tuple[str, int, str]  # path, bytes, SHA-256

CHUNK_BYTES = 1 << 20
MAX_DEPTH = 50  # of directories below a model's; MLflow makes three
META = "registered_model_meta"  # MLflow writes it into a model that is opened by models:/name/…
CACHE = "__pycache__"  # Python writes it beside the code of a model
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
NO_FILE = "no such file"


class ManifestError(ValueError):
    """The files of a directory do not match its manifest."""


def manifest_of(directory: Path) -> list[ModelFile]:
    """List path, size in bytes and SHA-256 of every file below a directory, sorted by path.

    Leaves out the files that MLflow and Python write beside a logged model. Raises ManifestError
    for a link, and for anything else that is no regular file.
    """
    files: list[ModelFile] = []
    with _root_of(directory) as root:
        for path, kind in _tree(root):
            if kind == "a directory" or path == META or CACHE in path.split("/"):
                continue
            with _opened(root, directory, path) as file:
                digest = hashlib.file_digest(file, "sha256")
                files.append((path, os.fstat(file.fileno()).st_size, digest.hexdigest()))
    return sorted(files)


def verify_manifest(directory: Path, manifest: Iterable[ModelFile]) -> None:
    """Raise ManifestError, naming the file, if a file of the manifest is missing or changed."""
    with _root_of(directory) as root:
        for path, size, sha256 in manifest:
            with _opened(root, directory, path) as file:
                _read(file, None, where=f"{directory}/{shown(path)}", size=size, sha256=sha256)


def copy_verified(directory: Path, target: Path, manifest: Iterable[ModelFile]) -> None:
    """Copy exactly the files of the manifest to the new directory `target`.

    Raises ManifestError, naming the file, if one is missing or changed; an OSError means that
    the copy could not be written.
    """
    target.mkdir(parents=True)
    with _root_of(directory) as root:
        for path, size, sha256 in manifest:
            where = f"{directory}/{shown(path)}"
            with _opened(root, directory, path) as file:
                copied = target / path
                copied.parent.mkdir(parents=True, exist_ok=True)
                with copied.open("xb") as copy:
                    _read(file, copy, where=where, size=size, sha256=sha256)


def extra_files(directory: Path, manifest: Iterable[ModelFile]) -> list[tuple[str, str]]:
    """Return path and kind of what is beside the files of the manifest, sorted by path.

    Leaves out what MLflow and Python write there: `registered_model_meta`, and the bytecode of
    the model's own code. Links are always listed; of a directory, only its own path.
    """
    paths = {path for path, _, _ in manifest}
    known = paths | {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    extras: dict[str, str] = {}
    with _root_of(directory) as root:
        for path, kind in _tree(root):
            is_known = path in known or _is_harmless(path, kind, paths)
            is_in_extra = _folder_of(path) in extras
            if (kind == "a link" or not is_known) and not is_in_extra:
                extras[path] = kind
    return [(shown(path), kind) for path, kind in sorted(extras.items())]


def manifest_sha256(files: Iterable[ModelFile]) -> str:
    """Hash a manifest in the format of `sha256sum`: one line per file, sorted by path."""
    lines = [f"{sha256}  {path}\n" for path, _, sha256 in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _is_harmless(path: str, kind: str, paths: set[str]) -> bool:
    """Return whether MLflow or Python wrote this beside the files of the manifest."""
    if kind == "a file" and path == META:
        return True
    folder, _, name = path.rpartition("/")
    if kind == "a directory" and name == CACHE:
        return any(_folder_of(logged) == folder and logged.endswith(".py") for logged in paths)
    # The number is of a file that was being written when the process was killed.
    cached = re.fullmatch(r"([^.]+)\.[\w-]+(\.opt-\w+)?\.pyc(\.\d+)?", name)
    if kind != "a file" or cached is None or folder.rpartition("/")[2] != CACHE:
        return False
    return f"{folder.removesuffix(CACHE)}{cached[1]}.py" in paths


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _tree(root: int, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield path and kind of everything below an open directory; links are not followed."""
    if above.count("/") > MAX_DEPTH:
        raise ManifestError(f"{shown(above)}: directories nested more than {MAX_DEPTH} deep")
    for name in sorted(os.listdir(root)):
        kind = _kind(root, name)
        if not _is_utf8(name):
            raise ManifestError(f"{shown(above + name)}: the name is not valid UTF-8")
        yield above + name, kind
        if kind == "a directory":
            with _directory(root, name) as inner:
                yield from _tree(inner, f"{above}{name}/")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(parent: int, name: str) -> str:
    """Return the kind of a directory entry, without opening it."""
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        return NO_FILE
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a link"}
    return kinds.get(stat.S_IFMT(mode), "no regular file")


@contextlib.contextmanager
def _root_of(directory: Path) -> Iterator[int]:
    """Open a model's directory, which must be no link itself; yield its descriptor."""
    try:
        root = os.open(directory, OPEN_DIRECTORY)
    except OSError as error:
        kind = "a link" if directory.is_symlink() else error.strerror
        raise ManifestError(f"{directory}: expected a directory, found: {kind}") from error
    try:
        yield root
    finally:
        os.close(root)


@contextlib.contextmanager
def _directory(parent: int, name: str) -> Iterator[int]:
    opened = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
    try:
        yield opened
    finally:
        os.close(opened)


@contextlib.contextmanager
def _opened(root: int, directory: Path, path: str) -> Iterator[io.BufferedReader]:
    """Open a file of the manifest for reading; ManifestError unless it is a regular file.

    Each directory on the way is opened from the one above it, so that none can be a link.
    """
    *folders, name = _parts(path)
    where = f"{directory}/{shown(path)}"
    with contextlib.ExitStack() as stack:
        parent = root
        for folder in folders:
            _require(_kind(parent, folder), "a directory", where)
            try:
                parent = stack.enter_context(_directory(parent, folder))
            except OSError as error:
                raise ManifestError(f"{where}: cannot be read: {error.strerror}") from error
        _require(_kind(parent, name), "a file", where)
        try:
            descriptor = os.open(name, OPEN_FILE, dir_fd=parent)
        except OSError as error:
            raise ManifestError(f"{where}: cannot be read: {error.strerror}") from error
        file = stack.enter_context(os.fdopen(descriptor, "rb"))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # exchanged since it was looked at
            raise ManifestError(f"{where}: the manifest says a file, found no regular file")
        yield file


def _require(kind: str, expected: str, where: str) -> None:
    if kind != expected:
        of_folder = " in its path" if expected == "a directory" and kind != NO_FILE else ""
        raise ManifestError(f"{where}: the manifest says a file, found {kind}{of_folder}")


def _parts(path: str) -> Sequence[str]:
    parts = path.split("/")
    if "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise ManifestError(
            f"{shown(path)}: a path of the manifest must be relative, without empty parts or '..'"
        )
    return parts


def _read(
    file: io.BufferedReader, copy: io.BufferedWriter | None, *, where: str, size: int, sha256: str
) -> None:
    """Read a file, write it to `copy`; ManifestError unless it has this size and SHA-256."""
    expected = f"{where}: the manifest says {size} bytes of SHA-256 {sha256}, found"
    actual_size = os.fstat(file.fileno()).st_size
    if actual_size != size:
        raise ManifestError(f"{expected} {actual_size} bytes")
    digest = hashlib.sha256()
    n_read = 0
    while n_read <= size and (chunk := _chunk(file, where)):
        n_read += len(chunk)
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    if n_read != size or digest.hexdigest() != sha256:
        raise ManifestError(f"{expected} {n_read} bytes of SHA-256 {digest.hexdigest()}")


def _chunk(file: io.BufferedReader, where: str) -> bytes:
    try:
        return file.read(CHUNK_BYTES)
    except OSError as error:
        raise ManifestError(f"{where}: cannot be read: {error.strerror}") from error
