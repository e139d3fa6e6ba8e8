"""The checks of the gate, its verdict, and the aliases that a decision moves. Needs no Spark."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.errors import InputError
from pipelines.promote.checks import EXAMPLES, Limits, Predictions, Verdict, as_json, judge, moves

NAMES = [
    "beats_baseline",
    "not_worse_than_champion",
    "example_sentences",
    "recall_gap",
    "calibration",
]
LABELS = np.array([1, 0] * 100)
EXAMPLES_RIGHT = (0.02, 0.1, 0.97)
NAN = float("nan")


def with_wrong(*rows: int) -> NDArray[np.int64]:
    """Return predictions that equal the labels except in these rows."""
    predicted = LABELS.copy()
    predicted[list(rows)] = 1 - predicted[list(rows)]
    return predicted


def model(*wrong_rows: int) -> Predictions:
    predicted = with_wrong(*wrong_rows)
    return Predictions(predicted, np.where(predicted == 1, 0.98, 0.02))


def verdict(**given_instead: Any) -> Verdict:
    """Judge a challenger that passes with 4 of 200 rows wrong; arguments replace the defaults."""
    usual: dict[str, Any] = {
        "labels": LABELS,
        "challenger": model(0, 1, 2, 3),
        "baseline": Predictions(with_wrong(*range(20))),
        "champion": model(0, 1, 4, 5),
        "examples": EXAMPLES_RIGHT,
    }
    return judge(**(usual | given_instead))


def failures(decision: Verdict) -> list[str]:
    return [check.name for check in decision.checks if not check.passed]


def line(decision: Verdict, name: str) -> str:
    return next(str(check) for check in decision.checks if check.name == name)


def test_a_challenger_within_all_limits_passes_and_every_check_states_its_figures() -> None:
    decision = verdict()
    assert decision.passed
    assert [str(check) for check in decision.checks] == [
        "beats_baseline: passed, accuracy .9800 against .9000 (200 rows, McNemar p < .001)",
        "not_worse_than_champion: passed, 2 rows right that the champion has wrong, "
        "2 the other way round (one-sided McNemar p = .688, limit .05)",
        "example_sentences: passed, 3 of 3 right",
        "recall_gap: passed, recall gap .0000, limit .05 (200 rows)",
        "calibration: passed, expected calibration error .0000, limit .05 (200 rows)",
    ]


def test_the_first_challenger_passes_without_a_champion() -> None:
    decision = verdict(champion=None)
    assert decision.passed
    words = "not_worse_than_champion: passed, no champion yet"
    assert line(decision, "not_worse_than_champion") == words


@pytest.mark.parametrize(
    ("instead", "failed", "words"),
    [
        (
            {"baseline": Predictions(with_wrong(0, 1, 2))},
            "beats_baseline",
            "accuracy .9800 against .9850",
        ),
        (
            {"baseline": Predictions(with_wrong(6, 7, 8, 9))},
            "beats_baseline",
            "accuracy .9800 against .9800",
        ),
        (
            {"champion": model(), "challenger": model(*range(5))},
            "not_worse_than_champion",
            "p = .031, limit .05",
        ),
        ({"examples": (0.02, 0.5, 0.97)}, "example_sentences", '2 of 3 right; "Turgid dialogue'),
        (
            {"examples": (0.02, 0.1, 0.499)},
            "example_sentences",
            '"Best movie I have seen." got .4990',
        ),
        (
            {"challenger": model(*range(0, 12, 2)), "champion": None},
            "recall_gap",
            "recall gap .0600, limit .05",
        ),
        (
            {"challenger": Predictions(LABELS, np.where(LABELS == 1, 0.9, 0.1))},
            "calibration",
            "expected calibration error .1000, limit .05",
        ),
    ],
)
def test_each_check_fails_alone_and_states_its_figures(
    instead: dict[str, Any], failed: str, words: str
) -> None:
    decision = verdict(**instead)
    assert failures(decision) == [failed]
    assert not decision.passed
    assert words in line(decision, failed)


@pytest.mark.parametrize(
    ("instead", "failed", "words"),
    [
        ({"labels": []}, [0, 1, 3, 4], "no held-out rows"),
        ({"labels": LABELS[:199]}, [0, 1, 3, 4], "challenger: expected 199 pr"),
        ({"labels": np.ones(200)}, [0, 1, 3, 4], "no negative held-out row"),
        ({"labels": np.zeros(200)}, [0, 1, 3, 4], "no positive held-out row"),
        (
            {"labels": [NAN, *LABELS[1:]]},
            [0, 1, 3, 4],
            "labels: expected 0 or 1 in every row, found 1",
        ),
        (
            {"labels": [None, *LABELS[1:]]},
            [0, 1, 3, 4],
            "labels: expected 0 or 1 in every row, found 1",
        ),
        (
            {"challenger": Predictions([])},
            [0, 1, 3, 4],
            "challenger: expected 200 predictions, found 0",
        ),
        (
            {"challenger": Predictions([NAN] * 200, [NAN] * 200)},
            [0, 1, 3, 4],
            "challenger: expected",
        ),
        ({"challenger": Predictions(LABELS, None)}, [4], "expected 200 probabilities, found 0"),
        (
            {"challenger": Predictions(LABELS, [NAN, *LABELS[1:]])},
            [4],
            "found 1 with NaN or a value outside",
        ),
        (
            {"challenger": Predictions(LABELS, [1.1, *LABELS[1:]])},
            [4],
            "found 1 with NaN or a value outside",
        ),
        ({"challenger": Predictions(LABELS, [0.5])}, [4], "expected 200 probabilities, found 1"),
        (
            {"baseline": Predictions(LABELS[:50])},
            [0],
            "baseline: expected 200 predictions, found 50",
        ),
        (
            {"baseline": Predictions([NAN] * 200)},
            [0],
            "baseline: expected 0 or 1 in every row, found 200",
        ),
        (
            {"champion": Predictions(LABELS[:50])},
            [1],
            "champion: expected 200 predictions, found 50",
        ),
        (
            {"champion": Predictions([2] * 200)},
            [1],
            "champion: expected 0 or 1 in every row, found 200",
        ),
        ({"examples": []}, [2], "example: expected 3 probabilities, found 0"),
        (
            {"examples": (NAN, 0.1, 0.9)},
            [2],
            "example: expected a probability from 0 to 1 in every row, found 1 with NaN",
        ),
    ],
)
def test_a_missing_or_invalid_figure_fails_with_its_reason(
    instead: dict[str, Any], failed: list[int], words: str
) -> None:
    decision = verdict(**instead)
    assert failures(decision) == [NAMES[place] for place in failed]
    assert words in line(decision, NAMES[failed[0]])


def test_a_verdict_without_checks_is_a_refusal() -> None:
    assert not Verdict(()).passed


@given(st.integers(0, 40), st.integers(0, 40))
def test_worse_than_the_champion_is_the_binomial_tail(
    only_challenger: int, only_champion: int
) -> None:
    wrong_of_champion = range(only_challenger)
    wrong_of_challenger = range(40, 40 + only_champion)
    decision = verdict(challenger=model(*wrong_of_challenger), champion=model(*wrong_of_champion))
    check = decision.checks[1]
    n = only_challenger + only_champion
    expected = sum(math.comb(n, k) for k in range(only_challenger + 1)) / 2**n
    assert check.figures["p_value"] == pytest.approx(expected)
    assert check.passed == (expected >= Limits().worse_p_value)


def test_the_verdict_as_json_holds_every_check_with_figures_and_limit() -> None:
    checks = json.loads(as_json(verdict(labels=[])))
    assert [check["name"] for check in checks] == NAMES
    assert checks[0] == {
        "name": "beats_baseline",
        "passed": False,
        "figures": {},
        "limit": None,
        "sentence": "no held-out rows",
    }
    assert json.loads(as_json(verdict()))[3]["figures"] == {"recall_gap": 0.0}


def test_the_examples_hold_both_labels_and_no_text_twice() -> None:
    assert [label for _, label in EXAMPLES] == [0, 0, 1]
    assert len({text for text, _ in EXAMPLES}) == 3


@pytest.mark.parametrize(
    ("decision", "champion", "previous", "challenger", "expected"),
    [
        ("promoted", None, None, 1, {"champion": 1}),
        ("promoted", 1, None, 2, {"previous_champion": 1, "champion": 2}),
        ("promoted", 2, 1, 3, {"previous_champion": 2, "champion": 3}),
        ("promoted", 2, 1, 1, {"previous_champion": 2, "champion": 1}),
        ("promoted", 2, 1, 2, {}),
        ("refused", 2, 1, 3, {}),
        ("rolled_back", 2, 1, 3, {"previous_champion": 2, "champion": 1}),
        ("rolled_back", 2, 1, None, {"previous_champion": 2, "champion": 1}),
        ("rolled_back", None, 1, None, {"previous_champion": None, "champion": 1}),
    ],
)
def test_aliases_move_as_the_decision_says(
    decision: str,
    champion: int | None,
    previous: int | None,
    challenger: int | None,
    expected: dict[str, int | None],
) -> None:
    assert moves(decision, champion, previous, challenger) == expected


def test_two_rollbacks_restore_the_aliases() -> None:
    once = {"champion": 2, "previous_champion": 1} | moves("rolled_back", 2, 1)
    assert once | moves("rolled_back", once["champion"], once["previous_champion"]) == {
        "champion": 2,
        "previous_champion": 1,
    }


def test_a_rollback_without_a_previous_champion_is_refused_with_the_reason() -> None:
    words = r"expected an alias previous_champion, found none.*Only a champion that"
    with pytest.raises(InputError, match=words):
        moves("rolled_back", 1, None)


def test_a_promotion_without_a_challenger_names_the_job_to_run() -> None:
    words = r"expected an alias challenger, found none\. Run jobs/train\.py"
    with pytest.raises(InputError, match=words):
        moves("promoted", 1, None, None)


def test_an_unknown_decision_is_refused() -> None:
    with pytest.raises(ValueError, match="promoted, refused or rolled_back, got 'maybe'"):
        moves("maybe", 1, None, 2)
