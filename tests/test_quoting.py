"""Text from outside is escaped and cut before it is printed. Needs no Spark."""

import pytest

from pipelines.quoting import printable, quoted, shown

ESCAPES = [
    ("\x1b[31m\x07", r"\x1b[31m\x07"),
    ("two\nlines\r", r"two\nlines\r"),
    ("\x9b \x85", r"\x9b \x85"),
    ("\u202eabc\u2069\ufeff", r"\u202eabc\u2069\ufeff"),
    ("\udcff", r"\udcff"),
    ("", ""),
]


PLAIN = "naïve, 映画, 👩\u200d💻"


@pytest.mark.parametrize(("text", "line"), [*ESCAPES, (PLAIN, PLAIN)])
def test_a_line_holds_no_character_that_steers_the_terminal(text: str, line: str) -> None:
    assert printable(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *ESCAPES,
        ("naïve 映画", "naïve 映画"),
        ("a\xa0b", r"a\xa0b"),  # looks like a blank and is none
        ("x" * 25, "x" * 25),
        ("a" * 13 + "b" * 13, f"{'a' * 13}bbb…{'b' * 8}"),
        ("\x1b" * 9, r"\x1b\x1b\x1b\x1b…\x1b\x1b"),
        ("a" * 10**6 + ".csv", f"{'a' * 16}…aaaa.csv"),
    ],
)
def test_text_in_a_message_is_escaped_and_keeps_its_ends(text: str, line: str) -> None:
    assert shown(text, 25) == line
    assert line.isprintable()
    assert len(line) <= 25


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a\n\x1b\u202e", r"'a\n\x1b\u202e'"),
        ("x" * 81, f"'{'x' * 53}…{'x' * 26}'"),
        (1e6, "1e+06"),
        (7, "7"),
        (("a",), "('a',)"),
        (None, "None"),
    ],
)
def test_a_value_in_a_message_is_short_and_in_quotes(value: object, line: str) -> None:
    assert quoted(value) == line
