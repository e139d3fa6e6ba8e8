"""The meaning of delivered labels: by their usual spellings, or by --label-map.

A column of labels must keep to one scheme. Stars from 1 to 10 hold a 1 too: read row by row, the
worst reviews would be learned as the best.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.flag_rules import NUMBER, Rule
from pipelines.quoting import shown
from schemas import LABEL_SPELLINGS, NEGATIVE, NEUTRAL, POSITIVE, UNKNOWN, UNLABELLED

MEANINGS = {name: name for name in (POSITIVE, NEGATIVE, NEUTRAL, UNLABELLED)}
# As pandas and others write that there is no label.
MISSING = ("", "nan", "null", "none", "<na>", "unlabelled", "unlabeled", "unsup")
RANGE = re.compile(rf"({NUMBER.pattern})-({NUMBER.pattern})")
MAX_DIFFERENT = 1_000  # counted one by one
SHOWN_LABELS = 20  # in a message
SHOWN_CHARACTERS = 24  # of each of them: longer ones may be reviews


@dataclass(frozen=True)
class LabelRule:
    """Labels of one meaning: a word, or the numbers from `low` to `high`, both included."""

    meaning: str
    word: str = ""
    low: float = 0
    high: float = 0

    def covers(self, word: str, number: float | None) -> bool:
        """Return whether the rule is about this label, given as a word and as its number."""
        if self.word:
            return word == self.word
        return number is not None and self.low <= number <= self.high


class LabelColumn:
    """Tells the meaning of each label of a file, and whether all keep to one scheme."""

    def __init__(self, label_map: str = "") -> None:
        self._rules = parse_label_map(label_map)
        self._counts: Counter[str] = Counter()  # of rows, by label
        self._n_others = 0  # rows whose label came after MAX_DIFFERENT others
        self.meanings: Counter[str] = Counter()  # of rows, by meaning

    def meaning_of(self, label: str | None) -> str:
        """Return the meaning of the next row's label."""
        word = normalised(label or "")
        meaning = meaning_of(word, self._rules)
        self.meanings[meaning] += 1
        if word in self._counts or len(self._counts) < MAX_DIFFERENT:
            self._counts[word] += word not in MISSING
        else:
            self._n_others += 1
        return meaning

    def fault(self) -> str:
        """Return why the labels cannot be used, and what to do; "" if they can."""
        labels = sorted((word for word, n in self._counts.items() if n), key=_by_number)
        if self._rules:
            is_named = [meaning_of(label, self._rules) != UNKNOWN for label in labels]
            has_match = any(is_named) or not labels
            return "" if has_match else f"--label-map names none of the labels {self._listed()}"
        if self.meanings[UNKNOWN]:
            return (
                "expected labels of one scheme (1 and 0, or positive and negative), found "
                f"{self._listed()}. Say what they mean, for example "
                f"--label-map '{_example(labels)}'; rows with other labels become rejects"
            )
        if len(labels) > 1 and "-1" in labels:
            unlabelled = _scheme(labels, minus_one=UNLABELLED, zero=NEGATIVE)
            opposite = _scheme(labels, minus_one=NEGATIVE, zero=NEUTRAL)
            return (
                f"the labels {self._listed()} belong to two schemes. "
                f"Pass --label-map '{unlabelled}' or --label-map '{opposite}'"
            )
        return ""

    def _listed(self) -> str:
        """Return the labels with their numbers of rows."""
        counts = [(word, self._counts[word]) for word in sorted(self._counts, key=_by_number)]
        present = [(word, n) for word, n in counts if n]
        listed = [f"{_cut(word)} ({n:,})" for word, n in present[:SHOWN_LABELS]]
        n_rest = sum(n for _, n in present[SHOWN_LABELS:]) + self._n_others
        return ", ".join(listed) + (f" and others ({n_rest:,})" if n_rest else "")


def normalised(label: str) -> str:
    """Return a label for comparison: lower case, single blanks, no invisible characters.

    A number is written in its shortest form: 1.00, +1 and 1e0 are 1.
    """
    text = unicodedata.normalize("NFKC", label).replace("\N{MINUS SIGN}", "-")
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    word = " ".join(visible.split()).casefold()
    number = number_of(word.removeprefix("+"))
    return word if number is None else f"{number:.15g}"


def number_of(word: str) -> float | None:
    """Return the number that a word spells; None if it is not a number."""
    return float(word) + 0.0 if NUMBER.fullmatch(word) else None  # + 0.0: no minus before 0


def meaning_of(word: str, rules: Sequence[LabelRule] = ()) -> str:
    """Return the meaning of a normalised label: by the rules, or else by its usual spelling."""
    number = number_of(word)
    for rule in rules:
        if rule.covers(word, number):
            return rule.meaning
    if word in MISSING:
        return UNLABELLED
    if rules:
        return UNKNOWN
    if word == "-1":  # as the Hub's imdb writes it, if the column has no other label
        return UNLABELLED
    return LABEL_SPELLINGS.get(word, UNKNOWN)


def parse_label_map(text: str) -> list[LabelRule]:
    """Read a map such as 1-4=negative,7-10=positive,n/a=unlabelled. Raises ValueError."""
    rules = [_parse_rule(part) for part in text.split(",")] if text else []
    for position, rule in enumerate(rules):
        if any(_overlap(rule, other) for other in rules[:position]):
            raise ValueError("a label has two meanings")
    return rules


def _parse_rule(part: str) -> LabelRule:
    labels, _, spelling = part.rpartition("=")
    word = normalised(labels)
    meaning = (MEANINGS | LABEL_SPELLINGS).get(normalised(spelling))
    if not word or meaning is None:
        raise ValueError("expected LABEL=MEANING")
    number = number_of(word)
    if number is not None:
        return LabelRule(meaning, low=number, high=number)
    if ends := RANGE.fullmatch(word):
        low, high = float(ends[1]), float(ends[2])
        if low > high:
            raise ValueError("the range ends before it starts")
        return LabelRule(meaning, low=low, high=high)
    return LabelRule(meaning, word=word)


def _overlap(one: LabelRule, other: LabelRule) -> bool:
    if one.word or other.word:
        return one.word == other.word
    return one.low <= other.high and other.low <= one.high


def _is_label_map(text: str) -> bool:
    try:
        return bool(parse_label_map(text))
    except ValueError:
        return False


LABEL_MAP = Rule(
    "labels with their meanings, such as 1-4=negative,7-10=positive or good=positive,bad=negative; "
    "a meaning is positive, negative, neutral or unlabelled, and no label may have two",
    _is_label_map,
)


def _scheme(labels: Sequence[str], *, minus_one: str, zero: str) -> str:
    """Return the map of a scheme in which -1 and 0 have these meanings."""
    own = {"-1": minus_one, "0": zero}
    return ",".join(f"{label}={own.get(label, meaning_of(label))}" for label in labels)


def _example(labels: Sequence[str]) -> str:
    """Return a map for these labels: the lower two fifths of the numbers are negative."""
    numbers = [number for number in map(number_of, labels) if number is not None]
    if len(set(numbers)) < 2:
        return "bad=negative,good=positive"
    low, high = min(numbers), max(numbers)
    last_negative = low + (high - low) * 0.4
    first_positive = high - (high - low) * 0.4
    if all(number.is_integer() for number in numbers):
        last_negative, first_positive = math.floor(last_negative), math.ceil(first_positive)
    return f"{_range(low, last_negative)}=negative,{_range(first_positive, high)}=positive"


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _by_number(word: str) -> tuple[float, str]:
    """Sort numbers by value, and words after them."""
    number = number_of(word)
    return (math.inf if number is None else number, word)


def _cut(word: str) -> str:
    is_long = len(word) > SHOWN_CHARACTERS
    return f"a text of {len(word):,} characters" if is_long else shown(word)
