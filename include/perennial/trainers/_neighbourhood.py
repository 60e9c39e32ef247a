"""Corrections act where they were made: each has a bump of its own around its embedding, and texts that do not resemble it
never feel it.

A linear head that must answer fifty hard texts right has to turn as a whole, and other texts turn with it. Here a head is
the linear map plus radial basis functions with bounded support, one for each correction (Broomhead and Lowe, Multivariable
functional interpolation and adaptive networks, 1988; the same idea edits language models in Hartvigsen et al., Aging with
GRACE, 2023). Both parts are fitted together, as one convex problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perennial.trainers._head import Floats, Objective

_RARE = 0.999  # so many pairs of unrelated texts resemble each other less than ``far``
_MOST_ALIKE = 0.95  # unrelated texts of an encoder are never taken to be more alike than this
_USUAL = 0.5  # for too few pairs to tell
_SAME = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbourhood:
    """``keys`` [corrections, dimension] of length 1 and ``values`` [corrections, outputs], which are added to the scores.

    A value counts in full for texts whose cosine with its key is ``near`` or more, and not at all up to ``far``.
    """

    keys: Floats
    values: Floats
    far: float = 0.55
    near: float = 0.65

    @classmethod
    def empty(cls, dimension: int, outputs: int) -> Neighbourhood:
        """Without any correction."""
        return cls(keys=np.zeros((0, dimension)), values=np.zeros((0, outputs)))

    def features(self, x: Floats) -> Floats:
        """How much each row feels each key: [rows, corrections], between 0 and 1. ``x`` ends in a column of ones.

        >>> one = Neighbourhood(keys=np.array([[1.0, 0.0]]), values=np.array([[2.0]]), far=0.5, near=0.9)
        >>> one.features(np.array([[1.0, 0.0, 1.0], [0.7, 0.7, 1.0], [0.0, 1.0, 1.0]])).round(2).tolist()
        [[1.0], [0.5], [0.0]]
        """
        return np.clip((x[:, :-1] @ self.keys.T - self.far) / (self.near - self.far), 0.0, 1.0)

    def scores(self, x: Floats) -> Floats:
        """What the corrections add to the scores of each row: [rows, outputs]."""
        return self.features(x) @ self.values

    def widened(self, x: Floats, outputs: int, reach: tuple[float, float], most: int = 2000) -> Neighbourhood:
        """The same with a key for each row of ``x`` that has none yet, at value 0, and room for new outputs.

        Of more than ``most`` keys the oldest go.
        """
        values = np.hstack([self.values, np.zeros((len(self.values), outputs - self.values.shape[1]))])
        keys = list(self.keys)
        for vector in x[:, :-1]:
            if not keys or float((np.array(keys) @ vector).max()) < _SAME:
                keys.append(vector)
        stacked = np.array(keys).reshape(len(keys), x.shape[1] - 1)
        values = np.vstack([values, np.zeros((len(keys) - len(values), outputs))])
        return Neighbourhood(keys=stacked[-most:], values=values[-most:], far=reach[0], near=reach[1])


def reach_of(x: Floats) -> tuple[float, float]:
    """``far`` and ``near`` for an encoder, from rows of the task: far is above what unrelated texts have in common.

    >>> reach_of(np.eye(3))
    (0.55, 0.65)
    """
    count = len(x)
    usual = _USUAL
    if count >= 30:
        pairs = (x[:, :-1] @ x[:, :-1].T)[np.triu_indices(count, k=1)]
        usual = min(_MOST_ALIKE, max(_USUAL, float(np.quantile(pairs, _RARE))))
    return round(1.0 - 0.9 * (1.0 - usual), 6), round(1.0 - 0.7 * (1.0 - usual), 6)


def joined(objective: Objective, local: Neighbourhood, ridge: float) -> Objective:
    """The problem with the values of the corrections as further parameters, drawn towards what they were by ``ridge``."""
    shape = local.values.shape
    return Objective(
        x=np.hstack([objective.x, local.features(objective.x)]), targets=objective.targets,
        anchor=np.vstack([objective.anchor, local.values]), ewc=np.vstack([objective.ewc, np.zeros(shape)]),
        precision=np.vstack([objective.precision, np.full(shape, ridge)]),
    )  # fmt: skip
