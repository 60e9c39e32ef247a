"""The circuit breaker: an agent whose candidates are refused again and again stops training by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How one candidate ended: ``refused`` by its gate or by production, or serving."""

    at: datetime
    refused: bool
    what: str  # such as "1.0.3 reverted" or "held"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """Trainings by threshold wait: since when, until when, and the refusals in a row."""

    since: datetime
    until: datetime
    refused: int

    @property
    def reason(self) -> str:
        """One line for people."""
        return (
            f"the circuit breaker is open: {self.refused} candidates in a row were refused; trainings by threshold pause until "
            f"{self.until:%Y-%m-%d %H:%M} UTC or `perennial rollout reset`"
        )


def pause(
    ended: Iterable[Ended], *, refused: int, window_seconds: float, now: datetime, reset: datetime | None = None
) -> Pause | None:
    """The pause that these ends call for; None without one. Runs in the due watcher and in ``claim``.

    Counts back from the newest end to the last candidate that serves, the last reset, or the window's edge. Modelled on Nygard,
    "Release It!" (2018), chapter 5: it closes again by itself, here after one window without another refusal.

    >>> from datetime import UTC
    >>> at = [datetime(2026, 11, 21, hour, tzinfo=UTC) for hour in range(12)]
    >>> held = [Ended(at=time, refused=True, what="held") for time in at[:3]]
    >>> pause(held, refused=3, window_seconds=86_400, now=at[4]).refused
    3
    >>> pause([*held, Ended(at=at[3], refused=False, what="1.0.1 serves")], refused=3, window_seconds=86_400, now=at[4]) is None
    True
    >>> pause(held, refused=3, window_seconds=86_400, now=at[4], reset=at[2]) is None
    True
    """
    if refused <= 0:
        return None
    edge = now - timedelta(seconds=window_seconds)
    row: list[Ended] = []
    for one in sorted(ended, key=lambda end: end.at, reverse=True):
        if not one.refused or one.at <= edge or (reset is not None and one.at <= reset):
            break
        row.append(one)
    if len(row) < refused:
        return None
    newest = row[0].at
    return Pause(since=newest, until=newest + timedelta(seconds=window_seconds), refused=len(row))
