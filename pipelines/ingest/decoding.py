"""Decode a delivered text file strictly: report an undecodable byte by its line and offset."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipelines.errors import ContractError

CHUNK_BYTES = 1 << 20
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Source:
    """A file to read."""

    path: Path
    name: str  # shown in errors and logs
    encoding: str = "utf-8"  # keeps the rule flag_rules.ENCODING
    member: str = ""  # name inside the archive, if the file comes from one

    def fault(self, problem: str, advice: str, *, place: str = "") -> ContractError:
        """Return the error that names the place in this file, the problem and what to do."""
        where = f"{self.name} {place}" if place else self.name
        return ContractError(f"{where}: {problem}. {advice}")


@contextmanager
def opened(source: Source, *, newline: str, is_empty_fine: bool = False) -> Iterator[TextIO]:
    """Open the file as text; an undecodable byte raises ContractError with its line and offset."""
    encoding = _codec_of(source)
    with source.path.open("rb") as file:
        start = file.read(4)
    if not start.removeprefix(codecs.BOM_UTF8) and not is_empty_fine:
        raise source.fault("the file is empty", "Deliver the file again.")
    if encoding == "utf-8-sig" and start.startswith(UTF16_MARKS):
        raise source.fault(
            "expected utf-8, found a UTF-16 byte order mark",
            "Convert the file, or pass --encoding utf-16.",
        )
    try:
        with source.path.open(encoding=encoding, newline=newline) as lines:
            yield lines
    except UnicodeError as error:
        advice = "Convert the file, or pass --encoding."
        undecodable = _find_undecodable(source.path, encoding)
        if undecodable is None:
            raise source.fault(f"not valid {source.encoding}: {error}", advice) from error
        byte = f"byte 0x{undecodable.byte:02x} at offset {undecodable.offset}"
        raise source.fault(
            f"{byte} is not valid {source.encoding}",
            advice,
            place=f"line {undecodable.line}",
        ) from error


def read_text(source: Source) -> str:
    """Return the text of one small file, without a UTF-8 byte order mark."""
    with opened(source, newline="", is_empty_fine=True) as lines:
        return lines.read()


def _codec_of(source: Source) -> str:
    """Return the codec's name; for UTF-8 the variant that drops a byte order mark."""
    codec = codecs.lookup(source.encoding).name
    return "utf-8-sig" if codec == "utf-8" else codec


@dataclass(frozen=True)
class _Undecodable:
    line: int  # from 1; a line ends with \n
    offset: int  # from 0, in bytes
    byte: int


def _find_undecodable(path: Path, encoding: str) -> _Undecodable | None:
    """Find the first undecodable byte.

    Return None if no single byte is at fault, as in UTF-16 without a byte order mark.
    """
    # utf-8-sig would drop the mark, and the decoder's positions would not match the file.
    codec = "utf-8" if encoding == "utf-8-sig" else encoding
    decoder = codecs.getincrementaldecoder(codec)()
    line = 1
    offset = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            n_pending = len(decoder.getstate()[0])
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(error.encoding, "replace")
                return _Undecodable(
                    line=line + before.count("\n"),
                    offset=offset - n_pending + error.start,
                    byte=error.object[error.start],
                )
            except UnicodeError:
                return None
            if not chunk:
                return None
            offset += len(chunk)
