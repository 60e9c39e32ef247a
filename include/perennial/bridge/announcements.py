"""Which looks at the table become events: level-triggered, but said once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Due:
    """An agent that should train now, and why."""

    agent: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """Plain JSON for the asset event."""
        return {"agent": self.agent, "reason": self.reason}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Said:
    at: float
    times: int


@dataclass(kw_only=True, slots=True)
class Announcer:
    """Turns repeated looks into few events. One per shared stream; not thread-safe.

    An agent is announced when it becomes due. While it stays due and nobody claims (the event or its run was lost, or its DAG is
    paused) it is announced again after ``first_seconds``, then after twice as long each time, up to ``longest_seconds``. An agent
    whose training runs is not due, so the end of a training with more rows waiting counts as becoming due.

    >>> announcer = Announcer(first_seconds=20.0)
    >>> scout = Due(agent="scout", reason="threshold")
    >>> [len(announcer.look([scout], now)) for now in (0.0, 2.0, 20.0, 40.0, 59.0, 60.0)]
    [1, 0, 1, 0, 0, 1]
    >>> len(announcer.look([], 61.0)), len(announcer.look([scout], 62.0))
    (0, 1)
    """

    first_seconds: float = 20.0
    longest_seconds: float = 300.0
    _said: dict[str, _Said] = field(default_factory=dict)

    def look(self, due: Sequence[Due], now: float) -> list[Due]:
        """The agents to announce now. ``now`` is any clock that does not go back, in seconds."""
        present = {one.agent for one in due}
        for gone in self._said.keys() - present:
            del self._said[gone]
        fresh = [one for one in due if self._is_news(one, now)]
        for one in fresh:
            before = self._said.get(one.agent)
            self._said[one.agent] = _Said(at=now, times=before.times + 1 if before else 1)
        return fresh

    def _is_news(self, one: Due, now: float) -> bool:
        said = self._said.get(one.agent)
        if said is None:
            return True
        return now - said.at >= min(self.first_seconds * 2.0 ** min(said.times - 1, 10), self.longest_seconds)
