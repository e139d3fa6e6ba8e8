"""Labels keep to one scheme, or --label-map says what they mean. Without Spark."""

from collections.abc import Sequence

import pytest

from pipelines.ingest.labels import LABEL_MAP, SHOWN_LABELS, LabelColumn, parse_label_map
from schemas import LABEL_SPELLINGS, NEGATIVE, NEUTRAL, POSITIVE, UNKNOWN, UNLABELLED

STARS = [str(n) for n in range(1, 11)]


def read(labels: Sequence[str | None], label_map: str = "") -> tuple[list[str], str]:
    """Return the meaning of each label, and the fault of the column."""
    column = LabelColumn(label_map)
    return [column.meaning_of(label) for label in labels], column.fault()


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        *LABEL_SPELLINGS.items(),
        ("True", POSITIVE),
        ("NEG", NEGATIVE),
        ("\u00a0Positive\t", POSITIVE),
        ("\ufeffpos\u200b", POSITIVE),
        ("1.00", POSITIVE),
        ("+1", POSITIVE),
        ("0e0", NEGATIVE),
        ("-0.0", NEGATIVE),
        ("\uff10", NEGATIVE),
        ("", UNLABELLED),
        (" \u3000", UNLABELLED),
        ("NaN", UNLABELLED),
        ("None", UNLABELLED),
        ("-1", UNLABELLED),
        ("\u22121.0", UNLABELLED),
        ("unsup", UNLABELLED),
        (None, UNLABELLED),
    ],
)
def test_the_usual_spellings_need_no_map(label: str | None, meaning: str) -> None:
    assert read([label, None, ""]) == ([meaning, UNLABELLED, UNLABELLED], "")


@pytest.mark.parametrize("label", ["2", "0.5", "maybe", "1 star", "8/10", "inf", "1_0", "--1", "l"])
def test_any_other_label_makes_its_column_unclear(label: str) -> None:
    meanings, fault = read(["1", "0", label, label])
    assert meanings == [POSITIVE, NEGATIVE, UNKNOWN, UNKNOWN]
    assert f"{label} (2)" in fault


@pytest.mark.parametrize(
    ("labels", "example"),
    [
        (STARS, "1-4=negative,7-10=positive"),
        (STARS[:5], "1-2=negative,4-5=positive"),
        (["1.0", "2.0"], "1=negative,2=positive"),
        (["0", "2", "4"], "0-1=negative,3-4=positive"),
        (["-5", "0", "5"], "-5--1=negative,1-5=positive"),
        (["0.0", "0.25", "1.0"], "0-0.4=negative,0.6-1=positive"),
        (["good", "bad", "1"], "bad=negative,good=positive"),
    ],
)
def test_the_refusal_shows_a_map_that_would_be_taken(labels: list[str], example: str) -> None:
    _, fault = read(labels)
    assert f"--label-map '{example}'" in fault
    assert LABEL_MAP.accepts(example)
    assert read(labels, example)[1] == ""


def test_the_refusal_counts_the_rows_of_each_label() -> None:
    _, fault = read(["2", "10", "1", "2", "oh", None])
    assert "found 1 (1), 2 (2), 10 (1), oh (1). Say" in fault


def test_long_labels_and_many_of_them_are_not_shown() -> None:
    _, fault = read([*[f"{n}" for n in range(2000)], "a review " * 9, "a review " * 9])
    assert f"{SHOWN_LABELS - 1} (1) and others (1,982)" in fault
    assert "a text of 80 characters (2)" in read(["1", "a review " * 9, "a review " * 9])[1]


@pytest.mark.parametrize(
    ("labels", "unlabelled", "negative"),
    [
        (
            ["-1", "0", "1"],
            "-1=unlabelled,0=negative,1=positive",
            "-1=negative,0=neutral,1=positive",
        ),
        (["1", "-1.0"], "-1=unlabelled,1=positive", "-1=negative,1=positive"),
        (["0", "-1", None], "-1=unlabelled,0=negative", "-1=negative,0=neutral"),
    ],
)
def test_minus_one_among_others_belongs_to_two_schemes(
    labels: list[str], unlabelled: str, negative: str
) -> None:
    _, fault = read(labels)
    assert fault.endswith(f"Pass --label-map '{unlabelled}' or --label-map '{negative}'")
    assert read(labels, unlabelled)[1] == read(labels, negative)[1] == ""


@pytest.mark.parametrize(
    ("label_map", "labels", "meanings"),
    [
        (
            "1-4=negative,7-10=positive",
            ["1", "4.0", "4.5", "5", "6", "7", "10", "11", "", None, "n/a"],
            [NEGATIVE] * 2 + [UNKNOWN] * 3 + [POSITIVE] * 2 + [UNKNOWN, *[UNLABELLED] * 2, UNKNOWN],
        ),
        ("-5--1=neg,0=neutral,1-5=pos", ["-5", "-0.0", "5"], [NEGATIVE, NEUTRAL, POSITIVE]),
        (
            "Good Film=1,bad=0,n/a=unlabelled",
            ["good  film", "BAD", "N/A", "1"],
            [POSITIVE, NEGATIVE, UNLABELLED, UNKNOWN],
        ),
        ("a=b=positive", ["a=b"], [POSITIVE]),
        ("0=positive,1=negative", ["1", "0"], [NEGATIVE, POSITIVE]),
    ],
)
def test_a_map_alone_decides_and_labels_outside_it_are_unknown(
    label_map: str, labels: list[str | None], meanings: list[str]
) -> None:
    assert read(labels, label_map) == (meanings, "")


def test_a_map_that_names_no_label_of_the_file_is_refused() -> None:
    assert (
        read(["1", "2"], "good=positive")[1] == "--label-map names none of the labels 1 (1), 2 (1)"
    )
    assert "none of the labels 1 (1)" in read(["1", None], "good=positive")[1]
    assert read([None, ""], "good=positive")[1] == ""


@pytest.mark.parametrize(
    "label_map",
    [
        "1-4",
        "=positive",
        "1=",
        "1=good",
        "4-1=negative",
        "1=positive,1.0=negative",
        "1-5=negative,5-9=positive",
        "bad=negative,BAD=positive",
        "1=positive,",
    ],
)
def test_a_map_that_is_unclear_is_no_map(label_map: str) -> None:
    assert not LABEL_MAP.accepts(label_map)
    with pytest.raises(ValueError, match=r"two meanings|expected LABEL|the range"):
        parse_label_map(label_map)
