"""Rules for the values of flags, and how a value is read from text.

A rule stands beside its flag: `flag("seconds to wait", 60.0, must_be=between(0, 1e6))`.
"""

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.quoting import figure

MAX_INT = 2**31 - 1  # Spark takes most numbers as 32-bit integers
MAX_HOURS, MAX_SECONDS = 1e6, 1e7  # 114 years, 115 days: times in milliseconds stay in range
MAX_PATH_BYTES, MAX_NAME_BYTES = 4_000, 255  # Linux allows 4,096, and files come below the path
MAX_CHARACTERS = 250  # of a name: MLflow's columns hold 256
# int() and float() would also take digits of other scripts, 1_000, ' 5 ' and 'nan'.
INTEGER = re.compile(r"-?[0-9]{1,18}")
NUMBER = re.compile(r"-?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,4})?")
CONTROL_CHARACTER = re.compile(r"[\0-\x1f\x7f-\x9f]")
# Python counts these among its encodings of text, but no file is written in them. The names are
# those that codecs.lookup returns.
NOT_FOR_FILES = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}


@dataclass(frozen=True)
class Rule:
    """A condition on a flag's value, and its words: "--flag must be <words>"."""

    words: str
    accepts: Callable[[Any], bool]


def between(low: float, high: float = MAX_INT, why: str = "") -> Rule:
    """Return the rule for a number from `low` to `high`, both included."""
    return Rule(f"{figure(low)}..{figure(high)}{why}", lambda value: low <= value <= high)


def matching(pattern: str, words: str) -> Rule:
    """Return the rule for a text that matches a pattern of ASCII characters as a whole."""
    expression = re.compile(pattern, re.ASCII)
    return Rule(words, lambda text: expression.fullmatch(text) is not None)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: bytes of the command line that are not UTF-8
        return False
    return "\0" not in text


def _is_path(text: str) -> bool:
    if not _is_text(text) or CONTROL_CHARACTER.search(text):
        return False
    encoded = text.encode()
    # A URL may have longer parts: its query may hold a signature.
    parts = [] if "://" in text else encoded.split(b"/")
    is_each_short = all(len(part) <= MAX_NAME_BYTES for part in parts)
    return 0 < len(encoded) <= MAX_PATH_BYTES and is_each_short


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_CHARACTERS and text == text.strip() and text.isprintable()


def _is_encoding(name: str) -> bool:
    try:
        "text,label\n".encode(name)  # raises for codecs that are not for text, such as base64
        return codecs.lookup(name).name not in NOT_FOR_FILES
    except (LookupError, ValueError):
        return False


SHARE = between(0, 1)
TEXT = Rule("UTF-8 text without NUL", _is_text)
PATH = Rule(
    f"a path in UTF-8 without control characters, of at most {MAX_PATH_BYTES} bytes, and "
    f"{MAX_NAME_BYTES} in each part unless it is a URL",
    _is_path,
)
NAME = Rule(
    f"a name of 1..{MAX_CHARACTERS} printable characters, without blanks around it", _is_name
)
MODEL_NAME = matching(
    rf"(?!\.\.?$)[\w.-]{{1,{MAX_CHARACTERS}}}",
    "ASCII letters, digits, _ . and -, but not . or ..",
)
MODEL_VERSION = matching(
    rf"[0-9]{{1,9}}|(?![0-9]+$)[\w-]{{1,{MAX_CHARACTERS}}}",
    "an alias of ASCII letters, digits, _ and -, or a version number",
)
# Numbers such as 12, 1e5 and 1L are literals in SQL.
CATALOG_NAME = matching(
    r"(?!\d+(?:[eE]\d+|[a-zA-Z]{1,2})?$)\w{1,250}", "ASCII letters, digits and _, but no number"
)
VERSIONS = matching(r"[0-9]{1,18}(?:-[0-9]{1,18})?", "a version or a range, such as 3 or 3-7")
SHA256 = matching("[0-9a-fA-F]{64}", "64 hex digits")
ENCODING = Rule("an encoding of text, such as utf-8 or cp1252", _is_encoding)

# By the type of a field: its rule if it names none, how to read it from text (None = invalid), and
# the words for its type.
DEFAULTS: Mapping[Any, Rule] = {
    bool: Rule("True or False", lambda value: isinstance(value, bool)),
    int: between(-MAX_INT, MAX_INT),
    float: Rule("from -1e+300 to 1e+300", lambda value: -1e300 <= value <= 1e300),
    str: TEXT,
}
READERS: Mapping[Any, Callable[[str], Any]] = {
    bool: lambda text: {"True": True, "False": False}.get(text),
    int: lambda text: int(text) if INTEGER.fullmatch(text) else None,
    float: lambda text: float(text) if NUMBER.fullmatch(text) else None,
    str: lambda text: text,
}
TYPE_WORDS: Mapping[Any, str] = {int: "a whole number, ", float: "a number, "}
