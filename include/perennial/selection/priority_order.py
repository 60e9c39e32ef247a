"""The order in which waiting examples are worth training on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol, TypeVar


class Ranked(Protocol):
    """What the order looks at; ``domain.Example`` has it all."""

    @property
    def task(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def importance(self) -> float: ...
    @property
    def uncertainty(self) -> float: ...
    @property
    def created_at(self) -> datetime | None: ...


T = TypeVar("T", bound=Ranked)

_NEVER = datetime.min.replace(tzinfo=UTC)


def priority_order(items: Iterable[T], task_weights: Mapping[str, float] | None = None) -> list[T]:
    """Best first: priority, then importance, then uncertainty, then the newer one; whoever came first wins what is
    left.

    The predecessor sorted by the first three in one stable sort, so rows that differ in them come in exactly its
    order; it left rows that tie in the order of arrival, where this prefers the newer. ``task_weights`` multiply the
    importance (1 for tasks that are not named).

    >>> from perennial.domain.example import Example
    >>> def row(text, priority, importance):
    ...     return Example(agent="scout", task=text, input_text=text, expected_output="x", uncertainty=0.5,
    ...                    importance=importance, priority=priority)
    >>> rows = [row("a", 0, 0.9), row("b", 2, 0.1), row("c", 0, 0.5)]
    >>> [item.task for item in priority_order(rows)], [item.task for item in priority_order(rows, {"c": 2.0})]
    (['b', 'a', 'c'], ['b', 'c', 'a'])
    """
    weights = task_weights or {}

    def worth(item: T) -> tuple[float, float, float, datetime]:
        importance = item.importance * weights.get(item.task, 1.0)
        return (item.priority, importance, item.uncertainty, item.created_at or _NEVER)

    return sorted(items, key=worth, reverse=True)
