"""Each cause of "training does not start" is told from the others."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.pages.roles import Role, role_of
from perennial.stack import doctor
from perennial.stack.findings import Verdict, why_not_training

QUIET: dict[str, Any] = {
    "agent": "scout", "threshold": 50, "waiting": 12, "urgent": False, "held": 0, "job_id": None, "run_id": None, "status": None,
    "alive": None, "running_seconds": None, "last_status": None, "last_note": None, "last_seconds": None,
}  # fmt: skip
LOCK = {"job_id": "j-1", "run_id": "run-1", "status": "evaluating", "alive": True, "running_seconds": 12.0}

CASES = [
    ({}, (), False, Verdict.OK, "threshold not reached: 12 of 50"),
    ({"held": 3}, (), False, Verdict.OK, "3 more are held"),
    (LOCK | {"waiting": 50}, (), False, Verdict.NOTE, "lock held by job j-1 (evaluating for 12 s, run run-1)"),
    (LOCK | {"alive": False}, (), False, Verdict.WARNING, "its lease ran out"),
    ({"waiting": 50}, ("scheduler",), False, Verdict.WRONG, "scheduler not running"),
    (LOCK, ("scheduler", "triggerer"), False, Verdict.WRONG, "scheduler and triggerer not running"),
    ({"waiting": 50}, (), True, Verdict.WRONG, "train_scout is paused"),
    ({"urgent": True}, (), False, Verdict.NOTE, "due: a correction waits"),
    ({"waiting": 50, "last_status": "failed", "last_note": "no memory", "last_seconds": 5}, (), False, Verdict.WARNING, "no memory"),
    ({"waiting": 50, "last_status": "failed", "last_note": "no memory", "last_seconds": 5000}, (), False, Verdict.NOTE, "due: 50 examples"),
]  # fmt: skip


@pytest.mark.req("J107")
@pytest.mark.parametrize(("change", "dead", "paused", "verdict", "words"), CASES)
def test_cause(change: dict[str, Any], dead: tuple[str, ...], paused: bool, verdict: Verdict, words: str) -> None:
    found = why_not_training(QUIET | change, dead, paused)
    assert found.verdict is verdict
    assert words in found.detail
    if verdict in (Verdict.WRONG, Verdict.WARNING):
        assert found.remedy


@pytest.mark.req("J110")
def test_a_wrong_word_in_the_grants_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_PAGES_GRANTS", '{"ana": "operator", "bo": "admin"}')
    (found,) = doctor._grants()
    assert (found.verdict, "'bo'" in found.detail, "ana" in found.detail) == (Verdict.WRONG, True, False)
    assert found.remedy == "write nobody, viewer, editor or operator"
    grants = {"ana": "operator", "bo": "admin"}
    assert (role_of("ana", Role.VIEWER, grants), role_of("bo", Role.OPERATOR, grants)) == (Role.OPERATOR, Role.NOBODY)
