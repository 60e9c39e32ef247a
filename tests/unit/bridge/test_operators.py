"""What the operators do around a flow, without an Airflow."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput, TaskDeferred

from perennial.bridge import operators
from perennial.bridge.operators import ApproveOperator, CanaryOperator, settle_verdict
from perennial.domain.job import BatchRef
from perennial.domain.words import Mode, Reason

REF = BatchRef(agent="scout", job_id=uuid4(), attempt=1, mode=Mode.ONLINE, reason=Reason.CORRECTION, count=3)


class Instance:
    """A task instance whose upstream said ``values``."""

    id = uuid4()

    def __init__(self, **values: Any) -> None:
        self.values = values

    def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> Any:
        return self.values.get(task_ids)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Any:
    renewed: list[float] = []
    ports = SimpleNamespace(
        renewed=renewed, approval=None,
        buffer=SimpleNamespace(renew=lambda job, attempt, seconds: renewed.append(seconds)),
        ledger=SimpleNamespace(
            gate_report=lambda job: SimpleNamespace(content_digest="d"),
            live_approval=lambda job, digest: ports.approval if digest == "d" else None,
        ),
    )  # fmt: skip
    monkeypatch.setattr("perennial.bridge.hooks.task_ports", lambda **_: ports)
    return ports


def test_approve_holds_the_claim_as_long_as_a_person_may_take(ports: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda *, body, **_: asked.append(body)
    )
    for lane in ("gate", "fast_lane", "fast_lane_critical"):
        approve = ApproveOperator(task_id="approve", subject="?", response_timeout=timedelta(hours=2))
        said = {"claim": REF.as_dict(), lane: {"action": "approve", "text": f"page of {lane}"}}
        with pytest.raises(TaskAwaitingInput) as parked:
            approve.execute({"ti": Instance(**said), "task_instance": Instance()})
        assert parked.value.timeout == timedelta(hours=2)
    assert asked == ["page of gate", "page of fast_lane", "page of fast_lane_critical"]
    assert ports.renewed == [3 * 3600.0] * 3


def test_nobody_is_asked_about_a_candidate_that_no_gate_judged(ports: Any) -> None:
    approve = ApproveOperator(task_id="approve", subject="?")
    with pytest.raises(AirflowFailException, match="no verdict"):
        approve.execute({"ti": Instance(claim=REF.as_dict()), "task_instance": Instance()})
    assert ports.renewed == []


def test_approve_asks_nobody_twice_for_the_same_bytes(ports: Any) -> None:
    ports.approval = SimpleNamespace(actor="editor")
    approve = ApproveOperator(task_id="approve", subject="?")
    assert approve.execute({"ti": Instance(claim=REF.as_dict())}) == {"approved": True, "actor": "editor"}


@pytest.mark.parametrize(
    ("event", "recorded"),
    [
        ({"chosen_options": ["Approve"], "responded_by_user": {"id": "7", "name": "editor"}}, (True, "editor")),
        ({"chosen_options": ["Reject"], "responded_by_user": {"id": "7", "name": ""}}, (False, "7")),
        ({"chosen_options": ["Reject"], "responded_by_user": None}, (False, "nobody")),
        (
            {"chosen_options": ["Approve"], "responded_by_user": None},
            (False, "nobody"),
        ),  # a default that somebody changed
    ],
)
def test_only_a_named_person_approves(
    event: dict[str, Any], recorded: tuple[bool, str], ports: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    decisions: list[tuple[bool, str]] = []

    def record(_ports: Any, _ref: BatchRef, approved: bool, actor: str, comment: str) -> dict[str, Any]:
        decisions.append((approved, actor))
        return {"approved": approved, "actor": actor}

    skipped: list[Any] = []
    monkeypatch.setattr("perennial.flows.train.record_decision", record)
    monkeypatch.setattr(ApproveOperator, "skip", lambda self, ti, tasks: skipped.extend(tasks))
    instance = Instance(claim=REF.as_dict())
    instance.xcom_push = lambda key, value: None  # type: ignore[attr-defined]
    task = SimpleNamespace(dag=SimpleNamespace(get_task=lambda name: name))
    approve = ApproveOperator(task_id="approve", subject="?")
    full = {"params_input": {}, "responded_at": datetime.now(UTC), "timedout": False, **event}
    approve.execute_complete({"ti": instance, "task": task}, full)
    assert decisions == [recorded]
    assert skipped == ([] if recorded[0] else ["register"])


@pytest.fixture
def canary(ports: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A canary step whose looks answer from a list; an empty list holds."""
    answers: list[dict[str, str]] = []
    hold = {"action": "hold", "reason": "3 of 20"}
    monkeypatch.setattr("perennial.flows.rollout.begin_step", lambda ports, ref, index: hold)
    monkeypatch.setattr("perennial.flows.rollout.look", lambda ports, ref, index: answers.pop(0) if answers else hold)
    monkeypatch.setattr(operators, "_LOOK_SECONDS", 0.01)

    def run(patience: float, *said: str) -> Any:
        answers[:] = [{"action": action, "reason": "seen"} for action in said]
        step = CanaryOperator(task_id="canary_1", index=0, patience=patience, longest=timedelta(minutes=15))
        return step.execute({"ti": Instance(verify={"rollout_id": 4})})

    return run


@pytest.mark.req("K67")
def test_a_verdict_that_comes_soon_needs_no_deferral(canary: Any) -> None:
    assert canary(5.0, "hold", "hold", "promote")["action"] == "promote"
    with pytest.raises(AirflowFailException, match="rollback"):
        canary(5.0, "rollback")
    with pytest.raises(AirflowSkipException, match="superseded"):
        canary(5.0, "superseded")


@pytest.mark.req("K67")
@pytest.mark.parametrize("patience", [0.0, 0.05])
def test_a_long_step_waits_in_the_triggerer(patience: float, canary: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        canary(patience)
    path, arguments = deferred.value.trigger.serialize()
    assert (path, arguments["ref"], arguments["index"]) == (
        "perennial.bridge.triggers.CanaryTrigger",
        {"rollout_id": 4},
        0,
    )
    assert deferred.value.timeout == timedelta(minutes=15)


@pytest.mark.parametrize("action", ["rollback", "reverted", "hold", "anything"])
def test_nothing_but_a_promotion_goes_on(action: str) -> None:
    with pytest.raises(AirflowFailException):
        settle_verdict({"action": action, "reason": "r"})
