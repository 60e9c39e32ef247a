"""The short form of benchmarks/bench_rollouts.py: seeded, with a controller that dies in one of ten calls."""

from __future__ import annotations

import pytest
from benchmarks.bench_rollouts import KINDS, requests_over_swaps, simulate

from perennial.domain.words import RolloutState

BAD = [name for name, kind in KINDS.items() if kind.bad]
IDENTICAL = [name for name, kind in KINDS.items() if not kind.bad]


@pytest.mark.req("K39", "K40", "J93", "J94", "J95")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_rollout_is_reverted_within_two_check_intervals(name: str) -> None:
    kind = KINDS[name]
    for seed in range(1 if kind.bake is not None else 5):
        run = simulate(kind, 500_000 + seed, bake_seconds=300.0)
        assert (run.state, run.broken) == (RolloutState.REVERTED, []), (seed, run)
        assert run.seconds <= 2 * kind.interval, (seed, run)


@pytest.mark.req("K39")
@pytest.mark.parametrize("name", IDENTICAL)
def test_identical_models_get_through(name: str) -> None:
    for seed in range(2 if KINDS[name].delay else 5):
        run = simulate(KINDS[name], 600_000 + seed, bake_seconds=180.0)
        assert (run.state, run.broken) == (RolloutState.DONE, []), (seed, run)


@pytest.mark.req("J33", "K40")
def test_no_request_fails_and_no_unapproved_version_answers_over_swaps() -> None:
    found = requests_over_swaps(10_000, 10)
    assert found["requests"] == 10_000
    assert (found["failed"], found["answered by an unapproved version"]) == (0, 0)
    assert found["versions that answered"] >= 3  # swapped under load
