"""Unpack zip and tar archives, whole or not at all."""

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from tqdm import tqdm

from pipelines.errors import InputError
from pipelines.quoting import shown

RATIO_FREE_BYTES = 1 << 20  # a few rows of repeated text exceed any honest ratio and harm nobody
CHUNK_BYTES = 1 << 18
MAX_NAME_BYTES = 1000  # Linux allows 4096; the target directory's path is added
MAX_PART_BYTES = 200  # Linux allows 255
SHOWN_CHARACTERS = 100  # maximum length of a name in an error
ZIP_ENCRYPTED = 0x1
UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,
    UnicodeDecodeError,  # a zip member whose name is declared as UTF-8 and is not
)


@dataclass(frozen=True)
class Limits:
    """The largest archive that is unpacked.

    aclImdb has about 100,000 members and unpacks to 300 MB, 4 times the size of the archive.
    """

    n_members: int = 200_000
    n_bytes: int = 4 << 30
    ratio: int = 200  # bytes unpacked per byte of the archive


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    kind: str  # "file", "directory", or a kind that is refused
    content: IO[bytes] | None  # of a file


DEFAULT_LIMITS = Limits()


def unpack(archive: Path, target: Path, limits: Limits = DEFAULT_LIMITS) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz into the directory `target`, which must not exist yet.

    Only files and directories are accepted, and no member may overwrite another. An InputError
    names the archive and the member, and nothing is left behind.
    """
    budget = Budget(archive, limits)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        extracted = Path(scratch) / "extracted"
        extracted.mkdir()
        try:
            for member in tqdm(_members(archive, budget), unit=" members", delay=2, disable=None):
                _extract(member, extracted, budget)
        except UNREADABLE as error:
            raise damaged(archive.name, error) from error
        os.replace(extracted, target)
    return target


def damaged(name: str, error: Exception) -> InputError:
    """Return the error for an archive or compressed file that cannot be read."""
    reason = shown(str(error) or type(error).__name__)
    return InputError(f"{name}: damaged archive: {reason}. Get the file again.")


class Budget:
    """Count the members and bytes that are really unpacked; the headers may declare other sizes."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive = archive.name
        self.limits = limits
        self.member = ""
        self.n_members = 0
        self.n_bytes = 0
        self.max_by_ratio = max(limits.ratio * archive.stat().st_size, RATIO_FREE_BYTES)

    def start(self, member: str) -> None:
        """Count a member; its bytes are spent next."""
        self.member = member
        self.n_members += 1
        if self.n_members > self.limits.n_members:
            raise self.refusal(f"the archive has more than {self.limits.n_members:,} members")

    def spend(self, n_bytes: int) -> None:
        """Count unpacked bytes. Raises InputError if there are too many."""
        self.n_bytes += n_bytes
        if self.n_bytes > self.limits.n_bytes:
            limit = f"{self.limits.n_bytes:,} bytes"
            raise self.refusal(f"the archive unpacks to more than {limit}")
        if self.n_bytes > self.max_by_ratio:
            limit = f"{self.limits.ratio} times its size"
            raise self.refusal(f"the archive unpacks to more than {limit}")

    def refusal(self, problem: str) -> InputError:
        """Return the error that names the archive and the member."""
        member = self.member
        if len(member) > SHOWN_CHARACTERS:
            member = member[:SHOWN_CHARACTERS] + "…"
        where = f"{self.archive}!{member!r}" if member else self.archive
        return InputError(f"{where}: {problem}. Repack the archive.")


class _Counted:
    """A stream that charges each byte read to the budget."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self.stream = stream
        self.budget = budget

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does."""
        chunk = self.stream.read(size)
        self.budget.spend(len(chunk))
        return chunk


def _members(archive: Path, budget: Budget) -> Iterator[Member]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(archive, budget)
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar_members(archive, budget)
    raise InputError(
        f"{archive.name}: unknown kind of archive, not .zip, .tar, .tar.gz or .tgz. Repack it."
    )


def _zip_members(archive: Path, budget: Budget) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = info.orig_filename  # `filename` is cut at the first NUL
            kind = zip_kind(info)
            if kind != "file":
                yield Member(name, kind, None)
                continue
            with opened.open(info) as content:
                yield Member(name, kind, cast(IO[bytes], _Counted(content, budget)))


def zip_kind(info: zipfile.ZipInfo) -> str:
    """Return "file", "directory", or the kind of a member that is refused."""
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device"
    if info.flag_bits & ZIP_ENCRYPTED:
        return "an encrypted file"
    return "directory" if info.is_dir() else "file"


def _tar_members(archive: Path, budget: Budget) -> Iterator[Member]:
    is_plain = archive.name.lower().endswith(".tar")
    with archive.open("rb") if is_plain else gzip.open(archive) as unpacked:
        # Count the headers too: one may declare gigabytes, and tarfile reads it into memory.
        stream = cast(BinaryIO, _Counted(cast(IO[bytes], unpacked), budget))
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for member in opened:
                kind = _tar_kind(member)
                content = opened.extractfile(member) if kind == "file" else None
                yield Member(member.name, kind, content)
            _require_end(cast(IO[bytes], opened.fileobj))


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym():
        return "a symbolic link"
    if member.islnk():
        return "a hard link"
    if member.issparse():  # its holes would not count against the budget
        return "a sparse file"
    if member.isdir():
        return "directory"
    return "file" if member.isreg() else "a device"


def _require_end(stream: IO[bytes]) -> None:
    """Raise ReadError unless the rest of the archive is zeros, and at least one block of them.

    tarfile takes a damaged or truncated header for the end of the archive and then does not read
    the checksum of gzip. An archive ends with two blocks of zeros, of which tarfile reads one.
    """
    n_rest = 0
    while rest := stream.read(CHUNK_BYTES):
        n_rest += len(rest)
        if rest.strip(b"\0"):
            raise tarfile.ReadError("a damaged member header")
    if n_rest < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end of the archive is missing")


def _extract(member: Member, root: Path, budget: Budget) -> None:
    budget.start(member.name)
    if member.kind not in ("file", "directory"):
        raise budget.refusal(f"{member.kind}; only files and directories are accepted")
    if fault := _name_fault(member.name):
        raise budget.refusal(f"unsafe name: {fault}")
    landed = root / member.name
    try:
        if member.content is None:
            landed.mkdir(parents=True, exist_ok=True)
            return
        landed.parent.mkdir(parents=True, exist_ok=True)
        with landed.open("xb") as file:
            shutil.copyfileobj(member.content, file, CHUNK_BYTES)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise budget.refusal("it would overwrite another member") from error


def _name_fault(name: str) -> str:
    """Return why no file may be written under this name; "" if it may."""
    path = PurePosixPath(name)
    if path.is_absolute() or name[1:2] == ":":
        return "absolute path"
    if ".." in path.parts:
        return ".. leads out of the archive"
    if "\\" in name or "\0" in name:
        return "backslash or NUL"
    longest_part = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if len(os.fsencode(name)) > MAX_NAME_BYTES or longest_part > MAX_PART_BYTES:
        return "too long"
    return ""
