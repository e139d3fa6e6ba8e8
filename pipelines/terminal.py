"""Prepare stdout, stderr and the log of a program: no text from outside may steer the terminal."""

import codecs
import copy
import io
import json
import logging
import sys
import traceback
from pathlib import PurePath
from types import TracebackType

from pipelines.quoting import printable

log = logging.getLogger("reviewlake")


def prepare() -> None:
    """Log one plain line per effect to stderr; stdout is for results.

    A character that the encoding of a stream lacks is escaped as in JSON, where it stays valid.
    """
    codecs.register_error("json", _escaped_as_in_json)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json")
    sys.excepthook = _show_traceback
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EscapingFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO)


class _EscapingFormatter(logging.Formatter):
    """File names and library messages in the log can neither steer the terminal nor add lines."""

    def format(self, record: logging.LogRecord) -> str:
        escaped = copy.copy(record)
        if isinstance(record.args, tuple):
            escaped.args = tuple(
                printable(str(value)) if isinstance(value, str | PurePath | Exception) else value
                for value in record.args
            )
        return printable(super().format(escaped), keep="\n\t")


def _escaped_as_in_json(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(printable(text, keep="\n\t"))
