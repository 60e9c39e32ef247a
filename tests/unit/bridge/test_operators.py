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
        renewed=renewed, asked=[], question={"granted": False, "subject": "Release scout 2.0.0?", "body": "numbers"},
        buffer=SimpleNamespace(renew=lambda job, attempt, seconds: renewed.append(seconds)),
    )  # fmt: skip

    def question(_ports: Any, ref: BatchRef, run_id: str) -> dict[str, Any]:
        ports.asked.append((ref, run_id))
        return dict(ports.question)

    monkeypatch.setattr("perennial.bridge.hooks.task_ports", lambda **_: ports)
    monkeypatch.setattr("perennial.flows.train.question", question)
    return ports


RUN = SimpleNamespace(run_id="run-1", dag_id="train_scout")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Airflow was told to show in its form."""
    forms: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.upsert_hitl_detail", lambda **form: forms.append(form)
    )
    return forms


def test_approve_holds_the_claim_as_long_as_a_person_may_take(ports: Any, shown: list[dict[str, Any]]) -> None:
    approve = ApproveOperator(task_id="approve", subject="?", response_timeout=timedelta(hours=2))
    with pytest.raises(TaskAwaitingInput) as parked:
        approve.execute({"ti": Instance(claim=REF.as_dict()), "task_instance": Instance(), "dag_run": RUN})
    assert parked.value.timeout == timedelta(hours=2)
    assert ports.renewed == [3 * 3600.0]


@pytest.mark.req("K36")
def test_the_form_shows_what_our_own_table_says_whatever_xcom_says(ports: Any, shown: list[dict[str, Any]]) -> None:
    forged = Instance(claim=REF.as_dict(), gate={"action": "approve", "text": "all is well"})
    approve = ApproveOperator(task_id="approve", subject="?", body="old")
    with pytest.raises(TaskAwaitingInput):
        approve.execute({"ti": forged, "task_instance": Instance(), "dag_run": RUN})
    assert [(form["subject"], form["body"]) for form in shown] == [("Release scout 2.0.0?", "numbers")]
    assert ports.asked == [(REF, "run-1")]


def test_approve_asks_nobody_twice_for_the_same_bytes(ports: Any) -> None:
    ports.question = {"granted": True, "actor": "editor"}
    approve = ApproveOperator(task_id="approve", subject="?")
    said = approve.execute({"ti": Instance(claim=REF.as_dict()), "dag_run": RUN})
    assert said == {"approved": True, "actor": "editor"}


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

    def record(
        _ports: Any, _ref: BatchRef, approved: bool, actor: str, comment: str, *, attributable: bool, run_id: str
    ) -> dict[str, Any]:  # fmt: skip
        decisions.append((approved, actor))
        assert (attributable, run_id) == (True, "run-1")
        return {"approved": approved, "actor": actor}

    skipped: list[Any] = []
    monkeypatch.setattr("perennial.flows.train.record_decision", record)
    monkeypatch.setattr(ApproveOperator, "skip", lambda self, ti, tasks: skipped.extend(tasks))
    instance = Instance(claim=REF.as_dict())
    instance.xcom_push = lambda key, value: None  # type: ignore[attr-defined]
    task = SimpleNamespace(dag=SimpleNamespace(get_task=lambda name: name))
    approve = ApproveOperator(task_id="approve", subject="?")
    full = {"params_input": {}, "responded_at": datetime.now(UTC), "timedout": False, **event}
    approve.execute_complete({"ti": instance, "task": task, "dag_run": RUN}, full)
    assert decisions == [recorded]
    assert skipped == ([] if recorded[0] else ["register"])


def _approval_by(monkeypatch: pytest.MonkeyPatch, notes: list[str], **said: Any) -> Any:
    """Resume a parked approve with editor's answer, which the flow takes as ``said``."""
    from datetime import UTC, datetime

    monkeypatch.setattr("perennial.flows.train.record_decision", lambda *_, **__: {"actor": "editor", **said})
    monkeypatch.setattr(operators, "note_run", lambda context, text: notes.append(text))
    approve = ApproveOperator(task_id="approve", subject="?")
    event = {
        "chosen_options": ["Approve"], "responded_by_user": {"id": "editor", "name": "editor"}, "params_input": {},
        "responded_at": datetime.now(UTC), "timedout": False,
    }  # fmt: skip
    context = {"ti": Instance(claim=REF.as_dict()), "task_instance": Instance(), "dag_run": RUN}
    return approve.execute_complete(context, event)


@pytest.mark.req("K36", "K82")
def test_an_approval_that_is_not_enough_brings_the_question_back(
    ports: Any, shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    with pytest.raises(TaskAwaitingInput) as parked:
        _approval_by(monkeypatch, notes, approved=False, why="1 of 2 people approved", again=True)
    assert parked.value.method_name == "execute_complete"
    assert len(shown) == len(ports.renewed) == 1
    assert notes == ["still waits for an approval: 1 of 2 people approved"]


@pytest.mark.req("K36", "K82")
def test_an_approval_without_an_author_fails_the_task(
    ports: Any, shown: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AirflowFailException, match="simple_auth_manager_all_admins"):
        _approval_by(monkeypatch, [], approved=False, why="nobody", again=False)
    assert shown == []


@pytest.mark.req("K36")
@pytest.mark.parametrize(
    ("manager", "all_admins", "expected"),
    [
        ("airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager", "True", True),
        ("airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager", "False", False),
        ("airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager", "True", False),
    ],
)
def test_who_answers_means_nothing_when_everybody_is_an_administrator(
    manager: str, all_admins: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", manager)
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", all_admins)
    assert operators.everybody_is_admin() is expected


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
