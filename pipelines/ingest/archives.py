"""Zip and tar archives, unpacked whole or not at all."""

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from tqdm import tqdm

from pipelines.errors import InputError

RATIO_FREE_BYTES = (
    1 << 20
)  # a few rows of repeated text pack better than any honest ratio, and harm nobody
CHUNK_BYTES = 1 << 18
NAME_BYTES, PART_BYTES = (
    1000,
    200,
)  # Linux takes 4096 and 255, and the target's own path comes on top
ZIP_ENCRYPTED = 0x1
UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
)
Member = tuple[
    str, str, IO[bytes] | None
]  # name; "file", "directory" or what is refused; a file's content


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to. aclImdb has about 100,000 members and 300 MB, at a ratio of 4."""

    n_members: int = 200_000
    n_bytes: int = 4 << 30
    ratio: int = 200  # bytes unpacked per byte of the archive


DEFAULT_LIMITS = Limits()


def unpack(archive: Path, target: Path, limits: Limits = DEFAULT_LIMITS) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz into the directory `target`, which must not exist yet.

    Files and directories only, under names that are distinct on any file system. InputError names archive and member,
    and leaves nothing behind.
    """
    budget = _Budget(archive, limits)
    names = _Names()
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        extracted = Path(scratch) / "extracted"
        extracted.mkdir()
        try:
            for member in tqdm(_members(archive, budget), unit=" members", delay=2, disable=None):
                _extract(member, extracted, budget, names)
        except UNREADABLE as error:
            found = str(error) or type(error).__name__
            raise InputError(
                f"{archive.name}: expected a whole archive, found: {found}. Get the file again."
            ) from error
        os.replace(extracted, target)
    return target


class _Budget:
    """What one archive has used up of its limits; counts bytes that came out, whatever the headers declare."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive, self.limits, self.member = archive.name, limits, ""
        self.n_members = self.n_bytes = 0
        self.by_ratio = max(limits.ratio * archive.stat().st_size, RATIO_FREE_BYTES)

    def start(self, member: str) -> None:
        self.member = member
        self.n_members += 1
        if self.n_members > self.limits.n_members:
            raise self.refusal(f"at most {self.limits.n_members:,} members", "more")

    def spend(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        if self.n_bytes > self.limits.n_bytes:
            raise self.refusal(f"at most {self.limits.n_bytes:,} bytes unpacked", "more")
        if self.n_bytes > self.by_ratio:
            raise self.refusal(
                f"at most {self.limits.ratio} bytes unpacked per byte of the archive", "more"
            )

    def refusal(self, expected: str, found: str) -> InputError:
        return InputError(
            f"{self.archive}!{self.member!r}: expected {expected}, found {found}. Repack the archive."
        )


class _Counted:
    """A stream whose bytes count against the budget as they are read."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self.stream, self.budget = stream, budget

    def read(self, size: int = -1) -> bytes:
        chunk = self.stream.read(size)
        self.budget.spend(len(chunk))
        return chunk


class _Names:
    """The names taken so far, as a file system blind to case and Unicode form would see them."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def claim(self, path: PurePosixPath, is_file: bool) -> bool:
        """Whether the name was free: no file of that name, none in place of a folder above it, no folder under it."""
        own, *above = (
            unicodedata.normalize("NFC", str(p)).casefold() for p in (path, *path.parents)
        )
        if (
            own in self.files
            or not self.files.isdisjoint(above)
            or (is_file and own in self.folders)
        ):
            return False
        self.folders.update(above if is_file else [own, *above])
        self.files.update([own] if is_file else [])
        return True


def _members(archive: Path, budget: _Budget) -> Iterator[Member]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(archive, budget)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar_members(archive, budget, is_packed=not name.endswith(".tar"))
    raise InputError(
        f"{archive.name}: expected .zip, .tar, .tar.gz or .tgz, found another ending. Repack it."
    )


def _zip_members(archive: Path, budget: _Budget) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = _zip_kind(info)
            content = opened.open(info) if kind == "file" else None
            # orig_filename: zipfile itself cuts a name at its first NUL
            yield info.orig_filename, kind, content and cast(IO[bytes], _Counted(content, budget))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a symbolic link" if stat.S_ISLNK(mode) else "a device"
    if info.flag_bits & ZIP_ENCRYPTED:
        return "an encrypted file"
    return "directory" if info.is_dir() else "file"


def _tar_members(archive: Path, budget: _Budget, is_packed: bool) -> Iterator[Member]:
    with gzip.open(archive) if is_packed else archive.open("rb") as plain:
        # The whole stream is counted: a header may declare gigabytes too, and tarfile reads headers into memory.
        stream = cast(BinaryIO, _Counted(cast(IO[bytes], plain), budget))
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for member in opened:
                yield (
                    member.name,
                    _tar_kind(member),
                    opened.extractfile(member) if member.isreg() else None,
                )
            # tarfile takes a damaged or cut header for the end, and would leave gzip's checksum unread.
            n_rest = 0
            while rest := cast(IO[bytes], opened.fileobj).read(CHUNK_BYTES):
                n_rest += len(rest)
                if rest.strip(b"\0"):
                    raise tarfile.ReadError("a damaged member header")
            if (
                n_rest < tarfile.BLOCKSIZE
            ):  # an archive ends with two blocks of zeros, and tarfile has read one
                raise tarfile.ReadError("no end of the archive")


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a symbolic link" if member.issym() else "a hard link"
    return "directory" if member.isdir() else "file" if member.isreg() else "a device"


def _extract(member: Member, root: Path, budget: _Budget, names: _Names) -> None:
    name, kind, content = member
    budget.start(name)
    if kind not in ("file", "directory"):
        raise budget.refusal("files and directories only", kind)
    path = PurePosixPath(name)
    if fault := _name_fault(name, path):
        raise budget.refusal("a plain name inside the archive", fault)
    if not names.claim(path, is_file=content is not None):
        raise budget.refusal("each name once, in whatever case", "a second one")
    landed = root / path
    if content is None:
        landed.mkdir(parents=True, exist_ok=True)
        return
    landed.parent.mkdir(parents=True, exist_ok=True)
    with landed.open("xb") as file:
        shutil.copyfileobj(content, file, CHUNK_BYTES)


def _name_fault(name: str, path: PurePosixPath) -> str:
    if path.is_absolute() or name[1:2] == ":":
        return "an absolute one"
    if ".." in path.parts:
        return "one that climbs out by .."
    if "\\" in name or "\0" in name:
        return "a backslash or a NUL in it"
    if len(os.fsencode(name)) > NAME_BYTES or any(
        len(os.fsencode(part)) > PART_BYTES for part in path.parts
    ):
        return "one too long"
    return ""
