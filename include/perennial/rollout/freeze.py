"""Freeze windows: spans of UTC time during which nothing is promoted or given more traffic. Rollbacks always may."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKLY = re.compile(r"^([A-Za-z]{3}) (\d\d):(\d\d)$")
_WEEK = 7 * 24 * 60  # minutes
_FORM = 'write "Fri 16:00/Mon 08:00" (every week) or "2026-12-24T12:00/2026-12-27" (once), in UTC'


@dataclass(frozen=True, kw_only=True, slots=True)
class Freeze:
    """One window: every week from one minute of it to another (counted from Monday 00:00), or once between two times."""

    text: str
    week: tuple[int, int] | None = None
    span: tuple[datetime, datetime] | None = None

    @classmethod
    def parse(cls, text: str) -> Freeze:
        """Read ``from/until``. ValueError says what is wrong.

        >>> Freeze.parse("Fri 16:00/Mon 08:00").week
        (6720, 480)
        """
        first, slash, last = (part.strip() for part in text.partition("/"))
        if not slash:
            raise ValueError(f"freeze window {text!r} has no end; {_FORM}")
        week = _minute(first), _minute(last)
        if week[0] is not None and week[1] is not None:
            if week[0] == week[1]:
                raise ValueError(f"freeze window {text!r} ends as it begins; {_FORM}")
            return cls(text=text.strip(), week=(week[0], week[1]))
        try:
            span = _time(first), _time(last)
        except ValueError as error:
            raise ValueError(f"freeze window {text!r} cannot be read; {_FORM}") from error
        if span[0] >= span[1]:
            raise ValueError(f"freeze window {text!r} ends before it begins; {_FORM}")
        return cls(text=text.strip(), span=span)

    def until(self, now: datetime) -> datetime | None:
        """When the window that holds ``now`` ends; None when ``now`` is in none.

        >>> friday_evening = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)
        >>> str(Freeze.parse("Fri 16:00/Mon 08:00").until(friday_evening))
        '2026-11-23 08:00:00+00:00'
        >>> Freeze.parse("2026-12-24/2026-12-27").until(friday_evening) is None
        True
        """
        moment = now.astimezone(UTC)
        if self.span is not None:
            return self.span[1] if self.span[0] <= moment < self.span[1] else None
        if self.week is None:
            return None
        begin, end = self.week
        minute = moment.weekday() * 1440 + moment.hour * 60 + moment.minute
        if (minute - begin) % _WEEK >= (end - begin) % _WEEK:
            return None
        start_of_minute = moment.replace(second=0, microsecond=0)
        return start_of_minute + timedelta(minutes=(end - minute) % _WEEK)

    def ended(self, now: datetime) -> timedelta | None:
        """How long ago the window ended, zero inside it; None before its only time.

        >>> monday = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
        >>> str(Freeze.parse("Fri 16:00/Mon 08:00").ended(monday))
        '1:30:00'
        """
        if self.until(now) is not None:
            return timedelta(0)
        if self.span is not None:
            return now - self.span[1] if self.span[1] <= now else None
        if self.week is None:
            return None
        moment = now.astimezone(UTC)
        since_monday = timedelta(days=moment.weekday(), hours=moment.hour, minutes=moment.minute, seconds=moment.second)
        return (since_monday - timedelta(minutes=self.week[1])) % timedelta(minutes=_WEEK)


def frozen_lately(windows: Iterable[str], now: datetime, seconds: float) -> bool:
    """Whether a window holds now or ended within so many seconds.

    >>> saturday = datetime(2026, 11, 21, 8, 1, tzinfo=UTC)
    >>> frozen_lately(["Fri 16:00/Sat 08:00"], saturday, 600.0), frozen_lately(["Fri 16:00/Sat 08:00"], saturday, 60.0)
    (True, False)
    """
    ago = (Freeze.parse(window).ended(now) for window in windows)
    return any(one is not None and one < max(timedelta(seconds=seconds), timedelta.resolution) for one in ago)


def frozen(windows: Iterable[str], now: datetime) -> str | None:
    """Why nothing may be promoted now, in words; None when it may.

    >>> frozen(["Sat 00:00/Mon 06:00"], datetime(2026, 11, 21, 19, 0, tzinfo=UTC))
    'frozen until 2026-11-23 06:00 UTC (Sat 00:00/Mon 06:00)'
    """
    found = [(end, window) for window in map(Freeze.parse, windows) if (end := window.until(now)) is not None]
    if not found:
        return None
    end, window = max(found, key=lambda pair: pair[0])
    return f"frozen until {end:%Y-%m-%d %H:%M} UTC ({window.text})"


def windows_of(agent: Iterable[str], deployment: str) -> tuple[str, ...]:
    """The windows of an agent and of its deployment (a list separated by commas).

    >>> windows_of(("Fri 16:00/Mon 08:00",), " 2026-12-24/2026-12-27, ")
    ('Fri 16:00/Mon 08:00', '2026-12-24/2026-12-27')
    """
    return (*agent, *(part.strip() for part in deployment.split(",") if part.strip()))


def _minute(text: str) -> int | None:
    found = _WEEKLY.match(text)
    if found is None:
        return None
    day, hour, minute = found[1].lower(), int(found[2]), int(found[3])
    if day not in _DAYS or hour > 23 or minute > 59:
        return None
    return _DAYS.index(day) * 1440 + hour * 60 + minute


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
