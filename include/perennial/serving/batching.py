"""Micro-batches: requests that come while others are computed are computed together, and none waits for a clock.

There are no threads of its own and nothing to drain: the first request computes at once. While as many batches run as
there are workers, later ones stand in line; whoever finishes makes the next one in line the leader, who computes its
own texts and those behind it in one call. So a request alone is never delayed, and a busy time makes its own batches.
The idea is flat combining (Hendler et al., 2010). Used by the gateway, one line per agent and encoder.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, Protocol, TypeVar

from perennial.serving.errors import Overloaded


class Sliceable(Protocol):
    """What the work gives back: one row per text."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Some of the rows."""
        ...


R = TypeVar("R", bound=Sliceable)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """``most``: texts of one batch. ``workers``: batches at work at once. ``waiting``: requests in line. ``patience``:
    seconds that one stands in line before it is refused."""

    most: int = 32
    workers: int = 1
    waiting: int = 256
    patience: float = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How many from the head of the line are refused, and how many after them are computed."""

    refused: int
    taken: int


def next_batch(line: Sequence[tuple[int, float]], now: float, limits: BatchLimits, *, own: int) -> Cut:
    """What a leader with ``own`` texts takes from the line of (texts, since when), in order.

    Who waited longer than the patience is refused: its caller has likely gone. Of the rest it takes its share, so that
    the next worker finds work too, and at most ``most`` texts with its own.

    >>> limits = BatchLimits(most=8, workers=2, patience=10)
    >>> next_batch([(1, 5.0), (1, 90.0), (1, 91.0), (1, 92.0)], 100.0, limits, own=1)
    Cut(refused=2, taken=1)
    >>> next_batch([(1, 99.0), (7, 99.0)], 100.0, BatchLimits(most=8), own=1)
    Cut(refused=0, taken=1)
    """
    refused = 0
    while refused < len(line) and now - line[refused][1] >= limits.patience:
        refused += 1
    waiting = sum(texts for texts, _ in line[refused:])
    room = min(limits.most, -(-(own + waiting) // limits.workers)) - own
    taken = 0
    for texts, _ in line[refused:]:
        room -= texts
        if room < 0:
            break
        taken += 1
    return Cut(refused=refused, taken=taken)


class _State(Enum):
    WAITING = auto()
    LEADING = auto()  # out of the line, told to compute
    TAKEN = auto()  # in the batch of another
    DONE = auto()


@dataclass(eq=False)
class _Place:
    texts: Sequence[str]
    since: float
    state: _State = _State.WAITING
    found: Any = None
    error: Exception | None = None
    seconds: float = 0.0  # its share of the computing
    turn: threading.Event = field(default_factory=threading.Event)


class Batcher(Generic[R]):
    """Gathers calls of ``work``, which answers a list of texts with as many rows. Safe from any number of threads.

    A call that fails is repeated request by request, so that a text that the model cannot bear fails its own request
    alone.
    """

    def __init__(
        self, work: Callable[[list[str]], R], limits: BatchLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work, self._limits, self._clock = work, limits, clock
        self._line: deque[_Place] = deque()
        self._guard = threading.Lock()
        self._at_work = 0

    def ask(self, texts: Sequence[str]) -> R:
        """The rows of ``texts``. Overloaded when the line is full or did not move in time; else what the work raises."""
        began = self._clock()
        mine = _Place(texts, began)
        with self._guard:
            if self._at_work < self._limits.workers:
                self._at_work += 1
                mine.state = _State.LEADING
            elif len(self._line) >= self._limits.waiting:
                raise Overloaded("too many requests wait for this model; come again in a second")
            else:
                self._line.append(mine)
        if mine.state is not _State.LEADING:
            self._wait(mine)
        if mine.state is _State.LEADING:
            self._lead(mine)
        _note(self._clock() - began - mine.seconds)
        if mine.error is not None:
            raise mine.error
        found: R = mine.found
        return found

    def _wait(self, mine: _Place) -> None:
        if mine.turn.wait(self._limits.patience):
            return
        with self._guard:
            if mine.state in {_State.LEADING, _State.DONE}:
                return
            if mine.state is _State.WAITING:
                self._line.remove(mine)
        raise Overloaded(f"the model did not answer within {self._limits.patience:.0f} s; come again later")

    def _lead(self, mine: _Place) -> None:
        try:
            self._compute([mine, *self._taken(mine)])
        finally:
            with self._guard:
                if self._line:
                    following = self._line.popleft()
                    following.state = _State.LEADING
                    following.turn.set()
                else:
                    self._at_work -= 1

    def _taken(self, mine: _Place) -> list[_Place]:
        with self._guard:
            line = [(len(place.texts), place.since) for place in self._line]
            cut = next_batch(line, self._clock(), self._limits, own=len(mine.texts))
            gone = [self._line.popleft() for _ in range(cut.refused)]
            batch = [self._line.popleft() for _ in range(cut.taken)]
            for place in batch:
                place.state = _State.TAKEN
        for place in gone:
            self._end(place, error=Overloaded("the line was too long; come again later"))
        return batch

    def _compute(self, batch: Sequence[_Place]) -> None:
        texts = [text for place in batch for text in place.texts]
        began = self._clock()
        try:
            rows = self._work(texts)
        except Exception as error:  # noqa: BLE001 - each request ends with an error of its own
            if len(batch) == 1:
                self._end(batch[0], error=error)
                return
            for place in batch:
                self._compute([place])
            return
        each, start = (self._clock() - began) / max(1, len(texts)), 0
        for place in batch:
            place.found = rows[start : start + len(place.texts)]
            place.seconds = each * len(place.texts)
            start += len(place.texts)
            self._end(place)

    def _end(self, place: _Place, error: Exception | None = None) -> None:
        with self._guard:
            place.error, place.state = error, _State.DONE
        place.turn.set()


# --- what a request lost to others ----------------------------------------------------------------------------------------

_mine = threading.local()


def _note(seconds: float) -> None:
    _mine.lost = getattr(_mine, "lost", 0.0) + seconds


def lost_to_others() -> float:
    """Seconds that this thread spent in line or on others' texts since it was last asked; the gateway takes them off a
    model's latency, since otherwise the arm with more traffic would look slower."""
    lost: float = getattr(_mine, "lost", 0.0)
    _mine.lost = 0.0
    return lost
