"""Every way around a person's approval ends without a promotion, and every honest way through it with one.

The ways are those of the reliability reference, row 31. What needs an Airflow (a viewer's answer, a deleted run, XCom over
its API) is in tests/integration/bridge/test_runs.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perennial.api.data_plane import VerifiedBundles
from perennial.domain.job import BatchRef
from perennial.domain.words import JobStatus
from perennial.errors import PromotionRefused, RolloutError
from perennial.flows import rollout, train
from perennial.flows.champion import bundle_folder
from perennial.flows.questions import open_questions
from perennial.registry.bundle import assemble, bundle_digest, content_digest
from perennial.registry.ledger import Ledger
from perennial.registry.manifest import Manifest
from perennial.registry.permission import person
from perennial.registry.release import make_release
from perennial.registry.signing import sign
from perennial.serving.models import failure_of
from tests.unit.flows.desk import Desk
from tests.unit.registry.samples import PASSWORD, REPORT, Keys, components, manifest

pytestmark = pytest.mark.req("K36", "K82")


def refused(desk: Desk, ref: BatchRef, match: str) -> None:
    """Nothing is registered, and nothing can be promoted."""
    with pytest.raises(PromotionRefused, match=match):
        train.register(desk.ports, ref)
    assert desk.ledger.versions("scout") == ()
    assert rollout.verify(desk.ports, "scout", "rollout-1") is None
    assert desk.ports.rollouts.serving("scout").champion is None


def promoted(desk: Desk, ref: BatchRef) -> str:
    """Registered, verified, promoted, and fit for a gateway."""
    version = str(train.register(desk.ports, ref)["version"])
    row = rollout.verify(desk.ports, "scout", f"rollout-{version}")
    assert row is not None
    rollout.full(desk.ports, row)
    assert desk.ports.rollouts.serving("scout").champion == version
    assert (VerifiedBundles(desk.ports).fetch("scout", version) / "tasks").is_dir()
    return version


def test_an_approval_is_signed_into_the_release(desk: Desk) -> None:
    ref = desk.waiting(by="ana")
    assert desk.answer(ref, "editor", run_id="run-1") == {
        "approved": True, "actor": "editor", "why": "", "again": False,
    }  # fmt: skip
    version = promoted(desk, ref)
    signed = Manifest.read(bundle_folder(desk.ports, "scout", version)).permission
    (row,) = desk.ledger.decisions()
    assert (signed["action"], signed["attempt"], signed["requested_by"]) == ("approve", 1, "ana")
    assert signed["content_digest"] == row.content_digest
    assert signed["approvals"] == [{"id": row.id, "actor": "editor", "expires_at": row.expires_at.isoformat()}]
    assert (row.version, row.requested_by, row.attempt) == (version, "ana", 1)
    assert [entry.action for entry in desk.ports.audit.entries()][::-1] == ["approved", "registered", "promoted"]


# the bypasses


def test_marked_as_success_without_an_answer(desk: Desk) -> None:
    refused(desk, desk.waiting(), "must approve")


def test_what_xcom_says_of_gate_and_approve_is_not_read(desk: Desk) -> None:
    ref = desk.waiting()
    # register takes no verdict and no answer from XCom; all that a forged one can change is whose claim this is
    with pytest.raises(PromotionRefused, match="another run"):
        desk.answer(ref, "editor", run_id="run-2")
    with pytest.raises(PromotionRefused, match="another run"):
        train.question(desk.ports, ref, "run-2")
    with pytest.raises(PromotionRefused, match="does not wait"):
        desk.answer(desk.zombie(ref), "editor")
    refused(desk, ref, "must approve")


def test_cleared_and_run_again(desk: Desk) -> None:
    first = desk.waiting()
    desk.answer(first, "editor")
    second = desk.claim()  # the run was cleared: the next attempt of the same job
    assert (second.job_id, second.attempt) == (first.job_id, 2)
    desk.judge(second)
    refused(desk, second, "must approve")


def test_the_same_bytes_in_a_new_attempt_need_a_new_answer(desk: Desk) -> None:
    first = desk.waiting()
    desk.answer(first, "editor")
    second = desk.claim()
    assert desk.judge(second, like=first) == desk.ledger.questions()[0].content_digest
    refused(desk, second, "must approve")


def test_a_form_that_shows_an_earlier_attempt_is_not_asked_again(desk: Desk) -> None:
    desk.waiting()
    second = desk.claim()
    desk.judge(second)
    with pytest.raises(PromotionRefused, match="start a new run"):
        train.question(desk.ports, second, "run-1")


@pytest.mark.parametrize("action", ["hold", "approve"])
def test_force_and_overrides_in_a_runs_conf(action: str, desk: Desk) -> None:
    ref = desk.claim(force=True, overrides={"gate_action": "pass", "two_person": False, "approved": True})
    desk.judge(ref, action)
    refused(desk, ref, "holds" if action == "hold" else "must approve")


def test_self_approval_under_the_two_person_rule(tmp_path: Path, keys: Keys) -> None:
    desk = Desk(tmp_path, keys, "two_person=True")
    ref = desk.waiting(by="ana")
    assert "ana asked for this training and cannot approve it" in _body(desk, ref)
    told = desk.answer(ref, "Ana")
    assert (told["approved"], told["again"]) == (False, True)
    refused(desk, ref, "must approve")
    assert desk.answer(ref, "bo")["approved"] is True
    promoted(desk, ref)


def test_two_people_when_a_machine_asked(tmp_path: Path, keys: Keys) -> None:
    desk = Desk(tmp_path, keys, "two_person=True")
    ref = desk.waiting(by="machine")  # the settings' own user of Airflow is no person
    assert "2 different people must approve" in _body(desk, ref)
    for _ in range(2):  # one person twice is one person
        assert desk.answer(ref, "ana") == {
            "approved": False, "actor": "ana", "why": "1 of 2 people approved", "again": True,
        }  # fmt: skip
    assert len(desk.ledger.decisions()) == 1  # run again after a kill, it writes nothing twice
    refused(desk, ref, "2 different people")
    assert [asked.job_id for asked in open_questions(desk.ports)] == [ref.job_id]
    assert desk.answer(ref, "bo")["approved"] is True
    assert open_questions(desk.ports) == ()
    signed = Manifest.read(bundle_folder(desk.ports, "scout", promoted(desk, ref))).permission
    assert [approval["actor"] for approval in signed["approvals"]] == ["ana", "bo"]


def test_a_requester_for_whom_nobody_vouches_is_no_second_person(tmp_path: Path, keys: Keys) -> None:
    desk = Desk(tmp_path, keys, "two_person=True")
    # ana lets the client ask under a made-up name, starts the run with that job's id, and approves
    job_id = desk.ports.buffer.request_training("scout", requested_by="ghost")
    ref = desk.claim(by="ana", job_id=job_id)
    assert ref.job_id == job_id
    desk.judge(ref)
    assert desk.answer(ref, "ana")["why"] == "1 of 2 people approved"
    refused(desk, ref, "2 different people")


@pytest.mark.parametrize("gates", ["approvers='ana'", "approvers=('ana', ' ')", "approvers=('ana',), two_person=True"])
def test_a_rule_that_nobody_could_meet_is_an_error_of_the_fleet_file(gates: str, tmp_path: Path, keys: Keys) -> None:
    desk = Desk(tmp_path, keys, gates)
    (error,) = desk.ports.fleet().errors
    assert error.message.startswith("ValueError: gates: ")
    assert error.line > 0


def test_an_expired_approval(desk: Desk) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    desk.later(hours=73)
    refused(desk, ref, "must approve")


def test_an_approval_that_lapses_later_takes_no_champion_down(desk: Desk) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    version = promoted(desk, ref)
    desk.later(hours=24 * 365)
    assert bundle_folder(desk.ports, "scout", version).is_dir()


def test_an_approval_of_other_bytes(desk: Desk) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    desk.other_bytes(ref)
    refused(desk, ref, "other bytes")


def test_an_approval_as_another_version(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    monkeypatch.setattr(desk.ledger, "next_version", lambda agent, part: "1.0.1")
    refused(desk, ref, "approved as 1.0.0 but would become 1.0.1")


def test_an_old_approval_replayed_for_a_new_job(desk: Desk) -> None:
    old = desk.waiting("run-1")
    desk.answer(old, "editor")
    desk.ports.buffer.give_back(old.job_id, old.attempt, refused=False, reason="")
    desk.ports.buffer.finish(old.job_id, old.attempt, JobStatus.FAILED)
    new = desk.claim("run-2")
    desk.judge(new, like=old)  # the very bytes that were approved once
    refused(desk, new, "must approve")


def test_somebody_who_is_not_an_approver(tmp_path: Path, keys: Keys) -> None:
    desk = Desk(tmp_path, keys, "approvers=('ana', 'bo')")
    ref = desk.waiting()
    assert "Only ana, bo may approve" in _body(desk, ref)
    told = desk.answer(ref, "mallory")
    assert (told["approved"], told["again"]) == (False, True)
    assert told["why"] == "mallory is not one of the approvers (ana, bo)"
    refused(desk, ref, "must approve")
    desk.answer(ref, "ana")
    desk.with_gates("approvers=('bo', 'cy')")  # ana left before it was registered
    refused(desk, ref, "must approve")
    desk.answer(ref, "bo")
    promoted(desk, ref)


@pytest.mark.parametrize("answer", [{"actor": "ana", "attributable": False}, {"actor": "Anonymous"}])
def test_when_everybody_is_an_administrator(answer: dict[str, Any], desk: Desk) -> None:
    ref = desk.waiting()
    told = desk.answer(ref, **answer)
    assert told["approved"] is False
    assert told["again"] is answer.get("attributable", True)
    (row,) = desk.ledger.decisions()
    assert "nobody can be held to this answer" in row.void
    assert desk.ports.audit.entries()[0].action == "approval_void"
    refused(desk, ref, "must approve")


def test_a_refusal_ends_it_and_nobody_is_needed_to_refuse(tmp_path: Path, keys: Keys) -> None:
    desk = Desk(tmp_path, keys, "approvers=('ana',)")
    ref = desk.waiting()
    desk.answer(ref, "ana")
    assert desk.answer(ref, "nobody", approved=False)["again"] is False
    assert open_questions(desk.ports) == ()
    refused(desk, ref, "must approve")


# promotion and gateway ask again


def _sneak_in(desk: Desk, ref: BatchRef, **claims: Any) -> str:
    """A version signed and recorded past the flow, as whoever holds the signing key could."""
    candidate = desk.ports.work / str(ref.job_id) / str(ref.attempt) / "candidate"

    def describe(version: str, order: int) -> Manifest:
        return manifest(candidate, version=version, order=order, job_id=str(ref.job_id), **claims)

    return make_release(
        ledger=desk.ledger, store=desk.ports.models, agent="scout", job_id=ref.job_id, part="major",
        tasks=candidate / "tasks", describe=describe, gate_report=REPORT, out=desk.room / "release",
        key_file=desk.keys.private, password=PASSWORD, tags={},
    ).version  # fmt: skip


FORGED = {
    "action": "approve",
    "attempt": 1,
    "approvals": [{"id": 1, "actor": "ana", "expires_at": "2099-01-01T00:00:00+00:00"}],
}


@pytest.mark.parametrize(
    ("gates_said", "claims"),
    [
        ("approve", {}),  # signed as passed
        ("approve", {"gate_action": "approve", "permission": FORGED}),
        ("hold", {}),
        (None, {}),  # no gate was asked
    ],
)
def test_a_signed_version_without_permission_is_neither_promoted_nor_served(
    gates_said: str | None, claims: dict[str, Any], desk: Desk
) -> None:
    ref = desk.claim()
    if gates_said is None:
        components(desk.ports.work / str(ref.job_id) / str(ref.attempt) / "candidate")
    else:
        desk.judge(ref, gates_said)
    version = _sneak_in(desk, ref, **claims)
    row = desk.ports.rollouts.open(
        agent="scout", version=version, plan=rollout.plan_of(desk.ports.fleet().agent("scout")), run_id="r"
    )
    with pytest.raises(PromotionRefused):
        rollout.verify(desk.ports, "scout", "r")
    with pytest.raises(RolloutError, match="reverted"):
        rollout.full(desk.ports, {"rollout_id": row.id})
    with pytest.raises(PromotionRefused) as answer:
        VerifiedBundles(desk.ports).fetch("scout", version)
    assert failure_of(version, answer.value).final  # a gateway refuses it, and rollouts read that
    assert desk.ports.rollouts.serving("scout").champion is None
    assert desk.ports.audit.entries()[0].action == "bundle_refused"


def test_full_asks_by_itself(desk: Desk) -> None:
    ref = desk.claim()
    desk.judge(ref)
    row = desk.ports.rollouts.open(
        agent="scout", version=_sneak_in(desk, ref), plan=rollout.plan_of(desk.ports.fleet().agent("scout")), run_id="r"
    )
    with pytest.raises(PromotionRefused):
        rollout.full(desk.ports, {"rollout_id": row.id})
    assert desk.ports.rollouts.get(row.id).state.value == "reverted"


def test_an_approval_after_the_registration_excuses_nothing(desk: Desk) -> None:
    ref = desk.waiting()
    version = _sneak_in(desk, ref, gate_action="approve", permission=FORGED)
    desk.later(hours=0.1)
    desk.answer(ref, "ana")
    with pytest.raises(PromotionRefused, match="live at its registration"):
        bundle_folder(desk.ports, "scout", version)


@pytest.mark.parametrize("before", ["approved", "refused", "nothing", "passed"])
def test_a_release_from_before_permissions_were_signed_is_judged_by_the_ledger(before: str, desk: Desk) -> None:
    ref = desk.claim()
    digest = desk.judge(ref, "pass" if before == "passed" else "approve")
    decide = {"agent": "scout", "job_id": ref.job_id, "content_digest": digest, "actor": "Anonymous"}
    if before != "passed":
        desk.ledger.add_approval(**decide, decision="reject" if before == "nothing" else "approve")  # type: ignore[arg-type]
    if before == "refused":
        desk.ledger.add_approval(**decide, decision="reject")  # type: ignore[arg-type]
    version = _old_release(desk, ref, "pass" if before == "passed" else "approve")
    desk.later(hours=1000)
    if before in {"approved", "passed"}:
        assert bundle_folder(desk.ports, "scout", version).is_dir()
    else:
        with pytest.raises(PromotionRefused):
            bundle_folder(desk.ports, "scout", version)


def _old_release(desk: Desk, ref: BatchRef, action: str) -> str:
    """As the code before this one released: no permission in the manifest, which was complete then."""

    class Before(Manifest):
        def check_complete(self) -> None:
            return

    candidate = desk.ports.work / str(ref.job_id) / str(ref.attempt) / "candidate"
    made = manifest(candidate, job_id=str(ref.job_id), gate_action=action)
    old = Before(**{name: getattr(made, name) for name in made.__dataclass_fields__})
    out = desk.room / "old"
    assemble(candidate / "tasks", old, REPORT, out)
    record = json.loads((out / "manifest.json").read_text())
    del record["permission"]
    (out / "manifest.json").write_text(json.dumps(record))
    signature = sign(out, desk.keys.private, PASSWORD)
    digest = bundle_digest(out)
    done = Before(**{**{name: getattr(Manifest.read(out), name) for name in made.__dataclass_fields__}})
    published = desk.ports.models.publish(
        out, signature, done, digest=digest, metrics={}, params={}, tags={}, job_id=ref.job_id
    )
    ledger: Ledger = desk.ledger
    return ledger.record_version(done, digest=digest, uri=published.uri, mlflow_run_id=None).version


# the evidence


def _body(desk: Desk, ref: BatchRef) -> str:
    return str(train.question(desk.ports, ref, "run-1")["body"])


def test_the_question_comes_from_our_own_table_and_names_bytes_and_version(desk: Desk) -> None:
    ref = desk.waiting(by="ana")
    asked = train.question(desk.ports, ref, "run-1")  # a killed task runs again
    (stored,) = desk.ledger.questions()
    assert asked["subject"] == "Release scout 1.0.0 (major)?"
    assert stored.content_digest[:16] in asked["body"]
    assert "http://airflow.test/dags/train_scout/runs/run-1" in asked["body"]
    assert "Asked for by: ana." in asked["body"]
    assert "secret sentence" not in asked["body"]
    assert (stored.version, stored.requested_by) == ("1.0.0", "ana")
    assert stored.content_digest == content_digest(desk.ports.work / str(ref.job_id) / "1" / "candidate")


def test_nobody_is_asked_twice_for_the_same_bytes_of_one_attempt(desk: Desk) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    assert train.question(desk.ports, ref, "run-1") == {"granted": True, "actor": "editor"}


def test_nobody_is_asked_about_what_the_gates_hold_or_pass(desk: Desk) -> None:
    ref = desk.claim()
    desk.judge(ref, "pass")
    for call in (lambda: train.question(desk.ports, ref, "run-1"), lambda: desk.answer(ref, "editor")):
        with pytest.raises(PromotionRefused, match="does not wait"):
            call()
    assert desk.ledger.decisions() == desk.ledger.questions() == ()
    assert promoted(desk, ref) == "1.0.0"


@pytest.mark.parametrize("name", ["", " ", "perennial", "Anonymous", "anonymous"])
def test_a_machine_is_no_person(name: str) -> None:
    assert person(name) == ""
