"""The arithmetic of the head: gradients, optimum, Fisher, insistence."""

from __future__ import annotations

import numpy as np
import pytest

from perennial.trainers._head import (
    Insistence,
    Objective,
    best_temperature,
    fisher_diagonal,
    grow,
    insist,
    minimise,
    squash,
    with_ones,
)  # fmt: skip


def problem(outputs: int, rows: int = 60, seed: int = 0) -> Objective:
    draw = np.random.default_rng(seed)
    x = with_ones(draw.normal(size=(rows, 7)).astype(np.float32))
    truth = draw.normal(size=(8, outputs)) * 2
    p = squash(x @ truth)
    targets = (draw.random((rows, 1)) < p).astype(float) if outputs == 1 else np.eye(outputs)[p.argmax(axis=1)]
    fisher = draw.random((8, outputs))
    anchor = draw.normal(size=(8, outputs)) * 0.1
    return Objective(x=x, targets=targets, anchor=anchor, precision=fisher + 0.5, ewc=fisher)


@pytest.mark.req("J43")
@pytest.mark.parametrize("outputs", [1, 4])
def test_closed_form_gradient_is_the_slope_of_the_value(outputs: int) -> None:
    objective = problem(outputs)
    draw = np.random.default_rng(1)
    theta, weights = draw.normal(size=(8, outputs)), draw.random(60) + 0.5
    _, gradient = objective(theta, weights)
    for _ in range(10):
        where = draw.normal(size=theta.shape)
        step = 1e-5
        slope = (objective(theta + step * where, weights)[0] - objective(theta - step * where, weights)[0]) / (2 * step)
        assert float((gradient * where).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_minimum_is_the_minimum(outputs: int) -> None:
    objective = problem(outputs)
    weights = np.ones(60)
    found = minimise(objective, weights, np.zeros((8, outputs)), steps=200)
    assert found.losses[-1] < found.losses[0]
    assert list(found.losses) == sorted(found.losses, reverse=True)
    assert np.abs(objective(found.theta, weights)[1]).max() < 1e-2
    for seed in range(5):
        elsewhere = found.theta + 0.05 * np.random.default_rng(seed).normal(size=found.theta.shape)
        assert objective(elsewhere, weights)[0] > found.losses[-1]
    assert found.penalties[-1] == pytest.approx(
        float(0.5 * (objective.ewc * (found.theta - objective.anchor) ** 2).sum())
    )


def test_the_same_optimum_as_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    objective = problem(3, rows=200)
    ridge = np.full((8, 3), 2.0)
    ridge[-1] = 0.0
    plain = Objective(
        x=objective.x, targets=objective.targets, anchor=np.zeros((8, 3)), precision=ridge, ewc=np.zeros((8, 3))
    )
    mine = squash(plain.x @ minimise(plain, np.ones(200), np.zeros((8, 3)), steps=300).theta)
    theirs = LogisticRegression(C=0.5, max_iter=5000, tol=1e-8).fit(plain.x[:, :-1], plain.targets.argmax(axis=1))
    assert np.abs(mine - theirs.predict_proba(plain.x[:, :-1])).max() < 2e-3


@pytest.mark.req("J42")
@pytest.mark.parametrize("outputs", [1, 3])
def test_fisher_is_the_mean_squared_gradient_under_the_models_own_answers(outputs: int) -> None:
    draw = np.random.default_rng(3)
    theta = draw.normal(size=(8, outputs))
    x = problem(outputs, rows=5).x
    p = squash(x @ theta)
    total = np.zeros_like(theta)
    for row in range(5):
        if outputs == 1:
            answers = [(p[row, 0], np.array([1.0])), (1 - p[row, 0], np.array([0.0]))]
        else:
            answers = [(p[row, k], np.eye(outputs)[k]) for k in range(outputs)]
        for chance, answer in answers:
            total += chance * np.outer(x[row], p[row] - answer) ** 2
    assert fisher_diagonal(theta, x) == pytest.approx(total / 5)
    assert (fisher_diagonal(theta, x) > 0).all()


def rules(objective: Objective, must: np.ndarray, watch: np.ndarray, budget: float, rounds: int = 14) -> Insistence:
    hard = objective.targets.argmax(axis=1)
    return Insistence(
        must=must, watch=watch, right=lambda p: p.argmax(axis=1) == hard, loss_of=lambda p: (p.argmax(axis=1) != hard).astype(float),
        rounds=rounds, budget=budget,
    )  # fmt: skip


def contradiction() -> tuple[Objective, np.ndarray, np.ndarray]:
    """Forty watched rows of one class at one place, and one row there that must be of the other class."""
    x = np.hstack([np.ones((41, 1)) + 0.01 * np.arange(41)[:, None], np.ones((41, 1))])
    targets = np.eye(2)[np.r_[np.zeros(40, dtype=int), 1]]
    objective = Objective(
        x=x, targets=targets, anchor=np.zeros((2, 2)), precision=np.full((2, 2), 5.0), ewc=np.zeros((2, 2))
    )
    must = np.arange(41) == 40
    return objective, must, ~must


def test_insisting_doubles_until_right_when_the_budget_allows() -> None:
    objective, must, watch = contradiction()
    done = insist(objective, np.zeros((2, 2)), rules(objective, must, watch, budget=1.0), np.ones(41))
    assert squash(objective.x @ done.descent.theta)[40].argmax() == 1
    assert done.heaviest >= 16
    assert not done.budget_spent


def test_insisting_stops_at_the_budget_and_keeps_the_last_head_within_it() -> None:
    objective, must, watch = contradiction()
    start = np.array([[1.0, 0.0], [1.0, 0.0]])  # answers the watched rows right
    done = insist(objective, start, rules(objective, must, watch, budget=0.05), np.ones(41))
    p = squash(objective.x @ done.descent.theta)
    assert done.budget_spent
    assert (p[:40].argmax(axis=1) == 0).mean() >= 0.95
    assert p[40].argmax() == 0


def test_rounds_are_a_limit() -> None:
    objective, must, watch = contradiction()
    assert (
        insist(objective, np.zeros((2, 2)), rules(objective, must, watch, budget=1.0, rounds=2), np.ones(41)).heaviest
        == 2.0
    )


def test_growing_keeps_the_old_columns_and_does_not_steal_answers() -> None:
    objective = problem(3)
    theta = minimise(objective, np.ones(60), np.zeros((8, 3))).theta
    grown, fisher = grow(theta, np.ones((8, 3)), objective.x, np.array([12]), 300)
    assert (grown[:, :3] == theta).all()
    assert (fisher[:, 3] == 0).all()
    assert (squash(objective.x @ grown).argmax(axis=1) == squash(objective.x @ theta).argmax(axis=1)).all()


def test_temperature_undoes_a_known_stretch() -> None:
    draw = np.random.default_rng(5)
    scores = draw.normal(size=(4000, 3))
    cumulated = squash(scores).cumsum(axis=1)
    answers = (draw.random((4000, 1)) > cumulated).sum(axis=1)
    assert best_temperature(3.0 * scores, np.eye(3)[answers]) == pytest.approx(3.0, rel=0.1)
