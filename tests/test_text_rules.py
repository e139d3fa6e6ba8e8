"""Which parts of a text cleaning removes, and that it keeps all others. Needs no Spark."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.text_rules import MAX_PASSES, clean_text

WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
CLEANED = {
    "Good.<br /><br />Very.": "Good. Very.",
    "  two \t blanks\n": "two blanks",
    "3 < 4 and 5 > 4": "3 < 4 and 5 > 4",
    "<3 it, <- that, a<b": "<3 it, <- that, a<b",
    "<p class='x'>In <i>Alien</i></p><!-- <b> -->": "In Alien",
    "if a<b and c>d then I laughed": "if a<b and c>d then I laughed",
    "<I loved this> and <so did she>": "<I loved this> and <so did she>",
    "I am <3 years old, </3, a->b, x<=y, 1<<2": "I am <3 years old, </3, a->b, x<=y, 1<<2",
    "<a good film>, a <b movie>, <sigh>, <i.e.>": "<a good film>, a <b movie>, <sigh>, <i.e.>",
    "5<q>3, good<B>bad</B >": "5 3, good bad",  # a parser cannot tell these from markup either
    "<a href='?a>b' title = \"x\"id=1>l</a>\n<IMG\nsrc=a.png />": "l",
    "<input disabled/><td nowrap><font color=#fff size=+1>x<h1>y": "x y",
    "<a href=http://a.b/?c=1>x</a><img src=y alt><iframe webkitallowfullscreen>": "x",
    "<b x\">, < br >, <b=c>, <a href='x": "<b x\">, < br >, <b=c>, <a href='x",
    "<!DOCTYPE html><script>if (a<b) c>d</script>x<style a=b>p{}</style>": "x",
    "<script>a, <style>b": "a, b",
    "<!-->a<!--->b<!-- c --!>d<!-- e": "a b d<!-- e",
    "&lt;br&gt;, &lt;sigh&gt;": ", <sigh>",
    "Tom &amp; Jerry &lt;3": "Tom & Jerry <3",
    "a&amp;lt;br&amp;gt;b": "a b",  # unescaping reveals more markup
    "&amp;amp;amp;": "&",
    "&copy 1999 &eacute;&#233 &hearts; &#60;br&#x3e;": "\xa9 1999 \xe9\xe9 \u2665",
    "?a=1&copy=2, x&lty, food&ethics": "?a=1&copy=2, x&lty, food&ethics",
    "AT&T, R&B; Q&A &tc. &#; &#x; &#1234567890;": "AT&T, R&B; Q&A &tc. &#; &#x; &#1234567890;",
    "<b<b<b<br>>>>": "",
    "1939\x961945 \x85": "1939\u20131945 …",
    "caf\u0065\u0301": "café",
    "zero\u200bwidth\ufeff \u202eturned": "zerowidth turned",
    "\U0001f468\u200d\U0001f469": "\U0001f468\u200d\U0001f469",
    "\u0645\u06cc\u200c\u0631": "\u0645\u06cc\u200c\u0631",
    "\u2764\ufe0f \ufffd \u06dd\u0661": "\u2764\ufe0f \ufffd \u06dd\u0661",
    f"{WALES} \U000e0061\U000e0062": WALES,  # tags hide text unless they make a flag
    "a\x00b\x08c": "abc",
    "no\xa0break\u2028line\x1cfield": "no break line field",
    "\u304c\u093c lone \ud800 surrogate": "\u304c\u093c lone surrogate",
    "<br />": "",
    "": "",
}
MASKED = {
    "write to jane.doe+x@mail.example.co.uk!": "write to [EMAIL]!",
    "see http://example.com/a?b=c#d, or www.example.org.": "see [URL], or [URL].",
    "HTTPS://EXAMPLE.COM": "[URL]",
    "from 192.168.0.1:": "from [IP]:",
    "card 4111 1111 1111 1111.": "card [CARD].",
    "card 4111-1111-1111-1111": "card [CARD]",
    "call 555-123-4567 or (555) 123-4567": "call [PHONE] or [PHONE]",
    "call +49 30 123 4567": "call [PHONE]",
    "write to j@a.co.uk.It works": "write to [EMAIL] works",  # "It" could be a domain
    "写信给jane@x.com。很好": "写信给[EMAIL]。很好",  # no spaces around an address
    "见http://x.com/a很好看 www.x.com\u2014great": "见[URL]很好看 [URL]\u2014great",
    "m\xfcller@b\xfccher.de, \u044f@\u044f\u043d.\u0440\u0444": "[EMAIL], [EMAIL]",
    "it@9.5, @2.5 stars, www...how": None,
    "1939 1941 1943 1943, ISBN 9780140410075": None,  # the check digits are right by chance
    "+1000000 for 12 Angry Men, 1957-2007": None,
    "card 4111 1111 1111 1112": None,  # the check digit is wrong
    "0000 0000 0000 0000": None,
    "1939-1945, 2001-2002": None,
    "cost $10,000,000 or 12.000.000": None,
    "8/10, 9.5 of 10, 24/7": None,
    "version 1.2.3, rated 300.1.1.1": None,
    "it's @home, http:// or www.": None,
    "[EMAIL] [URL]": None,
}


@pytest.mark.parametrize(("raw", "expected"), CLEANED.items())
def test_cleaning_keeps_the_words(raw: str, expected: str) -> None:
    assert clean_text(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), MASKED.items())
def test_personal_data_is_masked_and_other_numbers_are_kept(raw: str, expected: str | None) -> None:
    assert clean_text(raw) == (raw if expected is None else expected)


TAGS = (
    "<",
    ">",
    "<br />",
    "</",
    "<b",
    "b>",
    "<!--",
    "-->",
    "&",
    "amp;",
    "&amp;",
    "lt;",
    "&lt;",
    "&gt;",
    "#60;",
    "&#x3c;",
)
DATA = (
    "&nbsp",
    "&#150;",
    "&nvlt;",
    "@",
    "a@b.co",
    "www.",
    "http://",
    ".",
    "1",
    "4111",
    "-",
    "1.2.3.4",
    "555-123-4567",
)
SIGNS = (
    "+49",
    "+1000",
    "[EMAIL]",
    "]",
    "(",
    "e",
    " ",
    "\x96",
    "\x85",
    "\x00",
    "\x1c",
    "\u0301",
    "\u037e",
    "\u0338",
    "\u200b",
)
FRAGMENTS = st.sampled_from((*TAGS, *DATA, *SIGNS, "\ufeff", "\u2028", "\ud800"))


@settings(max_examples=500, deadline=None)
@given(st.text() | st.lists(FRAGMENTS, max_size=14).map("".join))
def test_cleaning_a_cleaned_text_changes_nothing(raw: str) -> None:
    plain = clean_text(raw)
    assert clean_text(plain) == plain
    assert plain == " ".join(plain.split())
    plain.encode()  # no lone surrogate is left: Spark could not store it


NO_MARKUP = (
    *(
        "<",
        ">",
        "<3",
        "</3",
        "->",
        "<-",
        "<->",
        "<=",
        ">=",
        "<<",
        ">>",
        "<>",
        "\u2665",
        "\u2264",
        "=",
    ),
    *("a<b and c>d", "i<j", "x<y>z", "<I loved this>", "</so did she>", "<sigh>", "<b movie>"),
    *("<joe>", "'", '"', "<a href", "(5>3)", "</", "<!", "-->", "<?xml?>", "<title of film>"),
)


@given(st.lists(st.sampled_from(NO_MARKUP)).map(" ".join))
def test_text_in_angle_brackets_that_is_no_markup_loses_nothing(text: str) -> None:
    assert clean_text(text) == text


HOSTILE = (
    *("amp;", "<!--", "<a ", "<", "<a x='", "<script>", "x=1 ", "1.1.", "1234 ", "a@", "www."),
    *("+1", "#38;", "9", "a@1."),
)
NESTED = (("<b", "", ">"), ("&sh", "&shy;", "y;"), ("<!-- ", "", "-->"), ("&", "", "amp;"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "raw",
    [
        *("&" + part * 25_000 for part in HOSTILE),
        "&#" + "9" * 25_000 + ";",
        *(start * 10_000 + middle + end * 10_000 for start, middle, end in NESTED),
    ],
    ids=lambda raw: raw[:6] + raw[-6:],
)
def test_cleaning_is_fast_for_hostile_texts(raw: str) -> None:
    plain = clean_text(raw)
    assert clean_text(plain) == plain


def test_a_text_that_reveals_markup_again_and_again_loses_its_brackets_and_no_words() -> None:
    deeper = MAX_PASSES + 3
    plain = clean_text("Good" + "<b" * deeper + ">" * deeper + " film")
    assert plain == "Good b b b >>> film"
