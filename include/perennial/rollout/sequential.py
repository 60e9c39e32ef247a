"""Evidence that stays valid however often one looks, because a rollout is looked at every second.

A fixed-sample test at 5 % that is repeated at every look is wrong far more often than 5 %. Both tests here are
bounded by Ville's inequality instead: under the null hypothesis the evidence ever exceeds ``1 / alpha`` with
probability ``alpha`` at most.
"""

from __future__ import annotations

from functools import cache
from math import exp, inf, log, sqrt

_GRID = 12  # alternatives in the mixture: more sharpen the test a little and slow it down


def rate_evidence(hits: int, trials: int, limit: float) -> float:
    """Log evidence that a rate is above ``limit``, from ``hits`` in ``trials``; at least ``log(1 / alpha)`` rejects.

    A mixture of likelihood ratios over alternatives between the limit and 1. Each ratio is a supermartingale for every
    rate up to the limit, so their mean is one too: the e-process of Ramdas, Gruenwald, Vovk and Shafer,
    "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38(4), 2023.

    Three failures in a row against a limit of 2 % are decisive at alpha 0.001; one failure in 20 says little:

    >>> round(rate_evidence(3, 3, 0.02), 1), round(rate_evidence(1, 20, 0.02), 1)
    (9.7, -0.6)
    """
    if trials <= 0:
        return 0.0
    if limit <= 0:
        return inf if hits else 0.0
    if limit >= 1:
        return 0.0
    terms = [hits * log(rate / limit) + (trials - hits) * log((1 - rate) / (1 - limit)) for rate in _rates(limit)]
    top = max(terms)
    return top + log(sum(exp(term - top) for term in terms) / len(terms))


@cache
def _rates(limit: float) -> tuple[float, ...]:
    low = min(1.5 * limit, (1 + limit) / 2)
    high = max(0.99, (1 + low) / 2)
    return tuple(low * (high / low) ** (index / (_GRID - 1)) for index in range(_GRID))


def difference_evidence(difference: float, variance: float, spread: float) -> float:
    """Log evidence that the difference of two means is not 0; at least ``log(1 / alpha)`` rejects.

    The mixture sequential probability ratio test with a normal mixture of standard deviation ``spread``: Johari,
    Koomen, Pekelis and Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations Research
    70(3), 2022.
    Asymptotic in the number of outcomes; ``variance`` is that of the estimated difference.

    >>> round(difference_evidence(0.30, 0.05**2, 0.1), 1), round(difference_evidence(0.05, 0.05**2, 0.1), 1)
    (13.6, -0.4)
    """
    if variance <= 0 or spread <= 0:
        return 0.0
    share = variance / (variance + spread**2)
    return 0.5 * log(share) + difference**2 * (1 - share) / (2 * variance)


def difference_interval(difference: float, variance: float, spread: float, alpha: float) -> tuple[float, float]:
    """The differences that ``difference_evidence`` does not reject at ``alpha``: a confidence sequence.

    It holds the truth at all looks at once with probability 1 - alpha, so it may be read at any moment; that makes it wider than a
    95 % interval of one look. Source as ``difference_evidence``; the whole line when nothing is known.

    >>> [round(edge, 2) for edge in difference_interval(0.30, 0.05**2, 0.1, 0.001)]
    [0.08, 0.52]
    """
    if variance <= 0 or spread <= 0:
        return -inf, inf
    total = variance + spread**2
    half = sqrt(2 * variance * total / spread**2 * (log(1 / alpha) + 0.5 * log(total / variance)))
    return difference - half, difference + half


def variance_of_mean(total: float, count: int) -> float:
    """Variance of the mean of ``count`` values in [0, 1] that sum to ``total``, as if two more outcomes were one half
    each.

    Agresti and Coull, "Approximate is better than exact", The American Statistician 52(2), 1998: without the two,
    five right answers of five would have no variance at all, and any later difference would look certain.

    >>> round(variance_of_mean(5.0, 5), 3), round(variance_of_mean(850.0, 1000), 6)
    (0.017, 0.000128)
    """
    mean = (total + 1) / (count + 2)
    return mean * (1 - mean) / (count + 2)


def wilson(hits: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a rate, for reports (Journal of the American Statistical Association 22, 1927).

    >>> [round(edge, 3) for edge in wilson(1, 20)]
    [0.009, 0.236]
    """
    if trials <= 0:
        return 0.0, 1.0
    rate, square = hits / trials, z * z
    centre = (rate + square / (2 * trials)) / (1 + square / trials)
    half = z * sqrt(rate * (1 - rate) / trials + square / (4 * trials**2)) / (1 + square / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
