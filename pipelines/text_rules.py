"""A review as plain text: which markup, characters and personal data go, and what stays."""

import html
import re
import unicodedata
from dataclasses import dataclass
from functools import partial

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
# Only these attributes may stand without a value. In "a<b and c>d" an HTML parser sees the element
# b with the attributes "and" and "c"; here it stays text.
BOOLEAN_ATTRIBUTES = (
    "allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|"
    "download|formnovalidate|hidden|inert|ismap|itemscope|loop|multiple|muted|nohref|nomodule|"
    "noresize|noshade|novalidate|nowrap|open|playsinline|readonly|required|reversed|selected"
)
# *+, ++ and (?>…) do not backtrack: a hostile text would otherwise take quadratic time.
VALUE = r"""(?>"[^"]*+"|'[^']*+'|[^\s"'=<>`]++)"""
ATTRIBUTE = rf"(?>[a-z_:][\w:.-]*+\s*+=\s*+{VALUE}|(?:{BOOLEAN_ATTRIBUTES})(?=[\s/>]))"
REST_OF_TAG = rf"(?=[\s/>])(?>[\s/]*+{ATTRIBUTE})*+[\s/]*+>"
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
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u180e"  # soft hyphen, number and letter marks
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"  # zero width, direction marks
    "\ud800-\uf8ff"  # surrogates and private use
    "\ufeff\ufff9-\ufffb"  # byte order mark, annotations
    "\U000e0001-\U000e007f\U000f0000-\U0010ffff"  # tags; private use
    "]"
)


@dataclass(frozen=True)
class PersonalData:
    """A kind of personal data and the mask that replaces it."""

    mask: str
    hint: re.Pattern[str]  # 20 times faster than `pattern`, which can match only if this matches
    pattern: re.Pattern[str]


PII = (
    PersonalData(
        mask="[EMAIL]",
        hint=re.compile("@"),
        pattern=re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b"),
    ),
    PersonalData(
        mask="[URL]",
        hint=re.compile(r"www\.|://", re.IGNORECASE),
        pattern=re.compile(
            r"\b(?:https?://|www\.)[^\s<>\"\[\]]*[^\s<>\"\[\].,;:!?)]", re.IGNORECASE
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
        pattern=re.compile(r"(?<![\d-])\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\d-])"),
    ),
    PersonalData(
        mask="[PHONE]",
        hint=re.compile(r"\d{3}[ .-]\d{4}|\+\d"),
        pattern=re.compile(
            r"(?<![\w.-])(?:(?:\+?\d{1,3}[ .-]?)?(?:\(\d{3}\)|\d{3})[ .-]?\d{3}[ .-]\d{4}"
            r"|\+\d{1,3}(?:[ .-]?\d{2,4}){3,4})(?![\w-])"
        ),
    ),
)
MASKS = tuple(personal.mask for personal in PII)


def clean_text(raw: str) -> str:
    """Return one review as plain text.

    Remove HTML elements, comments and doctypes, but no other text in angle brackets; remove
    control characters; normalise to NFC and single spaces; mask personal data. Repeat until nothing
    changes, since unescaping (&amp;lt;br&amp;gt;) can reveal more markup; so cleaning a cleaned
    text changes nothing. No pass adds markup, so the loop ends.
    """
    text = raw
    while (plain := _clean_once(text)) != text:
        text = plain
    return text


def _clean_once(text: str) -> str:
    while "&" in text:  # in a loop of its own: &amp;amp;amp; … would need many whole passes
        unescaped = html.unescape(text)
        if unescaped == text:
            break
        text = unescaped
    text = text.translate(C1_AS_WINDOWS)
    if "<" in text:
        text = MARKUP.sub(" ", text)
    text = unicodedata.normalize("NFC", CONTROLS.sub("", text))
    text = " ".join(text.split())
    for personal in PII:
        if personal.hint.search(text):
            text = personal.pattern.sub(partial(_masked, personal.mask), text)
    return text


def _masked(mask: str, match: re.Match[str]) -> str:
    """Return the mask, or the digits as they are if a card's check digit is wrong."""
    if mask != "[CARD]":
        return mask
    digits = [int(character) for character in reversed(match[0]) if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[1::2]]  # Luhn's algorithm
    is_card = digits[-1] != 0 and (sum(digits[::2]) + sum(doubled)) % 10 == 0
    return mask if is_card else match[0]
