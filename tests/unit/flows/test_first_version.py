"""A first version that did not come to serve: what follows it is judged as a first version, and nothing trains while it is on its way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perennial.domain.job import BatchRef, JobRequest
from perennial.domain.words import Mode, Parked, Reason, RolloutDecision, RolloutState
from perennial.flows import due, train
from perennial.flows.decide import decide
from perennial.flows.ports import Ports
from perennial.flows.rollout import revert
from perennial.flows.workspace import Workspace
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.results import Due
from perennial.settings import Settings
from tests.rollout_world import RolloutWorld, make_rollout_world

ROWS = 200


@pytest.fixture
def world(tmp_path: Path) -> RolloutWorld:
    return make_rollout_world(settings=Settings(home=tmp_path))


def bootstrap_says(world: RolloutWorld, *, right: int = ROWS * 9 // 10) -> tuple[str, str]:
    """What the step `gate` says of a candidate that has no champion beside it, by its verdict `bootstrap`."""
    ports = replace(world.ports, jobs=SimpleNamespace(add_cost=lambda *_: None))  # type: ignore[arg-type]
    job = ports.buffer.open_job(JobRequest(agent="scout", run_id=f"run-{world.ledger.reserve_order()}"))
    attempt = ports.buffer.start_attempt(job, 3600.0)
    assert attempt is not None
    ref = BatchRef(agent="scout", job_id=job, attempt=attempt, mode=Mode.ONLINE, reason=Reason.THRESHOLD, count=1)
    space = Workspace.of(ports.work, ref)
    numbers = {
        "kind": "classification", "ids": [str(row) for row in range(ROWS)], "labels": ["a", "b"] * (ROWS // 2),
        "candidate": [1.0] * right + [0.0] * (ROWS - right), "champion": None, "baselines": {"majority": 0.5, "tfidf": 0.6},
    }  # fmt: skip
    space.write_json("select.json", {"tasks": {"topic": {"new_labels": [], "labels": ["a", "b"]}}})
    space.write_json(
        "evaluation.json", {"champion": None, "mode": "online", "content_digest": "d", "tasks": {"topic": numbers}}
    )
    train.gate(ports, ref)
    stored = ports.ledger.gate_report(job)
    assert stored is not None
    said = next(one for one in stored.report["verdicts"] if one["gate"] == "bootstrap")
    ports.buffer.finish(job, attempt, "failed", note="")  # type: ignore[arg-type]
    return said["action"], said["reason"]


@pytest.mark.parametrize("how", ["aborted by a person", "reverted by the controller"])
def test_after_a_first_version_that_never_served_the_next_is_a_first_version(world: RolloutWorld, how: str) -> None:
    row = world.candidate("1.0.0")
    if how == "aborted by a person":
        decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="looks wrong")
    else:
        revert(world.ports, {"rollout_id": row.id}, "PostgreSQL was away")
    assert world.state(row) is RolloutState.REVERTED
    assert bootstrap_says(world)[0] == "pass"
    assert bootstrap_says(world, right=ROWS // 2)[0] == "hold"  # and it is judged like one


def test_where_a_version_served_and_none_does_the_way_back_is_a_rollback(world: RolloutWorld) -> None:
    world.champion("1.0.0")
    action, reason = bootstrap_says(world)  # the champion's place was emptied since the evaluation looked
    assert action == "hold"
    assert "perennial rollback" in reason


def waiting(world: RolloutWorld, reason: Reason) -> tuple[Ports, list[str]]:
    """The ports of an agent that is due for this reason, and the notes of its runs that claimed nothing."""
    notes: list[str] = []
    buffer: Any = MemoryBuffer()
    stub = SimpleNamespace(
        due_agents=lambda: [("scout", reason)], job_of_run=lambda *_: None, open_job=buffer.open_job,
        due=lambda agent: Due(due=True, reason=reason, waiting=50, corrections=0, threshold=50),
        cancel_waiting=lambda job_id, note: notes.append(note),
    )  # fmt: skip
    return replace(world.ports, buffer=stub), notes  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", [Reason.THRESHOLD, Reason.CORRECTION, Reason.SCHEDULE, Reason.DRIFT])
def test_no_batch_is_claimed_while_the_first_version_waits_in_a_freeze_window(
    world: RolloutWorld, reason: Reason
) -> None:
    row = world.candidate("1.0.0")
    world.rollouts.park(row.id, Parked.FREEZE, "frozen until Monday 08:00")
    ports, notes = waiting(world, reason)
    assert due.due_agents(ports) == []
    # the stub has no verb that would claim rows: they stay where they are
    assert train.claim(ports, JobRequest(agent="scout", run_id="r", reason=reason)) is None
    assert notes == ["scout waits: its first version 1.0.0 is still in rollout (frozen until Monday 08:00)"]
    world.rollouts.promote_full(row.id, actor="test", reason="the window is over")
    assert due.due_agents(ports) == [("scout", reason)]


def test_a_later_version_in_rollout_and_a_first_one_that_was_taken_back_keep_nobody_waiting(
    world: RolloutWorld,
) -> None:
    ports, _ = waiting(world, Reason.CORRECTION)
    world.candidate("1.0.0")
    decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="looks wrong")
    assert due.due_agents(ports) == [("scout", Reason.CORRECTION)]
    world.champion("1.0.1")
    world.candidate("1.0.2")
    assert due.due_agents(ports) == [("scout", Reason.CORRECTION)]
