"""Admission and the second look with the real redactor: unsure words, answers of people, a changed redactor, the cache."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perennial.audit.memory import MemoryAuditLog
from perennial.domain.words import RedactionDecision
from perennial.fleet.agent import Agent, Task
from perennial.flows.admission import admit_agent
from perennial.flows.redaction_tasks import answer, open_tasks
from perennial.flows.scanning import scan
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.ingest.memory_redaction_tasks import MemoryRedactionTasks
from perennial.storage.scans import MemoryScans
from perennial.trainers.ewc_text import EwcText
from tests.contract.test_stores import TASK, record, row

pytestmark = pytest.mark.req("K67", "K68")


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PERENNIAL_REDACTION_KEY", "a key of the tests")
    buffer = MemoryBuffer()
    buffer.sync_agents([record()])
    agent = Agent(name="scout", owner="tests", tasks=(Task(name=TASK, labels=("good", "bad")),), trainer=EwcText())
    return SimpleNamespace(
        fleet=lambda: SimpleNamespace(agent=lambda name: agent), buffer=buffer, admission=MemoryAdmission(buffer),
        redaction_tasks=MemoryRedactionTasks(buffer, MemoryAuditLog()), scans=MemoryScans(), agent=agent,
    )  # fmt: skip


def test_an_unsure_word_goes_is_asked_about_and_comes_back(ports: Any) -> None:
    ports.buffer.add_many([row("Grace said it to jane@corp.com"), row("nothing here")])
    assert admit_agent(ports, "scout")["unsure"] == 1
    rows = _rows(ports)
    assert not [one for one in rows if "Grace" in one.text or "jane" in one.text]
    assert scan(ports, ports.agent, rows).looked_at == 0  # the second look need not look
    (task,) = open_tasks(ports, "scout", words=True)
    done = answer(ports, "scout", RedactionDecision.RESTORE, [(task.number, task.round)], actor="ana", why="a virtue")
    assert done.done == 1
    assert admit_agent(ports, "scout")["redacted_again"] == 1
    rows = _rows(ports)
    assert [one for one in rows if one.text.startswith("Grace said it to user-")]
    found = scan(ports, ports.agent, rows)
    assert (found.leaking, found.looked_at) == (frozenset(), 1)  # what a person let stand is never taken for clean
    assert scan(ports, ports.agent, rows).looked_at == 1


def test_what_an_older_redactor_left_is_found_and_told_apart(ports: Any) -> None:
    ports.buffer.add_many([row("mail jane@corp.com"), row("mail bob@corp.com"), row("nothing here")])
    admit_agent(ports, "scout")
    first, second, _ = ports.buffer.state.rows
    for one, version in ((first, "older"), (second, first.redaction["version"])):
        one.text, one.redaction = one.example.input_text, {**one.redaction, "version": version}
    found = scan(ports, ports.agent, _rows(ports))
    assert found.leaking == {first.example.example_id, second.example.example_id}
    assert found.outdated == {first.example.example_id}
    assert admit_agent(ports, "scout")["redacted_again"] == 1
    assert scan(ports, ports.agent, _rows(ports)).leaking == {second.example.example_id}


def _rows(ports: Any) -> list[Any]:
    return [one.as_training_row() for one in ports.buffer.state.rows]
