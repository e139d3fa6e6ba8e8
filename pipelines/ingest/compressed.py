"""Decompress a delivered file: gzip, bzip2, xz, Zstandard, or a zip that holds one file.

The first bytes decide, not the name: browsers and download tools drop and add suffixes.
"""

import bz2
import dataclasses
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from pipelines.errors import InputError
from pipelines.ingest.archives import CHUNK_BYTES, DEFAULT_LIMITS, Budget, zip_kind
from pipelines.ingest.decoding import Source
from pipelines.quoting import shown

ZIP = b"PK\x03\x04"
ADDED_BY_MACOS = ("__MACOSX/", ".DS_Store")
WORKBOOK = "[Content_Types].xml"  # in every Excel file, which is a zip
DAMAGE = (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def _open_zstd(path: Path) -> IO[bytes]:
    import pyarrow as pa  # imported here: 0.2 s that other files do not need

    return cast(IO[bytes], pa.input_stream(str(path), compression="zstd"))


def _open_gzip(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb"))


OPENERS: Mapping[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": _open_gzip,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}


def decompressed(source: Source, scratch: Path) -> Source:
    """Return the plain file, written to `scratch`; a source that is not compressed as it is.

    Raises InputError for a damaged file, for a zip of several files, and for too much content.
    """
    with source.path.open("rb") as file:
        start = file.read(8)
    if start.startswith(ZIP):
        return _unzipped(source, scratch)
    for magic, opener in OPENERS.items():
        if start.startswith(magic):
            with opener(source.path) as content:
                return _written(source, content, scratch)
    return source


def _unzipped(source: Source, scratch: Path) -> Source:
    try:
        archive = zipfile.ZipFile(source.path)
    except zipfile.BadZipFile as error:
        raise _damaged(source, error) from error
    with archive:
        members = [
            info
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith(ADDED_BY_MACOS)
        ]
        if WORKBOOK in archive.namelist():
            raise source.fault("an Excel workbook", "Export its sheet as CSV.")
        kinds = [zip_kind(info) for info in members]
        if kinds != ["file"]:
            raise source.fault(
                f"expected a zip of one plain file, found {len(members)} members", "Unpack it."
            )
        member = dataclasses.replace(
            source,
            name=f"{source.name}!{shown(members[0].filename)}",
            member=members[0].filename,
        )
        with archive.open(members[0]) as content:
            return _written(member, content, scratch)


def _written(source: Source, content: IO[bytes], scratch: Path) -> Source:
    budget = Budget(source.path, DEFAULT_LIMITS)
    plain = scratch / "plain"
    with (
        plain.open("wb") as file,
        tqdm(desc="decompress", unit="B", unit_scale=True, delay=2, disable=None) as bar,
    ):
        for chunk in _chunks(source, content):
            budget.spend(len(chunk))
            file.write(chunk)
            bar.update(len(chunk))
    return dataclasses.replace(source, path=plain)


def _chunks(source: Source, content: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := content.read(CHUNK_BYTES):
            yield chunk
    except DAMAGE as error:
        raise _damaged(source, error) from error


def _damaged(source: Source, error: Exception) -> InputError:
    reason = str(error) or type(error).__name__
    return InputError(f"{source.name}: damaged archive: {shown(reason)}. Get the file again.")
