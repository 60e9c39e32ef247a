"""Work beside answers: a share of the time, so that it never takes the processor from them for long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Allowance:
    """``share`` of the seconds that pass may be spent; what was not is saved up, to ``most`` seconds, which are there at the start.

    Used by one thread of the gateway. Spending more than is left is a debt that time pays back.

    >>> allowance = Allowance(share=0.05, most=0.5, at=100.0)
    >>> allowance.spend(0.6)
    >>> round(allowance.left(101.0), 3), round(allowance.left(110.0), 3), allowance.left(1000.0)
    (-0.05, 0.4, 0.5)
    """

    share: float
    most: float
    at: float

    def __post_init__(self) -> None:
        self._left = self.most

    def left(self, now: float) -> float:
        """Seconds that may be spent now."""
        self._left = min(self.most, self._left + self.share * max(0.0, now - self.at))
        self.at = now
        return self._left

    def spend(self, seconds: float) -> None:
        """Take what was used."""
        self._left -= seconds
