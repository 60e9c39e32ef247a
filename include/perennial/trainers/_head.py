"""The arithmetic of a head on fixed embeddings: a linear map, softmax or sigmoid, L-BFGS, Elastic Weight
Consolidation.

numpy in double precision, no randomness: equal input gives equal bytes on one machine. A head's parameters are one
matrix ``theta`` [dimension + 1, outputs] whose last row is the bias; inputs ``x`` [rows, dimension + 1] end in a
column of ones.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[None]:
    """Keeps numpy to one thread: these matrices are small, and waiting BLAS threads spin on cores that others need.

    Holds for the whole process while it is open. The result then does not depend on the number of cores either.
    """
    return cast("AbstractContextManager[None]", _pools().limit(limits=1, user_api="blas"))


def with_ones(vectors: npt.NDArray[np.float32]) -> Floats:
    """Embeddings in double precision with the bias column behind: [rows, dimension + 1]."""
    return np.hstack([vectors.astype(np.float64), np.ones((len(vectors), 1))])


def squash(scores: Floats) -> Floats:
    """Probabilities of each row: softmax over several outputs, the logistic function of a single one.

    >>> squash(np.array([[0.0, np.log(3.0)]])).round(2).tolist(), squash(np.array([[0.0]])).tolist()
    ([[0.25, 0.75]], [[0.5]])
    """
    if scores.shape[1] == 1:
        return 0.5 * (1.0 + np.tanh(0.5 * scores))  # never overflows
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def fisher_diagonal(theta: Floats, x: Floats) -> Floats:
    """Diagonal of the Fisher information of a head, mean over rows: [dimension + 1, outputs].

    The expectation over the model's own answers is exact here, no sampling: E[g^2] = p (1 - p) x^2 for softmax and
    sigmoid alike.

    >>> fisher_diagonal(np.zeros((2, 2)), np.array([[2.0, 1.0]])).tolist()
    [[1.0, 1.0], [0.25, 0.25]]
    """
    p = squash(x @ theta)
    return np.asarray((x**2).T @ (p * (1.0 - p)) / max(1, len(x)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """``sum_i w_i CE(target_i, p_i) + 1/2 sum precision (theta - anchor)^2``; convex, with its gradient in closed
    form.

    ``targets`` are probabilities [rows, outputs]. ``precision`` holds all quadratic pulls (ridge, EWC); ``ewc`` its
    EWC part, for the log.
    """

    x: Floats
    targets: Floats
    anchor: Floats
    precision: Floats
    ewc: Floats

    def __call__(self, theta: Floats, weights: Floats) -> tuple[float, Floats]:
        """Value and gradient at ``theta`` for these row weights."""
        p = squash(self.x @ theta)
        away = theta - self.anchor
        value = float((weights * self.losses(p)).sum() + 0.5 * (self.precision * away * away).sum())
        return value, self.x.T @ (weights[:, None] * (p - self.targets)) + self.precision * away

    def losses(self, p: Floats) -> Floats:
        """Cross-entropy of each row."""
        tiny = 1e-12
        if p.shape[1] == 1:
            q, t = p[:, 0], self.targets[:, 0]
            return -(t * np.log(q + tiny) + (1.0 - t) * np.log(1.0 - q + tiny))
        return np.asarray(-(self.targets * np.log(p + tiny)).sum(axis=1))

    def ewc_penalty(self, theta: Floats) -> float:
        """The EWC term alone: ``1/2 sum ewc (theta - anchor)^2``."""
        away = theta - self.anchor
        return float(0.5 * (self.ewc * away * away).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """Where a minimisation went: the end, and objective and EWC penalty after each step."""

    theta: Floats
    losses: tuple[float, ...]
    penalties: tuple[float, ...]


def minimise(objective: Objective, weights: Floats, start: Floats, steps: int = 60, memory: int = 10) -> Descent:
    """L-BFGS with backtracking from ``start``; ends after ``steps`` or when the gradient is below 1e-5 of the total
    weight.

    Nocedal and Wright, Numerical Optimization (2006), algorithm 7.5, with the Armijo condition.
    """
    theta, tolerance = start.copy(), 1e-5 * float(weights.sum())
    value, gradient = objective(theta, weights)
    pairs: list[tuple[Floats, Floats]] = []
    losses, penalties = [value], [objective.ewc_penalty(theta)]
    for _ in range(steps):
        if np.abs(gradient).max() < tolerance:
            break
        direction = _direction(gradient, pairs)
        moved, value_there, new_gradient = _walk(
            objective, weights, theta, direction, (value, float((gradient * direction).sum()))
        )
        if value_there >= value:
            break
        value = value_there
        change = (moved - theta, new_gradient - gradient)
        if float((change[0] * change[1]).sum()) > 1e-12:
            pairs = [*pairs[-(memory - 1) :], change]
        theta, gradient = moved, new_gradient
        losses.append(value)
        penalties.append(objective.ewc_penalty(theta))
    return Descent(theta=theta, losses=tuple(losses), penalties=tuple(penalties))


def _direction(gradient: Floats, pairs: list[tuple[Floats, Floats]]) -> Floats:
    """The two-loop recursion: an approximate Newton step downhill; the first step has length 1."""
    if not pairs:
        return -gradient / max(1e-12, float(np.linalg.norm(gradient)))
    step, shares = gradient.copy(), []
    for moved, turned in reversed(pairs):
        share = float((moved * step).sum() / (turned * moved).sum())
        shares.append(share)
        step -= share * turned
    moved, turned = pairs[-1]
    step *= float((moved * turned).sum() / (turned * turned).sum())
    for (moved, turned), share in zip(pairs, reversed(shares), strict=True):
        step += (share - float((turned * step).sum() / (turned * moved).sum())) * moved
    return -step


def _walk(
    objective: Objective, weights: Floats, theta: Floats, direction: Floats, here: tuple[float, float]
) -> tuple[Floats, float, Floats]:
    """Go 1, 1/2, 1/4 ... of the way until the value falls enough; ``here`` is value and slope at ``theta``."""
    value, slope = here
    size = 1.0
    for _ in range(25):
        moved = theta + size * direction
        found, gradient = objective(moved, weights)
        if found <= value + 1e-4 * size * slope:
            return moved, found, gradient
        size *= 0.5
    return theta, value, np.zeros_like(theta)


@dataclass(frozen=True, kw_only=True, eq=False)
class Insistence:
    """Rows that must be answered right, and what that may cost.

    ``must`` and ``watch`` are flags over the objective's rows: the weight of a ``must`` row doubles until ``right``
    holds for it; raising stops after ``rounds``, or as soon as the ``watch`` rows lose more than ``budget`` (a share
    of them; one row always). ``right`` maps probabilities to flags; ``loss_of`` maps them to a number per watched row
    (1 for a wrong answer, |error| for a score).
    """

    must: Flags
    watch: Flags
    right: Callable[[Floats], Flags]
    loss_of: Callable[[Floats], Floats]
    rounds: int
    budget: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Insisted:
    """What insisting led to: the last descent within the budget, rounds, the heaviest weight, and whether the budget
    ended it.
    """

    descent: Descent
    rounds: int
    heaviest: float
    budget_spent: bool


def insist(objective: Objective, start: Floats, rules: Insistence, weights: Floats) -> Insisted:
    """Minimise with these row ``weights``, and repeat with doubled ones for the ``must`` rows that are not right yet.

    The first round is taken as it is (the gates judge it); a later round that costs more than the budget is taken back.
    """
    before = rules.loss_of(squash(objective.x @ start))[rules.watch]
    allowed = max(1.0, rules.budget * len(before))
    best = minimise(objective, weights, start)
    rounds, spent = 1, False
    while rounds < rules.rounds:
        late = rules.must & ~rules.right(squash(objective.x @ best.theta))
        if not late.any():
            break
        heavier = np.where(late, 2.0 * weights, weights)
        descent = minimise(objective, heavier, best.theta)
        after = rules.loss_of(squash(objective.x @ descent.theta))[rules.watch]
        if float((after - before).sum()) > allowed:
            spent = True
            break
        weights, best, rounds = heavier, descent, rounds + 1
    return Insisted(descent=best, rounds=rounds, heaviest=float(weights.max(initial=1.0)), budget_spent=spent)


def grow(theta: Floats, fisher: Floats, x: Floats, counts: npt.NDArray[np.int64], seen: int) -> tuple[Floats, Floats]:
    """Columns for new labels behind the old ones, whose numbers stay as they are.

    A new column starts with zero weights and the bias at which, on the rows ``x``, its label has its share of the data:
    ``counts`` rows among ``seen``. Its Fisher is 0: nothing about it is worth keeping yet.

    >>> theta, fisher = grow(np.zeros((2, 1)), np.ones((2, 1)), np.ones((4, 2)), np.array([10]), 90)
    >>> theta.round(3).tolist(), fisher.tolist()
    ([[0.0, 0.0], [0.0, -2.197]], [[1.0, 0.0], [1.0, 0.0]])
    """
    scores = x @ theta
    level = float(np.log(np.exp(scores - scores.max()).sum(axis=1)).mean() + scores.max()) if len(x) else 0.0
    added = np.zeros((len(theta), len(counts)))
    added[-1] = level + np.log(np.maximum(1, counts) / max(1, seen))
    return np.hstack([theta, added]), np.hstack([fisher, np.zeros_like(added)])


def best_temperature(scores: Floats, targets: Floats) -> float:
    """The divisor of the scores, between 0.25 and 4, with the smallest log loss; from scores of rows that the head
    has not seen.

    Guo et al., On Calibration of Modern Neural Networks (2017). The grid is in steps of 5 %.
    """
    grid = np.exp(np.arange(np.log(0.25), np.log(4.0) + 1e-9, 0.05))
    losses = [-(targets * np.log(squash(scores / t) + 1e-12)).sum() for t in grid]
    return float(grid[int(np.argmin(losses))])
