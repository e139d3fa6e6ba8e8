"""Text files are decoded strictly; an undecodable byte is reported by its place. Without Spark."""

from pathlib import Path

import pytest

from pipelines.errors import ContractError
from pipelines.ingest import decoding
from pipelines.ingest.csv_reader import read_csv
from pipelines.ingest.decoding import Source
from pipelines.ingest.json_reader import read_json
from pipelines.ingest.records import Columns

TEXT = Columns("text")


def written(folder: Path, name: str, content: bytes) -> Source:
    (folder / name).write_bytes(content)
    return Source(folder / name, name)


def texts(source: Source) -> list[str | None]:
    read = read_csv if source.name.endswith("csv") else read_json
    return [record.text for record in read(source, TEXT)]


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    table = written(tmp_path, "r.csv", b"\xef\xbb\xbftext\n\xef\xbb\xbfGood\n")
    assert texts(table) == ["\ufeffGood"]
    lines = written(tmp_path, "r.jsonl", b'\xef\xbb\xbf{"text": "Good"}\n')
    assert texts(lines) == ["Good"]


def test_a_file_is_read_in_the_encoding_that_is_given(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16", "utf-8-sig", "UTF8"):
        path = written(tmp_path, "r.csv", "text\r\nCaf\u00e9\r\n".encode(encoding)).path
        assert texts(Source(path, "r.csv", encoding)) == ["Caf\u00e9"]


def test_an_undecodable_byte_is_found_far_into_a_file(tmp_path: Path) -> None:
    content = b"text\n" + b"\xc3\xa9" * 700_000 + b"\nb\nc\xff\n"
    with pytest.raises(
        ContractError,
        match=r"r\.csv line 4: byte 0xff at offset 1400009 is not valid utf-8\.",
    ):
        texts(written(tmp_path, "r.csv", content))


@pytest.mark.parametrize(
    ("encoding", "content", "line", "byte", "offset"),
    [
        ("utf-8", b"text\n\xff\n", 2, "ff", 5),
        ("utf-8", b"\xef\xbb\xbftext\n\n\xff\n", 3, "ff", 9),
        ("utf-8", b"text\r\na\r\n\xe2\x82", 3, "e2", 9),
        ("cp1252", b"text\na\nb\x81\n", 3, "81", 8),
        ("shift_jis", b"text\n\x83\x5c\n\x83\xff\n", 3, "83", 8),
        (
            "utf-16",
            b"\xff\xfe" + "text\na\n".encode("utf-16-le") + b"\x00\xdc\n\x00",
            3,
            "00",
            16,
        ),
        (
            "utf-16",
            b"\xfe\xff" + "text\na\n".encode("utf-16-be") + b"\xdc\x00\x00\n",
            3,
            "dc",
            16,
        ),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 1 << 20])
def test_an_undecodable_byte_is_reported_by_line_and_offset(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    content: bytes,
    line: int,
    byte: str,
    offset: int,
    chunk_bytes: int,
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk_bytes)
    path = written(tmp_path, "r.csv", content).path
    fault = rf"r\.csv line {line}: byte 0x{byte} at offset {offset} is not valid {encoding}\."
    with pytest.raises(ContractError, match=fault):
        texts(Source(path, "r.csv", encoding))


def test_utf_16_without_a_byte_order_mark_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "r.csv", "text\nGood\n".encode("utf-16-le")).path
    with pytest.raises(
        ContractError, match=r"r\.csv: not valid utf-16: UTF-16 stream does not start with BOM"
    ):
        texts(Source(path, "r.csv", "utf-16"))
