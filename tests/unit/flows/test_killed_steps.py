"""Steps of a training that are killed and run again: the same choice, and one entry per decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import Example, TrainingRow
from perennial.domain.job import BatchRef, JobRequest
from perennial.domain.words import Priority, Reason, Source
from perennial.errors import RegistryError
from perennial.flows import train
from perennial.flows.workspace import Workspace
from perennial.ingest.memory import MemoryAdmission
from perennial.registry.memory import MemoryLedger
from tests.contract.test_stores import accept, record
from tests.rollout_world import Killed
from tests.unit.flows.desk import Desk

pytestmark = pytest.mark.req("D10")


class Dying:
    """An audit log, or another store by the name of its ``write``, whose process dies at its first write, before or after it is made."""

    def __init__(self, inner: MemoryAuditLog | MemoryLedger, write: str = "append", *, after: bool) -> None:
        self._inner, self._write, self._after = inner, write, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._die, found) if name == self._write else found

    def _die(self, write: Callable[..., object], **values: Any) -> None:
        if self._after:
            write(**values)
        raise Killed


def _filled(desk: Desk, priority: int, *, ordinary: int = 0) -> None:
    """A correction, and rows of which two would call for a training by themselves."""
    desk.ports.buffer.sync_agents([record(threshold=2, tasks=("news",))])
    _add(desk, "A judge ruled.", priority=Priority(priority), source=Source.CORRECTION)
    for number in range(ordinary):
        _add(desk, f"Article {number} of a long series.")


def _add(desk: Desk, text: str, label: str = "world", **fields: Any) -> None:
    made = Example(agent="scout", task="news", input_text=text, expected_output=label, uncertainty=0.5, **fields)
    desk.ports.buffer.add(made)
    MemoryAdmission(desk.ports.buffer).run("scout", accept)


def test_a_claim_that_is_killed_goes_on_for_the_same_reason_whatever_waits_meanwhile(desk: Desk) -> None:
    _filled(desk, 2, ordinary=5)
    request = JobRequest(agent="scout", run_id="run-1", reason=Reason.CORRECTION)
    first = train.claim(desk.ports, request)  # its process died before it could say so
    again = train.claim(desk.ports, request)
    assert first is not None
    assert again is not None
    assert (first.reason, first.urgent, first.count) == (Reason.CORRECTION, True, 1)
    assert again == replace(first, attempt=2), (
        "by now the threshold alone calls for a training, but this is not that one"
    )


@pytest.mark.parametrize("after", [False, True])
def test_a_critical_correction_is_in_the_audit_once(desk: Desk, after: bool) -> None:
    _filled(desk, 3)
    request = JobRequest(agent="scout", run_id="run-1", reason=Reason.CORRECTION)
    with pytest.raises(Killed):
        train.claim(replace(desk.ports, audit=Dying(desk.ports.audit, after=after)), request)
    assert train.claim(desk.ports, request) is not None
    assert [entry.action for entry in desk.ports.audit.entries("scout")] == ["critical_correction_claimed"]


@pytest.mark.parametrize("after", [False, True])
def test_a_release_is_in_the_audit_once_with_who_approved_it(desk: Desk, after: bool) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    with pytest.raises(Killed):
        train.register(replace(desk.ports, audit=Dying(desk.ports.audit, after=after)), ref)
    released = train.register(desk.ports, ref)
    assert [one.version for one in desk.ledger.versions("scout")] == [released["version"]]
    (entry,) = [entry for entry in desk.ports.audit.entries("scout") if entry.action == "registered"]
    assert (entry.subject, entry.detail["approved_by"]) == ("1.0.0", ["editor"])
    assert entry.detail["job_id"] == str(ref.job_id)


@pytest.mark.req("K36", "K82")
@pytest.mark.parametrize("store", ["audit", "ledger"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("approved", "actor", "word"),
    [(True, "editor", "approved"), (False, "editor", "rejected"), (True, "Anonymous", "approval_void")],
)
def test_an_answer_is_in_the_audit_once_and_never_counts_without_it(
    desk: Desk, store: str, after: bool, approved: bool, actor: str, word: str
) -> None:
    ref = desk.waiting()
    stores = {
        "audit": Dying(desk.ports.audit, after=after), "ledger": Dying(desk.ledger, "add_approval", after=after)
    }  # fmt: skip
    with pytest.raises(Killed):
        train.record_decision(replace(desk.ports, **{store: stores[store]}), ref, approved, actor, "")
    written = [entry.action for entry in desk.ports.audit.entries("scout")]
    assert len(desk.ledger.decisions()) <= len(written), "an answer counts only once it is in the audit"
    told = desk.answer(ref, actor, approved=approved)
    assert told["approved"] is (word == "approved")
    assert len(desk.ledger.decisions()) == 1
    assert [(entry.action, entry.actor) for entry in desk.ports.audit.entries("scout")] == [(word, actor)]


@pytest.mark.req("K36")
def test_a_person_who_answers_again_is_in_the_audit_again(desk: Desk) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")
    desk.later(hours=73)
    desk.answer(ref, "editor")  # the first approval has lapsed
    desk.answer(ref, "editor", approved=False)
    desk.answer(ref, "editor")
    words = [entry.action for entry in desk.ports.audit.entries("scout")]
    assert words == ["approved", "rejected", "approved", "approved"]
    assert [row.decision.value for row in desk.ledger.decisions()] == ["approve", "reject", "approve", "approve"]


def test_a_release_goes_on_without_its_links_when_the_registry_is_away(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ref = desk.waiting()
    desk.answer(ref, "editor")

    def away(*_: Any) -> Any:
        raise RegistryError("MLflow at http://user:secret@mlflow is away")

    monkeypatch.setattr(desk.ports.models, "links", away)
    for _ in range(2):
        assert train.register(desk.ports, ref).keys() == {"version", "digest"}
    assert "secret" not in caplog.text


def test_a_choice_of_rows_stays_once_something_may_have_been_trained_on_it(desk: Desk) -> None:
    desk.ports.buffer.sync_agents([record(tasks=("news",))])
    for number in range(24):
        _add(desk, f"Number {number} has words of its own: {number * 7919}.", ("world", "sports")[number % 2])
    ref = train.claim(desk.ports, JobRequest(agent="scout", run_id="run-1", reason=Reason.REQUEST))
    assert ref is not None
    assert train.select(desk.ports, ref) == ["news"]
    space = Workspace.of(desk.ports.work, ref)
    chosen = space.read_rows("news/new.json")
    assert len(chosen) == 24
    desk.ports.buffer.set_aside(ref.job_id, ref.attempt, [chosen[0].example_id], state="held", reason="a person")
    assert train.select(desk.ports, ref) == ["news"]
    assert space.read_rows("news/new.json") == chosen, "the manifest must name what the weights were made of"
    assert desk.ports.buffer.job(ref.job_id).dataset["new"]["count"] == 24


def test_the_texts_of_a_job_go_also_when_the_settle_before_was_killed_after_its_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.ports.buffer.sync_agents([record(tasks=("news",))])
    ref = desk.claim()
    desk.judge(ref, "hold")
    space = Workspace.of(desk.ports.work, ref)

    def killed(_: Workspace) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "remove", killed)
        with pytest.raises(Killed):
            train.settle(desk.ports, ref, "cancelled")
    assert space.has("news/new.json")
    assert train.settle(desk.ports, ref, "cancelled")["version"] is None
    assert not space.root.exists()


@pytest.mark.parametrize("after", [False, True])
def test_a_verdict_of_the_gates_is_in_the_audit_once_for_each_attempt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(desk.ports.jobs, "add_cost", lambda *_: None, raising=False)

    def judged(run_id: str, attempt: int) -> BatchRef:
        ref = desk.claim(run_id)
        assert ref.attempt == attempt
        Workspace.of(desk.ports.work, ref).write_json(
            "evaluation.json", {"champion": None, "tasks": {}, "content_digest": "ab" * 32, "unchanged": []}
        )
        Workspace.of(desk.ports.work, ref).write_json("select.json", {"tasks": {}})
        return ref

    ref = judged("run-1", 1)
    with pytest.raises(Killed):
        train.gate(replace(desk.ports, audit=Dying(desk.ports.audit, after=after)), ref)
    for _ in range(2):
        assert train.gate(desk.ports, ref)["action"] == "hold"
    again = judged("run-1", 2)
    train.gate(desk.ports, again)
    found = [(one.action, one.subject) for one in desk.ports.audit.entries("scout")]
    assert found == [("gate_hold", f"{ref.job_id}/2"), ("gate_hold", f"{ref.job_id}/1")]


def test_replayed_rows_do_not_repeat_the_holdout_that_came_after_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = (
        "The central bank raised its rate by half a point on Monday.",
        "A storm closed the harbour of the old town until the evening.",
        "The striker scored twice in the last minutes of the match.",
        "Farmers brought the harvest in before the first frost came.",
    )

    def row(number: int, text: str, **fields: Any) -> TrainingRow:
        return TrainingRow(
            example_id=UUID(int=number), task="news", text=text, label=("world", "sports")[number % 2], **fields
        )

    holdout = tuple(row(number, text) for number, text in enumerate(texts))
    # trained in earlier jobs, when none of the holdout's rows was there
    pool = [
        row(10, texts[0].upper()),
        *(row(20 + n, f"Number {n} has words of its own: {n * 7919}.") for n in range(30)),
    ]
    taught = row(11, texts[1] + " !", priority=2, correction=True)
    drawn_correction = row(12, texts[2] + " !", correction=True)
    desk.ports.buffer.sync_agents([record(tasks=("news",))])
    monkeypatch.setattr(desk.ports.buffer, "holdout", lambda *_: holdout)
    monkeypatch.setattr(desk.ports.buffer, "replay_candidates", lambda *_: [*pool, drawn_correction])
    monkeypatch.setattr(desk.ports.buffer, "regression", lambda *_: (taught,))
    for number in range(24):
        _add(desk, f"Article {number} tells of {number * 104729}.", ("world", "sports")[number % 2])
    _add(desk, texts[3] + "..")
    ref = train.claim(desk.ports, JobRequest(agent="scout", run_id="run-1", reason=Reason.REQUEST))
    assert ref is not None
    assert train.select(desk.ports, ref) == ["news"]
    space = Workspace.of(desk.ports.work, ref)
    replayed = {one.example_id.int for one in space.read_rows("news/replay.json")}
    assert replayed == {11, 12, *range(20, 50)}, "a plain row gives way to the holdout, a correction does not"
    assert [one.example_id.int for one in space.read_rows("news/holdout.json")] == [0, 3]
    assert len(space.read_rows("news/new.json")) == 24
    assert [one.example_id.int for one in space.read_rows("news/regression.json")] == [11]
    assert desk.ports.buffer.counts("scout")["news", "superseded"] == 1, "the new row; what was trained stays trained"
    first = space.read_rows("news/replay.json")
    (space.root / "select.json").unlink()  # killed before the choice was written down
    train.select(desk.ports, ref)
    assert space.read_rows("news/replay.json") == first
