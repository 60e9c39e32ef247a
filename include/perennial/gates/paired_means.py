"""Is the mean of paired differences below zero by more than chance? For scores, beside ``mcnemar`` for right and wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_SEED = 19350101  # any number; fixed, so that the same table always gives the same verdict
_DRAWS = 2_000_000  # numbers drawn for one test, shared out over its resamples
_FEWEST, _MOST = 2_000, 20_000  # resamples
_UNSEEN = 20  # rows; with so many the largest gain may have been twice the largest seen
_TIE = 1e-9  # sums this close to zero are zero


def worse_mean_p(champion: Sequence[float], candidate: Sequence[float]) -> float:
    """One-sided p value of so much worse a mean score if the candidate were as good as the champion; both answered the same rows.

    The larger of two p values, since each has a case that the other does not see:

    - *Were the models alike*, each row's two scores could as well be exchanged. The sign-flip test asks how many of such
      exchanges give as low a mean, and is exact for any number of rows (R. A. Fisher, The Design of Experiments, 1935).
    - *Were they equally good on average only*, the candidate may lose a little on most rows and gain much on few, of which a
      small slice shows none. So the rows are weighed at random, together with one row more that gained 1 + 20 / rows times
      the largest gain seen: D. Rubin, "The Bayesian bootstrap", Annals of Statistics 9 (1981) 130-134, with the further row of
      N. Gaffke, Mathematical Methods of Statistics 14 (2005) 451-467, who takes the largest gain possible. The factor is
      ours; tests/unit/gates/test_paired_means.py holds the level that it keeps.

    Both shares are counted over seeded resamples, (1 + count) / (1 + resamples) as in B. Phipson, G. Smyth, Statistical
    Applications in Genetics and Molecular Biology 9:39 (2010), and where few resamples reach that far Chernoff's bound on the
    same share takes over (H. Chernoff, Annals of Mathematical Statistics 23 (1952) 493-507). So there is no smallest value
    that a family of many tests could never reject. It never falls when a row of the candidate improves.

    >>> worse_mean_p([0.5] * 40, [0.5] * 40), worse_mean_p([0.6] * 40, [0.5] * 40) < 1e-9
    (1.0, True)
    >>> 0.1 < worse_mean_p([0.6, 0.5] * 20, [0.5, 0.58] * 20) < 0.4
    True
    """
    import numpy as np

    found: Floats = np.asarray(candidate, dtype=np.float64) - np.asarray(champion, dtype=np.float64)
    if found.sum() >= -_TIE:
        return 1.0
    return max(_flipped(found), _weighed(found))


def _flipped(found: Floats) -> float:
    """How likely the rows whose two scores are exchanged by a fair coin sum to a gain: then the exchange is no better."""
    import numpy as np

    draw = np.random.Generator(np.random.PCG64(_SEED))
    counted = _counted((draw.random((_resamples(found), len(found))) < 0.5) @ found)
    steps = np.outer(_grid(), found) / 2
    # the logarithm of the mean of exp(2 * step) and 1, without overflow
    bound = (steps + np.abs(steps) + np.log1p(np.exp(-2 * np.abs(steps))) - math.log(2.0)).sum(axis=1).min()
    return min(counted, math.exp(min(float(bound), 0.0)))


def _weighed(found: Floats) -> float:
    """How likely the rows and the one unseen, each with an exponential weight, sum to a gain."""
    import numpy as np

    unseen = max(float(found.max()), 0.0) * (1.0 + _UNSEEN / len(found))
    rows = np.append(found, unseen)
    draw = np.random.Generator(np.random.PCG64(_SEED))
    counted = _counted(draw.standard_exponential((_resamples(found), len(rows))) @ rows)
    steps = _grid()
    steps = steps[steps * rows.max() < 1.0]  # beyond, the bound is infinite
    bound = -float(np.log1p(-np.outer(steps, rows)).sum(axis=1).max(initial=0.0))
    return min(counted, math.exp(bound))


def _resamples(found: Floats) -> int:
    return min(_MOST, max(_FEWEST, _DRAWS // len(found)))


def _counted(sums: Floats) -> float:
    return (1 + int((sums >= -_TIE).sum())) / (len(sums) + 1)


def _grid() -> Floats:
    """Where the bounds are tried; fixed, so that each of them rises with every row."""
    import numpy as np

    return np.geomspace(1e-2, 1e6, 161)
