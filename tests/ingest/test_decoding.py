from pathlib import Path

import pytest

from pipelines.errors import ContractError, InputError
from pipelines.ingest.decoding import Source
from pipelines.ingest.readers import Columns, read_csv, read_jsonl

TEXT = Columns("text")


def written(folder: Path, name: str, content: bytes) -> Source:
    (folder / name).write_bytes(content)
    return Source(folder / name, name)


def texts(source: Source) -> list[str | None]:
    return [
        record.text
        for record in (read_csv if source.name.endswith("csv") else read_jsonl)(source, TEXT)
    ]


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    assert texts(written(tmp_path, "r.csv", b"\xef\xbb\xbftext\n\xef\xbb\xbfGood\n")) == [
        "\ufeffGood"
    ]
    assert texts(written(tmp_path, "r.jsonl", b'\xef\xbb\xbf{"text": "Good"}\n')) == ["Good"]


def test_another_encoding_is_read_where_it_is_named(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16", "utf-8-sig", "UTF8"):
        path = written(tmp_path, "r.csv", "text\r\nCaf\u00e9\r\n".encode(encoding)).path
        assert texts(Source(path, "r.csv", encoding)) == ["Caf\u00e9"]


def test_an_undecodable_byte_is_found_far_into_a_file(tmp_path: Path) -> None:
    content = b"text\n" + b"\xc3\xa9" * 700_000 + b"\nb\nc\xff\n"
    with pytest.raises(
        ContractError,
        match=r"row 3, column text: expected utf-8, found byte 0xff at offset 1400009\.",
    ):
        texts(written(tmp_path, "r.csv", content))


@pytest.mark.parametrize("encoding", ["no-such", "base64", "hex"])
def test_an_encoding_that_does_not_exist_is_named(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path, "r.csv", b"text\nGood\n").path
    with pytest.raises(
        InputError, match=f"--encoding: expected one such as utf-8 or cp1252, found '{encoding}'"
    ):
        texts(Source(path, "r.csv", encoding))


def test_utf_16_without_its_mark_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "r.csv", "text\nGood\n".encode("utf-16-le")).path
    with pytest.raises(
        ContractError, match=r"r\.csv: expected utf-16, found UTF-16 stream does not start with BOM"
    ):
        texts(Source(path, "r.csv", "utf-16"))
