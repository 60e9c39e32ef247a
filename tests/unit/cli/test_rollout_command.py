"""``perennial rollout`` in a terminal."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from perennial.cli import build
from perennial.domain.words import RolloutState
from perennial.errors import RolloutError
from perennial.flows import rollout
from perennial.flows.permission import require_served_permission
from tests.rollout_world import RolloutWorld, make_rollout_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> RolloutWorld:
    made = make_rollout_world()
    monkeypatch.setattr("perennial.wiring.ports", lambda *_: made.ports)
    monkeypatch.setattr("perennial.flows.decide.bundle_folder", require_served_permission)
    made.champion("1.0.0")
    return made


def _said(*words: str) -> Result:
    return CliRunner().invoke(build(), ["rollout", *words])


@pytest.mark.req("K40")
def test_a_rollout_is_shown_promoted_and_aborted_with_a_reason(world: RolloutWorld) -> None:
    row = world.candidate("1.0.1")
    world.agreed(row, 0.9)
    rollout.begin_step(world.ports, {"rollout_id": row.id}, 0)
    world.clock.move(1)
    world.traffic(300)
    shown = _said("scout")
    assert shown.exit_code == 0, shown.output
    for words in (
        "scout 1.0.1: canary at 5% of the keys",
        "95 % at all looks",
        "verdict now: hold",
        "next: its run looks",
    ):
        assert words in " ".join(shown.output.split()), words
    assert json.loads(_said("scout", "--json").stdout)["rollout"]["plan"]["min_samples"] == 20
    assert "say why" in _said("abort", "scout").output
    assert world.state(row) is RolloutState.CANARY
    assert (
        "promoted by ana: looks right" in _said("promote", "scout", "--reason", "looks right", "--actor", "ana").output
    )
    assert world.state(row) is RolloutState.BAKING
    refused = _said("abort", "scout", "--reason", "r", "--actor", "ana")
    assert isinstance(refused.exception, RolloutError)
    assert refused.exit_code == 1


def test_the_breaker_is_reset_by_name(world: RolloutWorld) -> None:
    assert "trains by itself again" in _said("reset", "scout", "--reason", "repaired", "--actor", "ana").output
    assert [(one.actor, one.action) for one in world.audit.entries("scout")] == [("ana", "breaker_reset")]
