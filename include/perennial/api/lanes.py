"""Bounded threads for work that waits or computes, so that a flood is answered with 429 and not with a growing
queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


class Busy(Exception):
    """Too many requests wait already; the caller may come again in a second."""


class Lane:
    """At most ``threads`` at work and ``waiting`` in line. Made and used in the event loop of one process."""

    def __init__(self, *, threads: int, waiting: int) -> None:
        self._limiter, self._places, self._taken = CapacityLimiter(threads), threads + waiting, 0

    @property
    def full(self) -> bool:
        """Whether ``run`` would raise Busy at this moment."""
        return self._taken >= self._places

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; Busy when the line is full."""
        # Counted here and not by the limiter: it notes a request some turns of the loop later, and a burst that came
        # in one turn would all pass.
        if self.full:
            raise Busy
        self._taken += 1
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._taken -= 1
