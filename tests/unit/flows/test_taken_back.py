"""Corrections of a version that production took back are not taught again by themselves; those of one that gave way are."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.flows.train.fit import _taken_back
from perennial.registry.rows import LOST
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts


@pytest.mark.req("J48")
def test_only_what_production_took_back_stays_out() -> None:
    rollouts = MemoryRollouts()

    def opened(version: str) -> int:
        return rollouts.open(agent="scout", version=version, plan=Plan(), run_id=version).id

    rollouts.promote_full(opened("1.0.0"), actor="test", reason="test")
    rollouts.revert(opened("1.0.1"), reason="fell", actor="test")
    opened("1.0.2")  # gives way to the next
    opened("1.0.3")
    rollouts.revert(opened("1.0.4"), reason=f"{LOST}, after 900 s", actor="test")  # nothing judged it
    versions = ("1.0.0", "1.0.1", "1.0.2", "1.0.3", None, "1.0.4")
    row = TrainingRow(example_id=UUID(int=0), task="news", text="a text", label="world", priority=2, correction=True)
    known = [SimpleNamespace(row=replace(row, example_id=UUID(int=at)), version=one) for at, one in enumerate(versions)]
    ports: Any = SimpleNamespace(rollouts=rollouts, buffer=SimpleNamespace(corrections=lambda agent, limit: known))
    assert _taken_back(ports, "scout") == {UUID(int=1)}
    assert _taken_back(ports, "analyst") == set()


@pytest.mark.req("J48")
def test_what_a_person_put_back_is_taught_again() -> None:
    rollouts = MemoryRollouts()
    for version in ("1.0.0", "1.0.1"):
        made = rollouts.open(agent="scout", version=version, plan=Plan(), run_id=version)
        rollouts.promote_full(made.id, actor="test", reason="test")
        rollouts.close(made.id)
    row = TrainingRow(example_id=UUID(int=1), task="news", text="a text", label="world", priority=2, correction=True)
    known = [SimpleNamespace(row=row, version="1.0.1")]
    ports: Any = SimpleNamespace(rollouts=rollouts, buffer=SimpleNamespace(corrections=lambda agent, limit: known))
    for target, gone in (("1.0.0", {UUID(int=1)}), ("1.0.1", set()), ("1.0.0", {UUID(int=1)})):
        rollouts.rollback("scout", target, actor="jane", reason="as it was")
        assert _taken_back(ports, "scout") == gone
