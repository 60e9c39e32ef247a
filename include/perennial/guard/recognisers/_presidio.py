"""Runs a Presidio recogniser only where its kind can stand at all.

Presidio scans the whole text with every pattern, some of which take quadratic time on hostile input, and on a timeout it
skips the pattern: a detector that fails open. Here a cheap pattern of linear time names the places (a superset of what
Presidio finds), and Presidio sees short windows alone. A text with more places than ``limit`` is no prose: its further
places count as found without a look, so effort stays bounded and the guard fails closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from perennial.guard.spans import Kind, Span

Place = tuple[int, int]
LIMIT = 200  # places of one text that Presidio looks at


class Engine(Protocol):
    """The part of ``presidio_analyzer.EntityRecognizer`` that is used here."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:
        """Results with ``start``, ``end`` and ``score``."""
        ...


class Windowed:
    """A Presidio recogniser behind a cheap pattern.

    ``places`` yields where a find may stand, ``margin`` is what Presidio sees around it (characters), results under
    ``least`` (Presidio's score, 0 to 1) do not count.
    """

    def __init__(
        self, kind: Kind, engine: Engine, places: Callable[[str], Iterable[Place]], *,
        margin: int = 2, least: float = 0.3, limit: int = LIMIT,
    ) -> None:  # fmt: skip
        self.kind = kind
        self._engine = engine
        self._places = places
        self._margin = margin
        self._least = least
        self._limit = limit

    def find(self, text: str) -> list[Span]:
        """Spans that Presidio confirms, and all places beyond the limit."""
        found: list[Span] = []
        for number, (start, end) in enumerate(self._places(text)):
            if number >= self._limit:
                found.append(Span(start, end, self.kind))
            else:
                found.extend(self._confirmed(text, start, end))
        return found

    def _confirmed(self, text: str, start: int, end: int) -> Iterator[Span]:
        left = max(0, start - self._margin)
        for result in self._engine.analyze(text[left : end + self._margin], [self.kind.value], None):
            span = Span(left + result.start, left + result.end, self.kind)
            if result.score >= self._least and span.start < end and span.end > start:
                yield span
