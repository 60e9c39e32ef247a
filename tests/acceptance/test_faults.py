"""What ``benchmarks/bench_faults.py`` asks the books after a kill: each promise, kept and broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.acceptance.faults import Books, Harm, violations

pytestmark = pytest.mark.req("D10", "J74")


def _example(identity: str, **fields: Any) -> dict[str, Any]:
    made = {
        "example_id": identity,
        "state": "ready",
        "model_version": None,
        "job_id": None,
        "reason": "",
        "superseded_by": None,
    }
    return {**made, **fields}


def _audit(action: str, subject: str, **detail: Any) -> dict[str, Any]:
    return {"actor": "perennial", "action": action, "subject": subject, "detail": detail}


WHOLE = Books(
    acknowledged=["e1", "e2"],
    examples=[
        _example("e1", state="trained", model_version="1.0.1", job_id="j1"), _example("e2"),
        _example("e3", state="held", reason="new_label_waiting"), _example("unsure", state="unlabelled"),
    ],
    jobs=[{"job_id": "j1", "status": "completed", "version": "1.0.1"}, {"job_id": "j2", "status": "failed", "version": None}],
    versions=[{"version": "1.0.1", "digest": "d1", "job_id": "j1"}],
    taught=[("1.0.1", "e1")], store=[("1.0.1", "d1")],
    rollouts=[
        {"id": 1, "version": "1.0.1", "state": "baking", "full_at": "t"},
        {"id": 2, "version": "1.0.0", "state": "reverted", "full_at": None},
    ],
    history=[{"job_id": "j1", "version": "1.0.1", "rollback": False}],
    audit=[
        _audit("registered", "1.0.1"), _audit("promoted", "1.0.1", rollout=1), _audit("reverted", "1.0.0", rollout=2),
        {**_audit("rollback", "1.0.1", why="worse", rollouts=[2]), "actor": "ana"},
    ],
    moves=[{"version": "1.0.1", "actor": "perennial", "reason": "r"}, {"version": "1.0.1", "actor": "ana", "reason": "worse"}],
    champion="1.0.1", gateway="1.0.1", aliases={"champion": "1.0.1"},
)  # fmt: skip


def test_whole_books_break_no_promise() -> None:
    assert violations(WHOLE) == []


@pytest.mark.parametrize(
    ("harm", "name", "change"),
    [
        (Harm.LOST, "an acknowledged example is gone", {"acknowledged": ["e9"]}),
        (Harm.LOST, "an example stays claimed", {"examples": [_example("e1", state="claimed", job_id="j2"), _example("e2")]}),
        (Harm.LOST, "did not learn from it", {"taught": []}),
        (Harm.LOST, "another version than its job", {"jobs": [{"job_id": "j1", "status": "completed", "version": None}]}),
        (Harm.LOST, "without a reason", {"examples": [*WHOLE.examples, _example("e4", state="held")]}),
        (Harm.LOST, "the audit does not say: registered", {"audit": WHOLE.audit[1:]}),
        (Harm.LOST, "who rolled back", {"audit": WHOLE.audit[:-1]}),
        (Harm.TWICE, "trained into two versions", {"taught": [("1.0.1", "e1"), ("1.0.0", "e1")]}),
        (Harm.TWICE, "a job has two versions", {"versions": [*WHOLE.versions, {"version": "1.0.2", "digest": "d2", "job_id": "j1"}]}),
        (Harm.TWICE, "a version has two jobs", {"jobs": [*WHOLE.jobs, {"job_id": "j3", "status": "completed", "version": "1.0.1"}]}),
        (Harm.TWICE, "model store twice", {"store": [("1.0.1", "d1")] * 2}),
        (Harm.TWICE, "history twice", {"history": [*WHOLE.history] * 2}),
        (Harm.TWICE, "the audit says twice: promoted", {"audit": [*WHOLE.audit, WHOLE.audit[1]]}),
        (Harm.HALF, "no such bundle", {"store": [("1.0.1", "other")]}),
        (Harm.HALF, "the ledger does not know", {"store": [("1.0.1", "d1"), ("1.0.2", "d2")]}),
        (Harm.HALF, "did not end well", {"jobs": [{"job_id": "j1", "status": "failed", "version": "1.0.1"}]}),
        (Harm.HALF, "a job is still open", {"jobs": [*WHOLE.jobs, {"job_id": "j3", "status": "training", "version": None}]}),
        (Harm.HALF, "a rollout is still open", {"rollouts": [{"id": 3, "version": "1.0.2", "state": "canary", "full_at": None}]}),
        (Harm.HALF, "the gateway serves another", {"gateway": "1.0.0"}),
        (Harm.HALF, "a candidate is left", {"candidate": "1.0.2"}),
        (Harm.HALF, "nothing serves", {"champion": None}),
        (Harm.HALF, "aliases", {"aliases": {"champion": "1.0.0"}}),
        (Harm.HALF, "does not verify", {"genuine": "the signature does not verify"}),
        (Harm.HALF, "left on disk", {"workspaces": ["j1"]}),
        (Harm.HALF, "requests failed", {"failed_requests": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)  # fmt: skip
def test_a_broken_promise_is_named(harm: Harm, name: str, change: dict[str, Any]) -> None:
    found = violations(replace(WHOLE, **change))
    assert any(one.harm is harm and name in one.name for one in found), found
