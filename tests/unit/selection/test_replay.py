"""The replay: spread over labels, corrections first, the same in any order of input."""

from __future__ import annotations

from collections import Counter
from random import Random
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.domain.example import TrainingRow
from perennial.selection.replay import share_out, stratified_replay


def rows(counts: dict[str, int], corrections: int = 0) -> list[TrainingRow]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        TrainingRow(
            example_id=UUID(int=number), task="t", text=str(number), label=label, correction=number < corrections
        )
        for number, label in enumerate(labels)
    ]


def test_rare_labels_keep_a_voice() -> None:
    chosen = Counter(row.label for row in stratified_replay(rows({"a": 900, "b": 90, "c": 10}), 100, seed=1))
    assert chosen == {"a": 65, "b": 25, "c": 10}


def test_the_order_of_the_input_does_not_matter_and_the_seed_does() -> None:
    given_rows = rows({"a": 300, "b": 60}, corrections=20)
    shuffled = list(given_rows)
    Random(3).shuffle(shuffled)
    assert stratified_replay(given_rows, 80, seed=1) == stratified_replay(shuffled, 80, seed=1)
    assert set(stratified_replay(given_rows, 80, seed=1)) != set(stratified_replay(given_rows, 80, seed=2))


def test_every_row_has_a_like_chance() -> None:
    given_rows = rows({"a": 50})
    seen = Counter(row.example_id.int for seed in range(400) for row in stratified_replay(given_rows, 10, seed=seed))
    assert len(seen) == 50
    assert min(seen.values()) > 45  # 80 expected, deviation 8
    assert max(seen.values()) < 115


def test_corrections_come_first_up_to_their_share() -> None:
    chosen = stratified_replay(rows({"a": 500}, corrections=100), 40, seed=1)
    assert 10 <= sum(row.correction for row in chosen) < 25
    few = stratified_replay(rows({"a": 500}, corrections=3), 40, seed=1)
    assert sum(row.correction for row in few) == 3


def test_scores_are_spread_over_bands() -> None:
    given_rows = [
        TrainingRow(example_id=UUID(int=n), task="t", text="x", label=0.95 if n < 190 else 0.05) for n in range(200)
    ]
    assert sum(row.label < 0.5 for row in stratified_replay(given_rows, 40, seed=1)) >= 8


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 50), max_size=7), st.integers(0, 120), st.floats(0, 1)
)
def test_places_add_up(counts: dict[str, int], size: int, floor: float) -> None:
    places = share_out(counts, size, floor)
    assert sum(places.values()) == min(size, sum(counts.values()))
    assert all(0 <= places[label] <= counts[label] for label in counts)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 80))
def test_no_row_twice_and_never_too_many(a: int, b: int, size: int) -> None:
    chosen = stratified_replay(rows({"a": a, "b": b}, corrections=a // 2), size, seed=1)
    assert len(chosen) == len({row.example_id for row in chosen}) == min(size, a + b)
