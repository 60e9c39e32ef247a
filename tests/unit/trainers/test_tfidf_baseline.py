"""The baselines that a first version must beat."""

from __future__ import annotations

import pytest

from perennial.domain.words import TaskKind
from perennial.errors import EmptyBatch
from perennial.trainers.tfidf_baseline import majority_baseline, tfidf_baseline
from tests.unit.trainers.conftest import rows_of, sentences

TRAIN = rows_of([*sentences("sport", 30), *sentences("money", 20)])
HELD = rows_of([*sentences("sport", 10, seed=1), *sentences("money", 30, seed=1)])
SCORES = rows_of([("good good", 1.0), ("bad bad", 0.0), ("good bad", 0.5), ("bad", 0.1), ("good", 0.9)])


def test_majority() -> None:
    assert majority_baseline(TRAIN, HELD) == 0.25
    assert majority_baseline(rows_of([("x", "b"), ("y", "a")]), rows_of([("x", "a")])) == 1.0, (
        "ties go to the first label"
    )
    assert majority_baseline(SCORES, rows_of([("x", 0.7)]), TaskKind.SCORE) == pytest.approx(0.2)


def test_words_beat_guessing_when_they_tell() -> None:
    assert tfidf_baseline(TRAIN, HELD) > 0.95
    held = rows_of([("good", 1.0), ("bad", 0.0)])
    assert tfidf_baseline(SCORES, held, TaskKind.SCORE) < majority_baseline(SCORES, held, TaskKind.SCORE)


@pytest.mark.parametrize("texts", [("!!", "??"), ("goal", "goal")])
def test_no_word_or_one_label_falls_back_on_guessing(texts: tuple[str, str]) -> None:
    labels = ("a", "b") if texts[0] == "!!" else ("a", "a")
    rows = rows_of(list(zip(texts, labels, strict=True)))
    assert tfidf_baseline(rows, rows) == majority_baseline(rows, rows)


def test_nothing_to_measure_is_an_error() -> None:
    for call in (majority_baseline, tfidf_baseline):
        for train, held in (((), HELD), (TRAIN, ())):
            with pytest.raises(EmptyBatch):
                call(train, held)
