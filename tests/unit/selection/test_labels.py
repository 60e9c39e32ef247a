"""Which labels take part."""

from __future__ import annotations

from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.selection.labels import choose_labels


def rows(*labels: object) -> tuple[TrainingRow, ...]:
    return tuple(
        TrainingRow(example_id=UUID(int=number), task="t", text="x", label=label) for number, label in enumerate(labels)
    )


@pytest.mark.req("J54")
def test_a_new_label_joins_at_the_threshold_and_not_before() -> None:
    below = choose_labels(rows(*["new"] * 11, "old"), ("old",), new_label_rows=12)
    assert (below.labels, below.new, len(below.set_aside)) == (("old",), (), 11)
    assert [row.label for row in below.rows] == ["old"]
    reached = choose_labels(rows(*["new"] * 12, "old"), ("old",), new_label_rows=12)
    assert (reached.labels, reached.new, reached.set_aside) == (("old", "new"), ("new",), ())
    assert len(reached.rows) == 13


def test_the_champions_order_stays_and_new_ones_follow_by_frequency() -> None:
    choice = choose_labels(rows("b", "b", "c", "c", "c", "a", "a", "z"), ("z", "y"), new_label_rows=2)
    assert choice.labels == ("z", "y", "c", "a", "b")


def test_a_closed_set_takes_part_as_a_whole_and_alone() -> None:
    choice = choose_labels(rows("bad", *["other"] * 50), (), new_label_rows=12, closed=("good", "bad"))
    assert choice.labels == ("good", "bad")
    assert [row.label for row in choice.rows] == ["bad"]
    assert len(choice.set_aside) == 50
    later = choose_labels(rows("ugly"), ("bad", "good"), new_label_rows=12, closed=("good", "bad", "ugly"))
    assert (later.labels, later.new) == (("bad", "good", "ugly"), ("ugly",))


@pytest.mark.parametrize("label", [None, 1, {"label": "a"}, ["a"], True])
def test_what_is_no_text_is_set_aside(label: object) -> None:
    choice = choose_labels(rows("a", *[label] * 20), ("a",), new_label_rows=2)
    assert (choice.labels, len(choice.rows), len(choice.set_aside)) == (("a",), 1, 20)


def test_no_row_is_lost_or_changed() -> None:
    given = rows("a", "b", "a", "c", "c", None, "d")
    choice = choose_labels(given, ("d",), new_label_rows=2)
    assert sorted((*choice.rows, *choice.set_aside), key=lambda row: row.example_id.int) == list(given)
    assert [row.example_id.int for row in choice.rows] == [0, 2, 3, 4, 6]
