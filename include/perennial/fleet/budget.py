"""How many seconds of training an agent may spend, and when it has spent them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Seconds of training within the last 24 hours and the last 7 days."""

    day: float
    week: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Seconds of training (of the GPU, where there is one) within the last 24 hours and the last 7 days; None: no limit.

    When one is spent, trainings by threshold, drift and schedule wait. Corrections of priority 2 and 3 go on until
    ``urgent_times`` the limit is spent; what a person asks for always runs. Counted is what finished trainings took, so the
    training that crosses the limit ends.
    """

    day_seconds: float | None = None  # within the last 24 hours
    week_seconds: float | None = None  # within the last 7 days
    urgent_times: float = 2.0  # this many times the limit for corrections of priority 2 and 3

    def __post_init__(self) -> None:
        for name in ("day_seconds", "week_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"budget: {name} must be above 0; leave it out for no limit")
        if self.urgent_times < 1:
            raise ValueError("budget: urgent_times must be at least 1: corrections are what a budget stops last")

    @property
    def limited(self) -> bool:
        """Whether anything is limited."""
        return self.day_seconds is not None or self.week_seconds is not None


NO_LIMIT = Budget()


def overspent(budget: Budget, spent: Spent, *, urgent: bool = False) -> str | None:
    """One line that says which limit is spent, or None. Pure; runs in the due watcher, in ``claim`` and for alerts.

    >>> budget = Budget(day_seconds=600.0)
    >>> overspent(budget, Spent(day=612.0, week=612.0))
    'the training budget is spent: 612 of 600 seconds within the last 24 hours'
    >>> overspent(budget, Spent(day=612.0, week=612.0), urgent=True) is None
    True
    >>> overspent(budget, Spent(day=1300.0, week=1300.0), urgent=True)
    'the training budget is spent, for corrections too: 1300 of 1200 seconds within the last 24 hours'
    """
    times = budget.urgent_times if urgent else 1.0
    for limit, used, window in (
        (budget.day_seconds, spent.day, "24 hours"), (budget.week_seconds, spent.week, "7 days"),
    ):  # fmt: skip
        if limit is not None and used >= limit * times:
            whom = ", for corrections too" if urgent else ""
            return f"the training budget is spent{whom}: {used:.0f} of {limit * times:.0f} seconds within the last {window}"
    return None
