"""The split is the same everywhere, near its weight, and only grows."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perennial.domain.words import Arm
from perennial.serving.router import arm_for, share


@pytest.mark.req("K37")
@pytest.mark.parametrize("weight", [0.0, 0.01, 0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("prefix", ["user-", "", "https://example.org/articles/"])
def test_the_measured_share_is_within_one_point(weight: float, prefix: str) -> None:
    keys = 100_000
    met = sum(arm_for(f"{prefix}{number}", "scout", weight) is Arm.CANDIDATE for number in range(keys))
    assert abs(met / keys - weight) <= 0.01


@pytest.mark.req("K37")
@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_key_stays_in_the_canary_as_it_grows(key: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if arm_for(key, "scout", small) is Arm.CANDIDATE:
        assert arm_for(key, "scout", large) is Arm.CANDIDATE
    assert 0 <= share(key, "scout") < 1


def test_another_process_splits_alike() -> None:
    """No seed of this process may take part (``hash`` of a string differs between processes)."""
    code = "from perennial.serving.router import share; print(share('reader-7', 'scout'))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": "include"}
    )
    assert float(told.stdout) == share("reader-7", "scout")


def test_agents_have_canaries_of_their_own() -> None:
    both = sum(
        arm_for(f"{number}", "scout", 0.1) is arm_for(f"{number}", "analyst", 0.1) is Arm.CANDIDATE
        for number in range(10_000)
    )
    assert both < 200  # 1 % of the keys, not 10 %


def test_odd_keys_have_a_place_too() -> None:
    for key in ("", "\x00", "\ud800", "🦉" * 1000):
        assert 0 <= share(key, "scout") < 1
