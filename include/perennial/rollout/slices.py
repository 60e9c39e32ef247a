"""Quality by label: a candidate that is as good on the whole and much worse on one label is a bad candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log
from typing import TypeAlias

from perennial.rollout.sequential import difference_evidence, variance_of_mean

MIN_SLICE = 10  # outcomes per arm; below, the normal approximation does not hold


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceStats:
    """Outcomes of the rows whose truth is one label; ``correct_sum`` adds 1 or 0 each."""

    outcomes: int
    correct_sum: float

    @property
    def measured(self) -> bool:
        """Whether these numbers can be, and are enough to compare."""
        return isfinite(self.correct_sum) and self.outcomes >= MIN_SLICE and 0 <= self.correct_sum <= self.outcomes


Slices: TypeAlias = Mapping[str, SliceStats]  # by "task: label"


def fallen_slice(champion: Slices, candidate: Slices, *, max_drop: float, alpha: float) -> str | None:
    """The label on which the candidate is surely worse than the champion, in words; None when there is none.

    Each label is tested with ``alpha`` divided by their number (Bonferroni), by evidence that stays valid however often one looks
    (``sequential.difference_evidence``), and its recall must have fallen by more than ``max_drop``.

    >>> before = {"topic: sports": SliceStats(outcomes=60, correct_sum=54), "topic: world": SliceStats(outcomes=60, correct_sum=50)}
    >>> after = {"topic: sports": SliceStats(outcomes=20, correct_sum=4), "topic: world": SliceStats(outcomes=25, correct_sum=21)}
    >>> fallen_slice(before, after, max_drop=0.1, alpha=0.001)
    'topic: sports right on 20.0% of 20 outcomes, the champion on 90.0% of 60'
    >>> fallen_slice(before, before, max_drop=0.1, alpha=0.001) is None
    True
    """
    worst: tuple[float, str] | None = None
    for name, was in champion.items():
        now = candidate.get(name)
        if now is None or not was.measured or not now.measured:
            continue
        before, after = was.correct_sum / was.outcomes, now.correct_sum / now.outcomes
        drop = before - after
        if drop <= max_drop:
            continue
        variance = variance_of_mean(was.correct_sum, was.outcomes) + variance_of_mean(now.correct_sum, now.outcomes)
        if difference_evidence(drop, variance, 4 * max_drop) < log(len(champion) / alpha):
            continue
        if worst is None or drop > worst[0]:
            counts = f"right on {after:.1%} of {now.outcomes} outcomes, the champion on {before:.1%} of {was.outcomes}"
            worst = (drop, f"{name} {counts}")
    return None if worst is None else worst[1]
