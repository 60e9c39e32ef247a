"""Steps of a training that are killed and run again: the same choice, and one entry per decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perennial.audit.log import MemoryAuditLog
from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.words import Priority, Reason, Source
from perennial.errors import RegistryError
from perennial.flows import train
from perennial.flows.workspace import Workspace
from perennial.ingest.memory import MemoryAdmission
from tests.contract.test_stores import accept, record
from tests.rollout_world import Killed
from tests.unit.flows.desk import Desk

pytestmark = pytest.mark.req("D10")


class Dying:
    """An audit log whose process dies at its first entry, before or after it is written."""

    def __init__(self, inner: MemoryAuditLog, *, after: bool) -> None:
        self._inner, self._after = inner, after

    def append(self, **entry: Any) -> None:
        if self._after:
            self._inner.append(**entry)
        raise Killed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


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
