"""The same text, two senders, two labels: somebody is wrong, and a person finds out who."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias
from uuid import UUID

from perennial.domain.words import JSON
from perennial.selection.sent import UNNAMED, Sent

SCORES_APART = 0.5  # two scores this far apart contradict each other
UNKNOWN, TRUSTED, PERSON = 0, 1, 2  # whose word weighs more

_Said: TypeAlias = tuple[int, str, JSON]  # rank, sender, label


def within(sent: Sequence[Sent], families: Sequence[int]) -> tuple[UUID, ...]:
    """Ids of the rows of a batch that a near duplicate from another sender of the same or a higher rank contradicts.

    ``families`` names each row's family (``neighbours.families``). An urgent correction outranks a trusted sender, and that one
    an unknown sender: whoever weighs less waits, and of equals, two corrections for instance, both do. A sender that contradicts
    itself alone is no conflict; two rows without a sender are from two senders. Rows that a person released are not looked at.

    >>> from perennial.domain.example import TrainingRow
    >>> from perennial.domain.words import Source
    >>> def row(number, label, alias, trusted=False, priority=0):
    ...     return Sent(row=TrainingRow(example_id=UUID(int=number), task="t", text="", label=label, priority=priority,
    ...                 correction=priority >= 2), kind=Source.EXAMPLE, alias=alias, trusted=trusted, young=False)
    >>> [i.int for i in within([row(1, "a", "x"), row(2, "b", "y"), row(3, "a", "desk", True), row(4, "b", "z")], [0, 0, 0, 3])]
    [1, 2]
    >>> [i.int for i in within([row(1, "a", "x", priority=2), row(2, "b", "y", priority=2)], [0, 0])]
    [1, 2]
    >>> [i.int for i in within([row(1, "a", "x", priority=2), row(2, "b", "y")], [0, 0])]
    [2]
    """
    grouped: dict[int, set[_Said]] = defaultdict(set)
    for one, family in zip(sent, families, strict=True):
        if not one.released:
            grouped[family].add(_said(one))
    return tuple(
        one.example_id for one, family in zip(sent, families, strict=True)
        if not one.released and len(grouped[family]) > 1 and _overruled(_said(one), grouped[family])
    )  # fmt: skip


def against_trained(
    sent: Sequence[Sent], trained: Sequence[Sent], pairs: Iterable[tuple[int, int]]
) -> tuple[UUID, ...]:
    """Ids of the rows that contradict a near duplicate which was trained before and came from another sender.

    ``pairs`` are the near duplicates (index in ``sent``, index in ``trained``). A correction may contradict anything: that is what it
    is for. A trusted sender may change what was learned, but not what a person corrected. Everybody else waits.

    >>> from perennial.domain.example import TrainingRow
    >>> from perennial.domain.words import Source
    >>> def row(number, label, alias, trusted=False, priority=0):
    ...     return Sent(row=TrainingRow(example_id=UUID(int=number), task="t", text="", label=label, priority=priority,
    ...                 correction=priority >= 2), kind=Source.EXAMPLE, alias=alias, trusted=trusted, young=False)
    >>> new = [row(1, "b", "x"), row(2, "b", "desk", True), row(3, "b", "jane", priority=2)]
    >>> [i.int for i in against_trained(new, [row(9, "a", "archive")], [(0, 0), (1, 0), (2, 0)])]
    [1]
    >>> [i.int for i in against_trained(new, [row(9, "a", "eve", priority=2)], [(0, 0), (1, 0), (2, 0)])]
    [1, 2]
    """
    waiting: dict[UUID, None] = {}
    for left, right in pairs:
        one, old = sent[left], trained[right]
        free = one.released or one.urgent or (one.trusted and not old.urgent)
        if not free and _contradict(_said(one), _said(old)):
            waiting[one.example_id] = None
    return tuple(waiting)


def differ(first: JSON, second: JSON) -> bool:
    """Whether two labels contradict each other; scores do from 0.5 apart.

    >>> differ("a", "b"), differ(0.1, 0.5), differ(0.1, 0.9)
    (True, False, True)
    """
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (first, second))
    return abs(first - second) >= SCORES_APART if numbers else bool(first != second)


def _said(one: Sent) -> _Said:
    rank = PERSON if one.urgent else TRUSTED if one.trusted else UNKNOWN
    label = one.row.label
    return rank, one.alias, label if isinstance(label, str | int | float) else repr(label)


def _overruled(said: _Said, others: Iterable[_Said]) -> bool:
    return any(other[0] >= said[0] and _contradict(said, other) for other in others)


def _contradict(first: _Said, second: _Said) -> bool:
    same_sender = first[1] == second[1] and first[1] != UNNAMED
    return not same_sender and differ(first[2], second[2])
