"""A review as plain text: which markup, characters and personal data go, and what stays.

The standard library's html.parser is not used: it sees tags in "a<b and c>d", and its treatment of
comments and scripts differs between patch releases of Python, which must not change a content hash.
"""

import html
import re
import unicodedata
from dataclasses import dataclass
from functools import partial
from html.entities import html5
from itertools import count

# As in an attribute, &copy and &eth count without their semicolon only where neither a letter, a
# digit nor "=" follows: ?a=1&copy=2 and food&ethics are no references.
REFERENCE = re.compile(
    r"&(?:#(?:\d{1,9}+(?!\d)|x[\da-f]++);?"  # Python refuses to read a number of 4,301 digits
    r"|(?P<name>[a-z][a-z\d]*+(?:;|(?!=))))",
    re.IGNORECASE | re.ASCII,
)
# Every element name of the HTML standard, and the obsolete ones that it lists.
ELEMENTS = (
    "a|abbr|acronym|address|applet|area|article|aside|audio|b|base|basefont|bdi|bdo|bgsound|big|"
    "blink|blockquote|body|br|button|canvas|caption|center|cite|code|col|colgroup|data|datalist|dd|"
    "del|details|dfn|dialog|dir|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|"
    "frame|frameset|h1|h2|h3|h4|h5|h6|head|header|hgroup|hr|html|i|iframe|image|img|input|ins|"
    "isindex|kbd|keygen|label|legend|li|link|listing|main|map|mark|marquee|math|menu|menuitem|meta|"
    "meter|multicol|nav|nextid|nobr|noembed|noframes|noscript|object|ol|optgroup|option|output|p|"
    "param|picture|plaintext|pre|progress|q|rb|rp|rt|rtc|ruby|s|samp|script|search|section|select|"
    "selectedcontent|slot|small|source|spacer|span|strike|strong|style|sub|summary|sup|svg|table|"
    "tbody|td|template|textarea|tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr|xmp"
)
# Only the boolean attributes, and alt, may stand without a value. In "a<b and c>d" an HTML parser
# sees the element b with the attributes "and" and "c"; here it stays text.
BARE_ATTRIBUTES = (
    "allowfullscreen|alt|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|"
    "download|formnovalidate|hidden|inert|ismap|itemscope|loop|mozallowfullscreen|multiple|muted|"
    "nohref|nomodule|noresize|noshade|novalidate|nowrap|open|playsinline|readonly|required|"
    "reversed|selected|webkitallowfullscreen"
)
# Each text has one way to match at most, so a hostile one takes linear time. Possessive groups are
# avoided: before Python 3.11.5 they take too much.
VALUE = r"""(?:"[^"]*+"|'[^']*+'|[^\s"'=<>`][^\s"'<>`]*+)"""
ATTRIBUTE = rf"(?:[a-z_:][\w:.-]*+\s*+=\s*+{VALUE}|(?:{BARE_ATTRIBUTES})(?=[\s/>]))"
REST_OF_TAG = rf"(?=[\s/>])(?:[\s/]*+{ATTRIBUTE})*[\s/]*+>"
MARKUP = re.compile(
    # Script and style with their content, which no reader sees.
    rf"<(?P<unseen>script|style){REST_OF_TAG}(?:(?!<(?:script|style)\b).)*?</(?P=unseen)\s*+>"
    rf"|</?(?:{ELEMENTS}){REST_OF_TAG}"
    r"|<!doctype\b[^<>]*+>"
    r"|<!--(?:-?>|(?:(?!<!--).)*?--!?>)",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
# C1 controls are Windows-1252 punctuation that was read as Latin-1: 1,571 reviews hold \x96, \x85 …
# HTML maps them in the same way.
C1_AS_WINDOWS = {
    code: bytes([code]).decode("cp1252", errors="ignore") for code in range(0x80, 0xA0)
}
CONTROLS = re.compile(  # without white space, and without the joiners of emoji and Persian
    "["
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters
    "\xad\u061c\u180e"  # soft hyphen, letter mark, vowel separator
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"  # zero width, direction marks
    "\ud800-\uf8ff"  # surrogates and private use
    "\ufeff\ufff9-\ufffb"  # byte order mark, annotations
    "\U000e0001-\U000e007f\U000f0000-\U0010ffff"  # tags; private use
    "]"
)
BLACK_FLAG = "\U0001f3f4"  # with tags after it, the flag of England, Texas …; other tags hide text
FLAG_OR_CONTROL = re.compile(
    f"({BLACK_FLAG}[\U000e0030-\U000e007a]{{3,6}}\U000e007f)|{CONTROLS.pattern}"
)


@dataclass(frozen=True)
class PersonalData:
    """A kind of personal data and the mask that replaces it."""

    mask: str
    hint: re.Pattern[str]  # 20 times faster than `pattern`, which can match only if this matches
    pattern: re.Pattern[str]


# Beyond these ranges, text without spaces may follow an address directly: Thai, Chinese, a dash.
LETTER = r"\w\xc0-\u058f"  # Latin, Greek, Cyrillic, Armenian
BEYOND_URL = r"\s<>\"\[\]\u0e00-\U0010ffff"

PII = (
    PersonalData(
        mask="[EMAIL]",
        hint=re.compile("@"),
        pattern=re.compile(  # the last label has no digit: "it@9.5" is no address
            rf"(?<![{LETTER}])[{LETTER}][{LETTER}.+-]{{0,63}}@(?:[{LETTER}-]{{1,63}}\.)+"
            r"(?:xn--[a-z\d-]{1,59}|[a-z\xc0-\u058f]{2,63})",
            re.IGNORECASE | re.ASCII,
        ),
    ),
    PersonalData(
        mask="[URL]",
        hint=re.compile(r"www\.|://", re.IGNORECASE),
        pattern=re.compile(
            rf"(?<!\w)(?:https?://|www\.(?!\.))[^{BEYOND_URL}]*[^{BEYOND_URL}.,;:!?)]",
            re.IGNORECASE | re.ASCII,
        ),
    ),
    PersonalData(
        mask="[IP]",
        hint=re.compile(r"\d\.\d"),
        pattern=re.compile(
            r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}"
            r"(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)"
        ),
    ),
    PersonalData(
        mask="[CARD]",
        hint=re.compile(r"\d{4}[ -]?\d{4}"),
        # Numbers of issuers only: four years and an ISBN-13 can have a right check digit by chance.
        pattern=re.compile(
            r"(?<![\d-])(?=[3-6]|2[2-7]|8[12]|9792)\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d-])"
        ),
    ),
    PersonalData(
        mask="[PHONE]",
        hint=re.compile(r"\d{3}[ .-]\d{4}|\+\d"),
        pattern=re.compile(
            r"(?<![\w.-])(?:(?:\+?\d{1,3}[ .-]?)?(?:\(\d{3}\)|\d{3})[ .-]?\d{3}[ .-]\d{4}"
            r"|\+(?!\d0+\b)\d{1,3}(?:[ .-]?\d{2,4}){3,4})(?![\w-])"
        ),
    ),
)
MASKS = tuple(personal.mask for personal in PII)
MAX_PASSES = 10  # each takes linear time; none of the 33,530 packaged reviews needs more than 2


def clean_text(raw: str) -> str:
    """Return one review as plain text.

    Resolve character references; remove HTML elements, comments and doctypes, but no other text in
    angle brackets; remove control characters; normalise to NFC and single spaces; mask personal
    data. Repeat until nothing changes, since one pass may reveal more markup (&amp;lt;br&amp;gt;);
    so cleaning a cleaned text changes nothing. A text that goes on for MAX_PASSES was built to
    waste time, such as <b<b<b>>>: it loses the characters that begin markup, and the loop ends.
    """
    text = raw
    for n_passes in count(1):
        plain = _clean_once(text)
        if plain == text:
            break
        text = plain if n_passes < MAX_PASSES else re.sub("[<&]", " ", plain)
    return text


def _clean_once(text: str) -> str:
    if "&" in text:
        text = REFERENCE.sub(_resolved, text)
    text = text.translate(C1_AS_WINDOWS)
    if "<" in text:
        text = MARKUP.sub(" ", text)
    text = unicodedata.normalize("NFC", _without_controls(text))
    text = " ".join(text.split())
    for personal in PII:
        if personal.hint.search(text):
            text = personal.pattern.sub(partial(_masked, personal.mask), text)
    return text


def _without_controls(text: str) -> str:
    if BLACK_FLAG in text:
        return FLAG_OR_CONTROL.sub(r"\1", text)
    return CONTROLS.sub("", text)  # three times faster


def _resolved(match: re.Match[str]) -> str:
    """Return the character that a reference names, or an unknown name as it is."""
    name = match["name"]
    return match[0] if name and name not in html5 else html.unescape(match[0])


def _masked(mask: str, match: re.Match[str]) -> str:
    """Return the mask, or the digits as they are if a card's check digit is wrong."""
    if mask != "[CARD]":
        return mask
    digits = [int(character) for character in reversed(match[0]) if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[1::2]]  # Luhn's algorithm
    is_card = digits[-1] != 0 and (sum(digits[::2]) + sum(doubled)) % 10 == 0
    return mask if is_card else match[0]
