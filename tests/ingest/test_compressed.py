"""Compressed files are read as what they hold, within limits. Without Spark."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import InputError
from pipelines.ingest.compressed import decompressed
from pipelines.ingest.decoding import Source

CONTENT = b"text,label\n" + b"".join(b"review %d,%d\n" % (n, n % 2) for n in range(9000))


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, "zstd", asbytes=True)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
    "zip": lambda content: zipped({"__MACOSX/._r.csv": b"x", "a/": b"", "a/r.csv": content}),
}


def source_of(folder: Path, content: bytes) -> Source:
    (folder / "r.csv").write_bytes(content)  # whatever the name says
    return Source(folder / "r.csv", "r.csv")


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_compressed_file_gives_its_bytes(tmp_path: Path, kind: str) -> None:
    plain = decompressed(source_of(tmp_path, COMPRESS[kind](CONTENT)), tmp_path)
    assert plain.path.read_bytes() == CONTENT
    member = "a/r.csv" if kind == "zip" else ""
    assert (plain.member, plain.name) == (member, "r.csv!a/r.csv" if member else "r.csv")


@pytest.mark.parametrize("content", [CONTENT, b"", b"PK", b"\x1f", b"BZ"])
def test_a_file_that_is_not_compressed_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    source = source_of(tmp_path, content)
    assert decompressed(source, tmp_path) == source


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_cut_file_is_refused(tmp_path: Path, kind: str) -> None:
    whole = COMPRESS[kind](CONTENT)
    with pytest.raises(InputError, match=r"r\.csv.*: damaged archive: .+ Get the file again"):
        decompressed(source_of(tmp_path, whole[: len(whole) // 2]), tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in COMPRESS if kind != "zst"])  # has no checksum
def test_a_changed_file_is_refused(tmp_path: Path, kind: str) -> None:
    content = bytearray(COMPRESS[kind](CONTENT))
    content[len(content) // 2] ^= 1
    with pytest.raises(InputError, match=r"r\.csv.*: damaged archive: .+ Get the file again"):
        decompressed(source_of(tmp_path, bytes(content)), tmp_path)


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, kind: str) -> None:
    bomb = COMPRESS[kind](bytes(64 << 20))
    with pytest.raises(InputError, match=r"unpacks to more than 200 times its size\. Repack"):
        decompressed(source_of(tmp_path, bomb), tmp_path)
    assert (tmp_path / "plain").stat().st_size < 64 << 20


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.csv": b"1", "b.csv": b"2"}, r"expected a zip of one plain file, found 2 members"),
        ({}, r"r\.csv"),
        (
            {"[Content_Types].xml": b"", "xl/workbook.xml": b""},
            r"r\.csv: an Excel workbook\. Export its sheet as CSV\.",
        ),
    ],
)
def test_a_zip_of_anything_but_one_file_is_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    content = zipped(members) if members else zipped({"a/": b""})
    with pytest.raises(InputError, match=message):
        decompressed(source_of(tmp_path, content), tmp_path)


def test_a_zip_by_a_method_that_python_lacks_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({"r.csv": CONTENT}))
    directory = content.index(b"PK\x01\x02")
    for method in (8, directory + 10):  # in the member's header and in the directory
        content[method : method + 2] = (97).to_bytes(2, "little")
    with pytest.raises(
        InputError, match=r"r\.csv!r\.csv: damaged archive: That compression method"
    ):
        decompressed(source_of(tmp_path, bytes(content)), tmp_path)
