"""McNemar's test: do two models that answered the same rows differ by more than chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence


def mid_p(gains: int, losses: int) -> float:
    """Two-sided mid-p value of the hypothesis that gains and losses are equally likely.

    ``gains``: rows that only the candidate answers right; ``losses``: rows that only the champion does. The exact
    binomial test counts the observed table whole and is too cautious; the mid-p test counts it half and keeps its level
    in practice. M. Fagerland, S. Lydersen, P. Laake, "The McNemar test for binary matched-pairs data: mid-p and
    asymptotic are better than exact conditional", BMC Medical Research Methodology 13:91 (2013).

    >>> round(mid_p(1, 8), 6), mid_p(0, 0)
    (0.021484, 1.0)
    """
    smaller = min(gains, losses)
    return min(1.0, 2.0 * _below(smaller, gains + losses) - _point(smaller, gains + losses))


def exact_p(gains: int, losses: int) -> float:
    """Two-sided exact p value: Q. McNemar, Psychometrika 12 (1947) 153-157, with the binomial distribution itself.

    >>> round(exact_p(1, 8), 6), exact_p(3, 3)
    (0.039062, 1.0)
    """
    return min(1.0, 2.0 * _below(min(gains, losses), gains + losses))


def worse_p(gains: int, losses: int) -> float:
    """One-sided mid-p value of so many losses if the candidate were as good as the champion.

    It never falls when one row of the candidate improves (one gain more, or one loss less).

    >>> round(worse_p(1, 8), 6), round(worse_p(8, 1), 6), worse_p(0, 0)
    (0.010742, 0.989258, 0.5)
    """
    return _below(gains, gains + losses) - 0.5 * _point(gains, gains + losses)


def holm(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Adjusted p values of one family of tests: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    Rejecting every adjusted value of at most 5 % makes a false alarm anywhere in the family in 5 % of cases at most,
    whatever the tests have to do with each other, and rejects at least what Bonferroni's rule does. ``weights`` (of any
    sum, all above 0) give some tests a larger share of that budget, as in section 3 of the same paper.

    >>> [round(value, 6) for value in holm([0.04, 0.01, 0.03])]
    [0.06, 0.03, 0.06]
    >>> [round(value, 6) for value in holm([0.04, 0.01, 0.03], [2.0, 1.0, 1.0])]
    [0.06, 0.04, 0.06]
    """
    shares = list(weights) if weights is not None else [1.0] * len(values)
    ratios = [value / share for value, share in zip(values, shares, strict=True)]
    adjusted, reached, left = [0.0] * len(values), 0.0, math.fsum(shares)
    for index in sorted(range(len(values)), key=ratios.__getitem__):
        reached = max(reached, min(1.0, left * ratios[index]))
        adjusted[index] = reached
        left -= shares[index]
    return adjusted


def _below(count: int, trials: int) -> float:
    """P(X <= count) of a fair coin."""
    return math.fsum(_point(value, trials) for value in range(count + 1))


def _point(count: int, trials: int) -> float:
    return math.exp(
        math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1) - trials * math.log(2.0)
    )
