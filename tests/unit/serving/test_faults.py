"""Drills: off unless the process was started for them, and aimed at one version alone."""

from __future__ import annotations

import time

import pytest

from perennial.domain.model import Prediction
from perennial.errors import InvalidExample, NotConfigured
from perennial.serving.errors import ModelFailed
from perennial.serving.faults import SLOW_SECONDS, Fault, FaultKind, spoilt
from tests.unit.serving.world import World


def _fault(kind: FaultKind, rate: float = 1.0, version: str = "1.0.1") -> Fault:
    return Fault(agent="scout", version=version, kind=kind, rate=rate)


def test_a_gateway_that_serves_for_real_refuses_to_be_spoilt(world: World) -> None:
    world.champion("1.0.1")
    with pytest.raises(NotConfigured, match="PERENNIAL_FAULTS"):
        world.gateway.faults.plant(_fault(FaultKind.WRONG))
    assert world.gateway.predict("scout", "topic", ["t"])[0].output == "sports"


def test_a_planted_wrong_answer_is_confident_listed_and_bound_to_its_version(drill: World) -> None:
    drill.champion("1.0.0")
    drill.champion("1.0.1")
    drill.gateway.faults.plant(_fault(FaultKind.WRONG))
    (answer,) = drill.gateway.predict("scout", "topic", ["t"])
    assert (answer.output, answer.confidence) == ("world", 0.9)
    assert drill.gateway.predict("scout", "quality", ["t"])[0].output == 0.0
    assert drill.gateway.agents()["scout"]["faults"][0]["kind"] == "wrong"
    drill.rollouts.rollback("scout", "1.0.0", actor="t", reason="t")
    drill.settle()
    assert drill.gateway.predict("scout", "topic", ["t"])[0].output == "sports"
    drill.gateway.faults.plant(_fault(FaultKind.NONE))
    assert drill.gateway.agents()["scout"]["faults"] == []


def test_planted_failures_and_slowness(drill: World) -> None:
    drill.champion("1.0.1")
    drill.gateway.faults.plant(_fault(FaultKind.ERROR, 0.5))
    failed = 0
    for _ in range(200):
        try:
            drill.gateway.predict("scout", "topic", ["t"])
        except ModelFailed:
            failed += 1
    assert 60 < failed < 140
    drill.gateway.faults.plant(_fault(FaultKind.SLOW))
    began = time.monotonic()
    drill.gateway.predict("scout", "topic", ["t"])
    assert time.monotonic() - began >= SLOW_SECONDS


def test_a_share_beyond_everything_is_refused(drill: World) -> None:
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidExample, match="rate"):
            drill.gateway.faults.plant(_fault(FaultKind.WRONG, rate))


def test_without_scores_a_wrong_label_is_still_wrong() -> None:
    assert spoilt(Prediction(output="sports", confidence=0.9)).output == "not sports"
