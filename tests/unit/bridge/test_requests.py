"""From a run's form, conf or events to one request, and from its tasks to one outcome."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from perennial.bridge.nightly import choose, is_full
from perennial.bridge.requests import build_request, event_reasons, outcome_of, request_of
from perennial.domain.words import Mode, Reason

PARAMS = {"mode": "auto", "reason": "request", "job_id": None, "force": False, "overrides": {}}


def event(payload: Any) -> Any:
    return SimpleNamespace(extra={"from_trigger": True, "payload": payload})


@pytest.mark.req("J77", "D6")
def test_a_form_is_taken_as_it_is() -> None:
    job_id = "5a4f9f9e-7e4d-4d5e-8f6f-2f1b2c3d4e5f"
    params = {
        "mode": "batch", "reason": "drift", "why": "a new desk", "job_id": job_id, "force": True, "overrides": {"epochs": 2},
    }  # fmt: skip
    run = SimpleNamespace(run_id="manual__1", consumed_asset_events=[], triggering_user_name="editor")
    request = request_of("scout", {"dag_run": run, "params": params})
    assert (request.agent, request.run_id, request.mode, request.reason) == (
        "scout",
        "manual__1",
        Mode.BATCH,
        Reason.DRIFT,
    )
    assert (request.job_id, request.force, request.overrides) == (UUID(job_id), True, {"epochs": 2})
    assert (request.requested_by, request.why) == ("editor", "a new desk")


@pytest.mark.req("J77")
def test_events_say_why_and_a_correction_wins() -> None:
    said = list(event_reasons([event({"agent": "scout", "reason": word}) for word in ("correction", "threshold")]))
    request = build_request(agent="scout", run_id="r", params=PARAMS, reasons=said, user=None)
    assert request.reason is Reason.CORRECTION


@pytest.mark.parametrize("payload", [None, "scout", {}, {"reason": "mood"}, {"reason": None}])
def test_an_event_made_by_hand_counts_as_a_request(payload: Any) -> None:
    assert list(event_reasons([event(payload), SimpleNamespace(extra=None)])) == [Reason.REQUEST] * 2


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({"released": True, "action": None}, "registered"),
        ({"action": "hold"}, "held"),
        ({"action": "approve", "approved": False}, "rejected"),
        ({"action": "approve", "approved": True}, "failed"),  # approved, and register failed
        ({"action": "approve"}, "failed"),  # nobody was even asked
        ({"action": "pass"}, "failed"),
        ({"action": None}, "failed"),
        ({"action": None, "stopped": "cancelled"}, "cancelled"),
    ],
)
def test_an_outcome_is_never_better_than_what_was_said(said: dict[str, Any], outcome: str) -> None:
    assert outcome_of(**{"released": False, "approved": None, "stopped": None, **said}) == outcome


@pytest.mark.req("D4", "J31")
def test_a_night_trains_what_waits_and_sundays_everything() -> None:
    from datetime import datetime

    agents, waiting = ["analyst", "critic", "scout"], {"scout": 3, "analyst": 0, "gone": 9}
    assert choose(agents, waiting, full=False) == ["scout"]
    assert choose(agents, waiting, full=True) == ["scout", "analyst", "critic"]
    assert is_full({}, datetime(2026, 11, 22))
    assert not is_full({}, datetime(2026, 11, 21))
    assert not is_full({"full": False}, datetime(2026, 11, 22))
    assert is_full({"full": True}, datetime(2026, 11, 21))
