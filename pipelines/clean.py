"""Bronze to silver: each distinct review text once, as plain text; invalid rows to the rejects."""

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf
from pyspark.sql.types import StringType

from pipelines.provenance import same_code
from schemas import LABEL_SPELLINGS, NEGATIVE, NEUTRAL, POSITIVE, SPLIT_RANK, UNKNOWN, UNLABELLED

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


# The stubs predate type-hinted UDFs.
@pandas_udf(StringType())  # type: ignore[call-overload,untyped-decorator]
@same_code
def plain_text(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
    """Apply `clean_text` to a column; null stays null."""
    for raw in batches:
        yield raw.map(clean_text, na_action="ignore")


def label_meanings(bronze: DataFrame) -> Column:
    """Return the meaning that ingest has recorded; for rows before it did so, by the spelling."""
    keys_and_values = [F.lit(item) for pair in LABEL_SPELLINGS.items() for item in pair]
    spelling = F.lower(F.trim("raw_label"))
    by_spelling = F.coalesce(
        F.try_element_at(F.create_map(*keys_and_values), spelling),
        F.when(F.coalesce(spelling, F.lit("")) == "", UNLABELLED).otherwise(UNKNOWN),
    )
    has_meanings = "label_meaning" in bronze.columns  # a table of an older release has none
    return F.coalesce("label_meaning", by_spelling) if has_meanings else by_spelling


# The SQL of a rule must be true for each row; silver.rejects gives the name of a broken rule.
ROW_RULES = {
    "record_is_readable": "read_fault IS NULL",
    "text_has_no_nul": "NOT coalesce(contains(raw_text, '\\0'), false)",
    "text_is_not_blank": "coalesce(length(text), 0) > 0 OR read_fault IS NOT NULL",
    "label_is_known": f"label_meaning != '{UNKNOWN}'",
    "label_is_polar": f"label_meaning != '{NEUTRAL}'",
}


def clean_reviews(bronze: DataFrame) -> DataFrame:
    """Return one row per bronze row: plain text, label, and the rules that the row breaks."""
    split_rank = F.coalesce(
        *[F.when(F.col("source_split") == name, rank) for name, rank in SPLIT_RANK.items()],
        F.lit(len(SPLIT_RANK)),
    )
    cleaned = bronze.select(
        "source",
        "source_file",
        "source_sha256",
        "row_number",
        "source_split",
        "raw_text",
        "read_fault",
        plain_text("raw_text").alias("text"),
        label_meanings(bronze).alias("label_meaning"),
        split_rank.alias("split_rank"),
    )
    label = F.when(F.col("label_meaning") == POSITIVE, 1).when(
        F.col("label_meaning") == NEGATIVE, 0
    )
    broken = [F.when(~F.expr(rule), F.lit(name)) for name, rule in sorted(ROW_RULES.items())]
    judged = cleaned.withColumns(
        {"label": label.cast("int"), "failed_rules": F.array_compact(F.array(*broken))}
    )
    return judged.drop("raw_text", "label_meaning", "read_fault")


def group_by_text(cleaned: DataFrame) -> DataFrame:
    """Return one row per distinct text of the valid rows, with its origins in a fixed order."""
    kept = cleaned.where(F.size("failed_rules") == 0)
    origin = F.struct(
        "split_rank", "source_sha256", "row_number", "source_file", "source", "source_split"
    )
    grouped = kept.groupBy(F.sha2("text", 256).alias("review_id")).agg(
        F.first("text").alias("text"),
        F.min("label").alias("least_label"),
        F.max("label").alias("label"),
        F.array_sort(F.collect_list(origin)).alias("ranked"),
    )
    return grouped.withColumn("labels_agree", F.col("least_label").eqNullSafe(F.col("label")))


def silver_reviews(grouped: DataFrame) -> DataFrame:
    """Return the rows of silver.reviews: the texts whose copies agree on the label."""
    any_mask = "|".join(re.escape(mask) for mask in MASKS)
    return grouped.where("labels_agree").select(
        "review_id",
        "text",
        "label",
        F.rlike("text", F.lit(any_mask)).alias("has_pii"),
        F.expr("ranked[0].source").alias("source"),
        F.expr("ranked[0].source_split").alias("source_split"),
        F.expr(
            "transform(ranked, o -> struct(o.source_sha256, o.row_number, o.source_file))"
        ).alias("origins"),
    )


def silver_rejects(cleaned: DataFrame, grouped: DataFrame) -> DataFrame:
    """Return the rows of silver.rejects: invalid rows, and all copies of a text with two labels."""
    columns = ("source_sha256", "row_number", "source", "source_file")
    broken = cleaned.where(F.size("failed_rules") > 0).select(*columns, "failed_rules")
    disputed = grouped.where("NOT labels_agree").select(F.explode("ranked").alias("origin"))
    reason = F.array(F.lit("labels_agree")).alias("failed_rules")
    return broken.unionByName(disputed.select("origin.*").select(*columns, reason))


def row_counts(versions: Mapping[str, int]) -> dict[str, str]:
    """Return one query per outcome, over the table versions that a run read and left.

    They count rows in the tables that were written, not in the frames that were computed.
    """
    at = {name: f"{name} VERSION AS OF {version}" for name, version in versions.items()}
    return {
        "in": f"SELECT count(*) FROM {at['bronze.reviews']}",
        "kept": f"SELECT count(*) FROM {at['silver.reviews']}",
        "rejected": f"SELECT count(*) FROM {at['silver.rejects']}",
        "duplicates": f"SELECT coalesce(sum(size(origins) - 1), 0) FROM {at['silver.reviews']}",
    }
