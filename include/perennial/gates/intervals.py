"""Confidence intervals for the difference of two models that answered the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from perennial.domain.words import TaskKind

RESAMPLES = 2000
_SEED = 19580611  # any number; fixed, so that the same table always gives the same verdict
_CHUNK = 2_000_000  # resampled values held in memory at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Candidate minus champion, with the ends of its confidence interval; all in [-1, 1]."""

    difference: float
    low: float
    high: float
    confidence: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, rounded to 6 places."""
        return {
            "difference": round(self.difference, 6), "low": round(self.low, 6), "high": round(self.high, 6),
            "confidence": round(self.confidence, 6), "method": self.method,
        }  # fmt: skip


def paired_interval(
    kind: TaskKind, champion: Sequence[float], candidate: Sequence[float], *, confidence: float = 0.95
) -> Interval:
    """The paired interval that fits the kind of task: Tango's score interval for labels, a bootstrap for numbers.

    Both ends rise or stay when any single row of the candidate improves, so a better model never fares worse at a gate.

    >>> found = paired_interval(TaskKind.CLASSIFICATION, [0.0] * 12 + [1.0] * 38, [1.0] * 12 + [0.0] * 2 + [1.0] * 36)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0611, 0.3447)
    """
    if len(champion) != len(candidate) or not champion:
        raise ValueError("a paired interval needs the same rows, at least one, of both models")
    if kind is TaskKind.CLASSIFICATION:
        gains = sum(new > old for old, new in zip(champion, candidate, strict=True))
        losses = sum(new < old for old, new in zip(champion, candidate, strict=True))
        return tango(gains, losses, len(champion), confidence=confidence)
    return bootstrap(champion, candidate, confidence=confidence)


def tango(gains: int, losses: int, rows: int, *, confidence: float = 0.95) -> Interval:
    """Score interval for the difference of two paired proportions.

    ``gains``: rows that only the candidate answers right; ``losses``: rows that only the champion does. Inverts the
    score test with the constrained maximum likelihood estimate of the losses, so unlike the plain (Wald) interval it
    has width also when the models never disagree. T. Tango, "Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design", Statistics in Medicine 17 (1998) 891-908.

    >>> found = tango(0, 0, 100)
    >>> round(found.low, 3), round(found.high, 3)
    (-0.037, 0.037)
    """
    limit = NormalDist().inv_cdf(0.5 + confidence / 2)
    difference = (gains - losses) / rows

    def statistic(shift: float) -> float:
        return _tango_statistic(gains, losses, rows, shift)

    low = _root(statistic, -1.0, difference, limit) if difference > -1 else -1.0
    high = _root(statistic, difference, 1.0, -limit) if difference < 1 else 1.0
    return Interval(difference=difference, low=low, high=high, confidence=confidence, method="tango")


def _tango_statistic(gains: int, losses: int, rows: int, shift: float) -> float:
    a = 2 * rows
    b = (2 * rows - gains + losses) * shift - gains - losses
    c = -losses * shift * (1 - shift)
    # share of losses, if `shift` were the true difference
    lost = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = rows * (2 * lost + shift * (1 - shift))
    distance = gains - losses - rows * shift
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _root(statistic: Callable[[float], float], low: float, high: float, target: float) -> float:
    for _ in range(50):  # the statistic falls with the shift; 50 halvings reach 1e-15
        middle = (low + high) / 2
        if statistic(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def bootstrap(champion: Sequence[float], candidate: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean paired difference, from a fixed seed.

    The resampled rows depend on their number alone, so a better row raises (or leaves) every resampled mean and with
    it both ends. B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979) 1-26.

    >>> found = bootstrap([0.5] * 40, [0.6] * 40)
    >>> round(found.low, 6), round(found.high, 6)
    (0.1, 0.1)
    """
    import numpy as np

    means = _resampled(champion, candidate)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    difference = (math.fsum(candidate) - math.fsum(champion)) / len(champion)
    return Interval(difference=difference, low=float(low), high=float(high), confidence=confidence, method="bootstrap")


def bootstrap_counts(gains: int, losses: int, rows: int, *, confidence: float = 0.95) -> Interval:
    """The same bootstrap for rows that are right or wrong.

    Redrawing rows redraws the numbers of gains and losses from a multinomial distribution, which is drawn here directly.

    >>> found = bootstrap_counts(12, 2, 50)
    >>> round(found.difference, 2), 0.03 < found.low < 0.09 < 0.3 < found.high < 0.36
    (0.2, True)
    """
    import numpy as np

    draw = np.random.Generator(np.random.PCG64(_SEED))
    drawn = draw.multinomial(rows, [gains / rows, losses / rows, (rows - gains - losses) / rows], size=RESAMPLES)
    means = (drawn[:, 0] - drawn[:, 1]) / rows
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    difference = (gains - losses) / rows
    return Interval(difference=difference, low=float(low), high=float(high), confidence=confidence, method="bootstrap")


def _resampled(champion: Sequence[float], candidate: Sequence[float]) -> Any:
    import numpy as np

    values = np.asarray(candidate, dtype=np.float64) - np.asarray(champion, dtype=np.float64)
    draw = np.random.Generator(np.random.PCG64(_SEED))
    means: list[Any] = []
    per_chunk = max(1, _CHUNK // len(values))
    for start in range(0, RESAMPLES, per_chunk):
        rows = draw.integers(0, len(values), size=(min(per_chunk, RESAMPLES - start), len(values)))
        means.append(values[rows].mean(axis=1))
    return np.concatenate(means)
