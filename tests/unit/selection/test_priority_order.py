"""The order of worth, beside the predecessor's."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.domain.example import Example
from perennial.domain.words import Priority
from perennial.selection.priority_order import priority_order

NOW = datetime(2025, 8, 1, tzinfo=UTC)
LEVELS = st.sampled_from([0.0, 0.3, 0.5, 1.0])
KEYS = st.tuples(st.integers(0, 3), LEVELS, LEVELS)


def example(key: tuple[int, float, float], task: str = "sentiment", age: int = 0) -> Example:
    return Example(
        agent="scout", task=task, input_text="x", expected_output="y", priority=Priority(key[0]), importance=key[1], uncertainty=key[2],
        created_at=NOW - timedelta(seconds=age),
    )  # fmt: skip


def original(items: list[Example]) -> list[Example]:
    """What the predecessor did: one stable sort by three keys, descending."""
    return sorted(items, key=lambda x: (x.priority, x.importance, x.uncertainty), reverse=True)


@pytest.mark.req("J24", "J35", "J37", "J39")
@settings(deadline=None, max_examples=60)
@given(st.lists(KEYS, max_size=40))
def test_equal_input_gives_the_predecessors_order(keys: list[tuple[int, float, float]]) -> None:
    items = [example(key) for key in keys]
    assert [item.example_id for item in priority_order(items)] == [item.example_id for item in original(items)]


@pytest.mark.req("J40")
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=40))
def test_ties_go_to_the_newer_and_then_to_the_first(drawn: list[tuple[tuple[int, float, float], int]]) -> None:
    items = [example(key, age=age) for key, age in drawn]
    ordered = priority_order(items)
    assert [(x.priority, x.importance, x.uncertainty) for x in ordered] == [
        (x.priority, x.importance, x.uncertainty) for x in original(items)
    ]
    place = {item.example_id: number for number, item in enumerate(items)}
    for left, right in itertools.pairwise(ordered):
        if (left.priority, left.importance, left.uncertainty) == (right.priority, right.importance, right.uncertainty):
            assert left.created_at >= right.created_at
            if left.created_at == right.created_at:
                assert place[left.example_id] < place[right.example_id]


@pytest.mark.req("J31", "J32")
def test_a_higher_priority_wins_over_everything() -> None:
    items = [example((level, 1.0 - level / 3, 1.0 - level / 3)) for level in (0, 1, 2, 3)]
    Random(1).shuffle(items)
    assert [item.priority for item in priority_order(items)] == [3, 2, 1, 0]


@pytest.mark.req("J38")
def test_task_weights_change_the_order_within_a_priority() -> None:
    items = [example((1, 0.5, 0.5), "sentiment"), example((1, 0.4, 0.5), "topic"), example((2, 0.1, 0.5), "topic")]
    assert [item.task for item in priority_order(items)] == ["topic", "sentiment", "topic"]
    assert [item.importance for item in priority_order(items, {"topic": 2.0})] == [0.1, 0.4, 0.5]
    assert [item.importance for item in priority_order(items, {"sentiment": 0.5})] == [0.1, 0.4, 0.5]


def test_rows_without_a_time_come_last_among_equals() -> None:
    class Bare:
        task, priority, importance, uncertainty = "t", 1, 0.5, 0.5
        created_at: datetime | None = None

    timed = Bare()
    timed.created_at = NOW
    bare = Bare()
    assert priority_order([bare, timed]) == [timed, bare]
