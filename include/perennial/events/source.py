"""What every event source offers: batches of raw records, each at a position of a part that only grows.

A source never decides what was consumed. The reader stores the position beside the rows, in one transaction, and asks
with it the next time; so a kill at any moment repeats nothing and skips nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRecord:
    """One record as it came: its fields, or what was wrong with it. ``raw`` may hold personal data."""

    position: int  # within its part, from 1
    data: Mapping[str, Any] | None
    raw: bytes
    problem: str | None = None  # when data is None: why, and what to do; never a value


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Consecutive records of one part. ``position`` is that of the last one; ``finished``: no more will come."""

    source: str
    part: str
    name: str  # for people: a file name, a topic and partition
    records: tuple[RawRecord, ...]
    position: int
    finished: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """How far a part was read."""

    position: int
    finished: bool = False


PositionOf: TypeAlias = Callable[[str], Position | None]
"""From a part to the stored position; None when nothing of it was read."""


class EventSource(Protocol):
    """A place to read from. Raises SourceError, naming the place, when a part is unreadable; other parts come first."""

    @property
    def name(self) -> str:
        """Stable; positions are stored under it."""
        ...

    def poll(self, position_of: PositionOf, *, size: int = 1000) -> Iterator[Batch]:
        """What waits beyond the stored positions, in batches of at most ``size`` records; ends when nothing is left now.

        The caller stores each batch before it asks for the next.
        """
        ...

    def settle(self, batch: Batch) -> None:
        """Called after a batch is stored; a source may tidy up. Must be safe to skip, and to call twice."""
        ...
