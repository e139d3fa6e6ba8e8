"""Escape text from outside before it is printed: no character of it may steer the terminal."""

import unicodedata
from collections.abc import Callable

SHOWN_CHARACTERS = 200  # maximum length of a path or a phrase in a message
VALUE_CHARACTERS = 80  # of a flag's value
HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, separators …
JOINERS = "\u200c\u200d"


def shown(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    """Return text from outside for a message: one line of at most `limit` characters.

    Use it for names of files and columns, labels, and words of other programs. Each character that
    cannot be seen is escaped. Of a long text the middle is left out, so that the end of a file
    name or of an advice stays.
    """
    ends = shortened(text, 2 * limit)  # a whole file may be in one line
    return shortened("".join(c if c.isprintable() else _escaped(c) for c in ends), limit)


def shortened(text: str, limit: int) -> str:
    """Return text of at most `limit` characters: of a longer one the middle is left out."""
    if len(text) <= limit:
        return text
    n_last = limit // 3
    return f"{text[: limit - n_last - 1]}…{text[-n_last:]}"


def quoted(value: object) -> str:
    """Return the value of a flag or setting for a message: text stands in quotes."""
    if isinstance(value, int | float):
        return figure(value)
    if isinstance(value, str):
        return f"'{shown(value, VALUE_CHARACTERS)}'"
    return shown(repr(value), VALUE_CHARACTERS)


def figure(value: float) -> str:
    """Return a number for a message, without superfluous digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def printable(text: str, keep: str = "", escape: Callable[[str], str] | None = None) -> str:
    """Return text without the characters that a terminal obeys or hides: each is escaped.

    Use it for whole lines and for results. These are control characters (ESC starts a colour or
    worse), and format characters, some of which turn the direction of what follows. The joiners
    of emoji and Persian stay.

    keep    characters that stay as they are
    escape  gives the text for one character; by default as in a Python string
    """
    if text.isprintable():
        return text
    escaped = escape or _escaped
    return "".join(
        escaped(char)
        if unicodedata.category(char) in HIDDEN and char not in keep + JOINERS
        else char
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
