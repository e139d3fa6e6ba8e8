"""Archives are unpacked whole or refused, with nothing left behind. Without Spark."""

import gzip
import io
import stat
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import pytest

from pipelines.errors import InputError
from pipelines.ingest.archives import Limits, unpack

ZEROS = b"\0" * (4 << 20)


def zip_of(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicates that we want
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_of(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    mode: Literal["w", "w:gz"] = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/hostname"
            archive.addfile(info, io.BytesIO(content))
    return path


def pack(path: Path, *members: tuple[str, bytes]) -> Path:
    return zip_of(path, *members) if path.suffix == ".zip" else tar_of(path, *members)


def assert_refused(archive: Path, message: str, limits: Limits | None = None) -> None:
    before = sorted(archive.parent.iterdir())
    with pytest.raises(InputError, match=message):
        unpack(archive, archive.parent / "unpacked", limits or Limits())
    assert sorted(archive.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "A.TGZ"])
def test_members_are_unpacked_byte_for_byte_and_nothing_else_is_left(
    tmp_path: Path, name: str
) -> None:
    archive = pack(
        tmp_path / name,
        ("imdb/train.csv", b"a\r\nb\0"),
        ("./imdb/x/t\u00e9st.csv", b""),
        ("README", b"r"),
    )
    assert unpack(archive, tmp_path / "unpacked") == tmp_path / "unpacked"
    contents = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in (tmp_path / "unpacked").rglob("*")
        if path.is_file()
    }
    assert contents == {
        "unpacked/imdb/train.csv": b"a\r\nb\0",
        "unpacked/imdb/x/t\u00e9st.csv": b"",
        "unpacked/README": b"r",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "unpacked"])


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("member", "fault"),
    [
        ("../evil.csv", r"\.\. leads out of the archive"),
        ("imdb/../../evil.csv", r"\.\. leads out of the archive"),
        ("/evil.csv", "absolute path"),
        ("C:/evil.csv", "absolute path"),
        ("..\\evil.csv", "backslash or NUL"),
        ("x" * 250, "too long"),
    ],
)
def test_an_unsafe_name_is_refused(tmp_path: Path, ending: str, member: str, fault: str) -> None:
    archive = pack(tmp_path / f"a.{ending}", ("good.csv", b"good"), (member, b"evil"))
    assert_refused(archive, rf"a\.{ending}!'.*': unsafe name: {fault}\. Repack the archive")


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "names",
    [
        ("a.csv", "a.csv"),
        ("a.csv", "./a.csv"),
        ("x/a.csv", "x//a.csv"),
        ("a", "a/b.csv"),
        ("a", "a/b/c.csv"),
        ("a/b.csv", "a"),
        ("a.csv", "."),
    ],
)
def test_a_member_that_would_overwrite_another_is_refused(
    tmp_path: Path, ending: str, names: tuple[str, str]
) -> None:
    archive = pack(tmp_path / f"a.{ending}", *((name, b"x") for name in names))
    assert_refused(archive, rf"!'{names[1]}': it would overwrite another member\. Repack")


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "names", [("a.csv", "A.CSV"), ("\u00e9.csv", "e\u0301.csv"), ("a/b.csv", "A")]
)
def test_names_that_differ_only_in_case_or_unicode_form_are_kept_apart(
    tmp_path: Path, ending: str, names: tuple[str, str]
) -> None:
    archive = pack(tmp_path / f"a.{ending}", (names[0], b"first"), (names[1], b"second"))
    unpacked = unpack(archive, tmp_path / "unpacked")
    assert [(unpacked / name).read_bytes() for name in names] == [b"first", b"second"]


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_a_tar_holds_files_and_directories_only(tmp_path: Path, kind: bytes, refused: str) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", ("good", b""), ("evil", b""), kind=kind)
    assert_refused(
        archive, rf"a\.tar\.gz!'good': {refused}; only files and directories are accepted"
    )


def test_a_sparse_file_is_refused_since_its_holes_are_not_counted(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    info = tarfile.TarInfo("evil")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.pax_headers |= {"GNU.sparse.name": "evil", "GNU.sparse.realsize": str(1 << 40)}
    sparse_map = b"1\n0\n0\n".ljust(512, b"\0")
    info.size = len(sparse_map)
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info, io.BytesIO(sparse_map))
    assert_refused(archive, "a sparse file; only files and directories are accepted")


def test_a_name_that_is_not_utf_8_as_declared_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("\u00e9.csv", b"text"))
    archive.write_bytes(archive.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    assert_refused(archive, r"a\.zip: damaged archive: 'utf-8' codec can't decode")


def test_a_long_name_is_cut_and_its_control_characters_are_escaped(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", ("\x1b[2J" + "x" * 5_000, b""))
    assert_refused(archive, r"a\.tar\.gz!'\\x1b\[2Jx{96}…': unsafe name: too long")


def test_a_zip_holds_files_and_directories_only(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    link = zipfile.ZipInfo("evil")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(link, "/etc/hostname")
    assert_refused(
        archive, r"a\.zip!'evil': a symbolic link; only files and directories are accepted"
    )


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("a.csv", b"text"))
    packed = bytearray(archive.read_bytes())
    packed[packed.index(b"PK\x01\x02") + 8] |= 1  # the flag bits in the central directory
    archive.write_bytes(packed)
    assert_refused(
        archive, r"a\.zip!'a\.csv': an encrypted file; only files and directories are accepted"
    )


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(n_members=1), "!'b': the archive has more than 1 members"),
        (Limits(n_bytes=1 << 20), "!'b': the archive unpacks to more than 1,048,576 bytes"),
        (
            Limits(ratio=100),
            "!'b': the archive unpacks to more than 100 times its size",
        ),
    ],
)
def test_an_archive_that_unpacks_to_more_than_a_limit_is_refused(
    tmp_path: Path, ending: str, limits: Limits, message: str
) -> None:
    archive = pack(tmp_path / f"a.{ending}", ("a", b"good"), ("b", ZEROS))
    assert_refused(archive, message, limits)
    unpack(archive, tmp_path / "unpacked", Limits(n_members=2, n_bytes=5 << 20, ratio=2000))


def test_a_declared_size_that_is_too_small_is_refused(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("b", ZEROS))
    packed = bytearray(archive.read_bytes())
    size = packed.index(b"PK\x01\x02") + 24
    packed[size : size + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(packed)
    assert_refused(archive, r"a\.zip: damaged archive: Bad CRC-32")


def test_a_header_that_unpacks_to_many_bytes_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * (8 << 20)}
        opened.addfile(info, io.BytesIO())
    assert_refused(archive, "unpacks to more than 100 times its size", Limits(ratio=100))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str, share: float) -> None:
    noise = zlib.compress(bytes(range(256)) * 50)
    archive = pack(tmp_path / name, ("a", noise), ("b", noise * 9))
    content = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(content[: int(len(content) * share)])
    assert_refused(archive, rf"{name}: damaged archive: ")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_damaged_header_is_not_taken_for_the_end_of_the_archive(
    tmp_path: Path, name: str
) -> None:
    archive = pack(tmp_path / "plain.tar", ("a", b"x" * 512), ("b", b"y" * 512))
    content = bytearray(archive.read_bytes())
    content[1024 + 10] ^= 0xFF
    archive.unlink()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else bytes(content))
    assert_refused(tmp_path / name, "damaged archive: a damaged member header")


def test_a_checksum_of_gzip_that_does_not_match_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", ("a", b"text"))
    content = bytearray(archive.read_bytes())
    content[-8] ^= 0xFF
    archive.write_bytes(content)
    assert_refused(archive, r"a\.tar\.gz: damaged archive: CRC check failed")


def test_an_unknown_kind_of_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    assert_refused(
        tmp_path / "a.rar",
        r"a\.rar: unknown kind of archive, not \.zip, \.tar, \.tar\.gz or \.tgz",
    )
