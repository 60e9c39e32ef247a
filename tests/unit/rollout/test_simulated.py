"""A thousand simulated rollouts of each kind: the bad come back, the identical go through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan

import numpy as np
import pytest

from perennial.domain.words import RolloutState
from perennial.rollout import machine
from perennial.rollout.machine import Plan
from perennial.rollout.verdict import ArmStats, judge, judge_bake

PLAN = Plan(steps=(0.05, 0.25, 0.50, 1.0), min_samples=20, step_seconds=4, max_hold_seconds=120, bake_seconds=120)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PER_SECOND = 60


@dataclass(frozen=True)
class Kind:
    """How a version behaves: share of failures, right answers, median latency, how its latency is measured."""

    errors: float = 0.004
    right: float = 0.85
    latency: float = 9.0
    broken: bool = False


CHAMPION = Kind()
BAD = {
    "fails": Kind(errors=0.10), "fails always": Kind(errors=1.0), "wrong": Kind(right=0.55),
    "worse by fifteen points": Kind(right=0.70), "slow": Kind(latency=40.0), "not a number": Kind(broken=True),
}  # fmt: skip


class _Arm:
    def __init__(self, kind: Kind, random: np.random.Generator) -> None:
        self.kind, self.random = kind, random
        self.answers = self.errors = self.outcomes = self.right = self.trailing = 0
        self.times: list[np.ndarray] = []

    def serve(self, requests: int) -> None:
        failed = self.random.random(requests) < self.kind.errors
        self.answers += requests
        self.errors += int(failed.sum())
        good = np.flatnonzero(~failed)
        self.trailing = requests - 1 - int(good[-1]) if len(good) else self.trailing + requests
        told = self.random.random(requests) < 0.5  # outcomes of half the answers ever arrive
        judged = int((told & ~failed).sum())
        self.outcomes += judged
        self.right += int(self.random.binomial(judged, self.kind.right))
        if requests:
            self.times.append(self.random.lognormal(np.log(self.kind.latency), 0.45, requests))

    def stats(self) -> ArmStats:
        if not self.times:
            return ArmStats(answers=0)
        times = np.sort(np.concatenate(self.times[-20:]))
        p50, p95 = times[len(times) // 2], times[int(0.95 * len(times))]
        return ArmStats(
            answers=self.answers, errors=self.errors, trailing_errors=self.trailing,
            p50_ms=nan if self.kind.broken else float(p50), p95_ms=float(p95),
            outcomes=self.outcomes, correct_sum=float(self.right),
        )  # fmt: skip


def _roll_out(candidate_kind: Kind, seed: int) -> tuple[RolloutState, int]:
    """One rollout, looked at every second; where it ended and after how many seconds."""
    random = np.random.default_rng(seed)
    champion, candidate = _Arm(CHAMPION, random), _Arm(candidate_kind, random)
    champion.serve(600)
    status, second, since = machine.to_step(machine.begin(NOW), PLAN, 0, NOW), 0, 0
    while status.state not in machine.ENDED and second < 600:
        second += 1
        share = int(random.binomial(PER_SECOND, status.weight))
        candidate.serve(share)
        champion.serve(PER_SECOND - share)
        if status.state is RolloutState.BAKING and second % 5:
            continue
        elapsed = float(second - since)
        if status.state is RolloutState.BAKING:
            verdict = judge_bake(PLAN, champion.stats(), candidate.stats(), elapsed=elapsed)
        else:
            verdict = judge(PLAN, champion.stats(), candidate.stats(), elapsed=elapsed)
        after = machine.advance(status, PLAN, verdict, NOW)
        since = second if after is not status else since
        status = after
    return status.state, second


@pytest.mark.req("K39", "K40", "J22", "J93")
@pytest.mark.parametrize("kind", BAD)
def test_every_bad_candidate_is_reverted(kind: str) -> None:
    ended = [_roll_out(BAD[kind], seed) for seed in range(150)]
    assert {state for state, _ in ended} == {RolloutState.REVERTED}
    assert float(np.median([seconds for _, seconds in ended])) <= 60


@pytest.mark.req("K39", "J22")
def test_noise_alone_reverts_one_in_a_hundred_at_most() -> None:
    ended = [_roll_out(CHAMPION, 10_000 + seed)[0] for seed in range(1000)]
    assert ended.count(RolloutState.DONE) >= 990, {state: ended.count(state) for state in set(ended)}


def test_a_candidate_without_traffic_is_never_promoted() -> None:
    status, idle = machine.to_step(machine.begin(NOW), PLAN, 0, NOW), _Arm(CHAMPION, np.random.default_rng(1))
    champion = _Arm(CHAMPION, np.random.default_rng(2))
    champion.serve(1000)
    for second in range(1, 121):
        status = machine.advance(status, PLAN, judge(PLAN, champion.stats(), idle.stats(), elapsed=float(second)), NOW)
        assert status.state is (RolloutState.CANARY if second < 120 else RolloutState.REVERTED)
