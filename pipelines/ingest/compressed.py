"""Decompress a delivered file: gzip, bzip2, xz, Zstandard, or a zip that holds one file.

The first bytes decide, not the name: browsers and download tools drop and add suffixes.
"""

import bz2
import dataclasses
import gzip
import lzma
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from pipelines.ingest.archives import (
    CHUNK_BYTES,
    DEFAULT_LIMITS,
    UNREADABLE,
    Budget,
    damaged,
    zip_kind,
)
from pipelines.ingest.decoding import Source
from pipelines.quoting import shown

ZIP = b"PK\x03\x04"
ADDED_BY_MACOS = ("__MACOSX/", ".DS_Store")
WORKBOOK = "[Content_Types].xml"  # in every Excel file, which is a zip
DAMAGE = (*UNREADABLE, OSError, RuntimeError, lzma.LZMAError)


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
            return _written(source, partial(opener, source.path), scratch)
    return source


def _unzipped(source: Source, scratch: Path) -> Source:
    try:
        archive = zipfile.ZipFile(source.path)
    except DAMAGE as error:
        raise damaged(source.name, error) from error
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
        return _written(member, partial(archive.open, members[0]), scratch)


def _written(source: Source, opener: Callable[[], IO[bytes]], scratch: Path) -> Source:
    budget = Budget(source.path, DEFAULT_LIMITS)
    plain = scratch / "plain"
    with (
        plain.open("wb") as file,
        tqdm(desc="decompress", unit="B", unit_scale=True, delay=2, disable=None) as bar,
    ):
        for chunk in _chunks(source, opener):
            budget.spend(len(chunk))
            file.write(chunk)
            bar.update(len(chunk))
    return dataclasses.replace(source, path=plain)


def _chunks(source: Source, opener: Callable[[], IO[bytes]]) -> Iterator[bytes]:
    try:
        with opener() as content:
            while chunk := content.read(CHUNK_BYTES):
                yield chunk
    except DAMAGE as error:
        raise damaged(source.name, error) from error
