"""A delivered text file, decoded strictly: bytes that are no text are an error with their row, column and offset."""

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pipelines.errors import ContractError, InputError

CHUNK_BYTES = 1 << 20
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UNDECODED = (
    "\udcff"  # no strict decoder yields a lone surrogate, so it can stand where bytes are no text
)


@dataclass(frozen=True)
class Source:
    """A file to read, and the name by which errors and logs call it."""

    path: Path
    name: str
    encoding: str = "utf-8"
    member: str = ""

    def fault(
        self, expected: str, found: str, advice: str, row: int | None = None, column: str = ""
    ) -> ContractError:
        """The error that says where in this file, what was expected, what was found and what to do."""
        place = "" if row is None else f" row {row}" if row else " header"
        place += f", column {column}" if column else ""
        return ContractError(f"{self.name}{place}: expected {expected}, found {found}. {advice}")


@contextmanager
def opened(
    source: Source,
    newline: str,
    cells: Callable[[TextIO], Iterator[tuple[int, str, str]]],
    is_empty_fine: bool = False,
) -> Iterator[TextIO]:
    """The file as strict text; bytes that are none are reported by the row and column in which `cells` meets them."""
    encoding = codec_of(source)
    with source.path.open("rb") as file:
        start = file.read(4)
    if not start.removeprefix(codecs.BOM_UTF8) and not is_empty_fine:
        raise source.fault("reviews", "an empty file", "Deliver it again.")
    if encoding == "utf-8-sig" and start.startswith(UTF16_MARKS):
        raise source.fault(
            "utf-8", "a UTF-16 byte order mark", "Convert the file, or pass --encoding utf-16."
        )
    try:
        with source.path.open(encoding=encoding, newline=newline) as lines:
            yield lines
    except UnicodeError as error:
        advice = "Convert the file, or pass --encoding."
        if not (found := _undecodable(source.path, encoding)):
            raise source.fault(source.encoding, str(error), advice) from error
        with source.path.open(
            encoding=encoding, errors="reviewlake.mark", newline=newline
        ) as lines:
            row, column = next(
                ((row, name) for row, name, text in cells(lines) if UNDECODED in text), (1, "")
            )
        raise source.fault(source.encoding, found, advice, row, column) from error


def codec_of(source: Source) -> str:
    """The codec's name; UTF-8 in the variant that drops a byte order mark."""
    try:
        codec = codecs.lookup(source.encoding).name
        "".encode(codec)  # base64 and its like are codecs, but not of text
    except LookupError as error:
        raise InputError(
            f"--encoding: expected one such as utf-8 or cp1252, found {source.encoding!r}."
        ) from error
    return "utf-8-sig" if codec == "utf-8" else codec


def _mark(error: UnicodeError) -> tuple[str, int]:
    return UNDECODED, error.end if isinstance(error, UnicodeDecodeError) else 0


codecs.register_error("reviewlake.mark", _mark)


def _undecodable(path: Path, encoding: str) -> str:
    decoder = codecs.getincrementaldecoder("utf-8" if encoding == "utf-8-sig" else encoding)()
    n_read = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            n_kept = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return f"byte 0x{error.object[error.start]:02x} at offset {n_read - n_kept + error.start}"
            except UnicodeError:
                return ""  # UTF-16 without its mark: no single byte is at fault
            if not chunk:
                return ""
            n_read += len(chunk)


def read_text(source: Source) -> str:
    """The whole of one small file as text, a UTF-8 byte order mark left out."""
    with opened(
        source, "", lambda lines: ((1, "", line) for line in lines), is_empty_fine=True
    ) as lines:
        return lines.read()
