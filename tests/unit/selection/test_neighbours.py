"""Near duplicates between training and holdout."""

from __future__ import annotations

from random import Random
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.selection.neighbours import _jaccard, _shingles, near_duplicates, separate

WORDS = [
    "bank",
    "rate",
    "storm",
    "harbour",
    "vote",
    "party",
    "minister",
    "treaty",
    "goal",
    "match",
    "league",
    "striker",
    "chip",
    "robot",
    "orbit",
    "probe",
    "vaccine",
    "trial",
    "market",
    "share",
    "profit",
    "strike",
    "union",
    "court",
    "judge",
    "museum",
    "film",
    "album",
    "river",
    "flood",
    "drought",
    "energy",
    "solar",
    "wind",
    "price",
    "tax",
    "budget",
    "school",
    "teacher",
    "hospital",
    "nurse",
    "train",
]


def article(draw: Random, length: int = 30) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(length))


def disturbed(text: str, draw: Random) -> str:
    """The text with other case, spacing, punctuation, and one word exchanged."""
    words = text.split()
    words[draw.randrange(len(words))] = draw.choice(WORDS)
    return "  ".join(word.upper() if draw.random() < 0.3 else word for word in words) + " !!"


def row(number: int, text: str, **flags: object) -> TrainingRow:
    return TrainingRow(example_id=UUID(int=number), task="t", text=text, label="a", **flags)  # type: ignore[arg-type]


@pytest.mark.req("J87")
def test_a_thousand_leaked_rows_are_all_found_and_nothing_else() -> None:
    draw = Random(1)
    held = [article(draw) for _ in range(1000)]
    leaked = [disturbed(text, draw) for text in held]
    honest = [article(draw) for _ in range(1000)]
    pairs = near_duplicates([*leaked, *honest], held, threshold=0.7)
    assert {left for left, _ in pairs} == set(range(1000))
    assert all(left == right for left, right in pairs)


def test_no_pair_is_missed_beside_a_comparison_of_all() -> None:
    draw = Random(2)
    left = [article(draw, draw.randint(5, 25)) for _ in range(60)]
    right = [" ".join(text.split()[draw.randint(0, 2) :] + [draw.choice(WORDS)] * draw.randint(0, 3)) for text in left]
    truth = [
        (one, two) for one in range(60) for two in range(60) if _jaccard(_shingles(left[one]), _shingles(right[two])) >= 0.7
    ]  # fmt: skip
    assert len(truth) > 20
    assert near_duplicates(left, right, threshold=0.7) == truth


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Ｆｕｌｌ width", "full WIDTH"), ("Straße am Fluss", "STRASSE AM FLUSS"), ("a\u00a0b  c", "A B C"), ("", ""), ("?! ", " ?!"),
        ("ok", "OK."), ("猫は窓のそばで眠っている", "猫は窓のそばで眠っている。"),
    ],
)  # fmt: skip
def test_case_width_spacing_and_punctuation_do_not_count(one: str, two: str) -> None:
    assert near_duplicates([one], [two]) == [(0, 0)]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("good", "bad"), ("", "x"), ("rates rose by half a point", "rates fell by two points"), ("", "?!"),
        ("👍", "👎"), ("👍👍", "👍 👎"), ("+", "-"),
    ],
)  # fmt: skip
def test_what_differs_differs(one: str, two: str) -> None:
    assert near_duplicates([one], [two]) == []


def test_odd_characters_do_not_break_it() -> None:
    assert near_duplicates(["a\ud800b" * 3, "x\0y" * 5], ["a\ud800b" * 3]) == [(0, 0)]


@pytest.mark.req("J87")
def test_corrections_are_kept_and_their_twins_leave_the_evaluation() -> None:
    draw = Random(4)
    held = [row(number, article(draw)) for number in range(6)]
    training = [
        row(10, disturbed(held[0].text, draw)),
        row(11, disturbed(held[1].text, draw), correction=True),
        row(12, disturbed(held[2].text, draw), priority=2),
        row(13, article(draw)),
    ]
    result = separate(training, held, threshold=0.7)
    assert [r.example_id.int for r in result.training] == [11, 12, 13]
    assert [r.example_id.int for r in result.dropped] == [10]
    assert [r.example_id.int for r in result.excluded] == [1, 2]
    assert [r.example_id.int for r in result.holdout] == [0, 3, 4, 5]
    again = separate(result.training, result.holdout, threshold=0.7)
    assert (again.training, again.holdout, again.dropped, again.excluded) == (result.training, result.holdout, (), ())


def test_nothing_to_compare() -> None:
    assert near_duplicates([], ["a"]) == near_duplicates(["a"], []) == []
    assert separate([], []).training == ()
