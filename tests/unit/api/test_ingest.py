"""Sending examples, feedback and corrections over HTTP: each record has its result, and acknowledged means stored."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.unit.api.conftest import Plane

GOOD = {
    "agent_name": "scout", "task_type": "topic", "input_text": "Rates fell.", "expected_output": "world",
    "uncertainty_score": 0.7,
}  # fmt: skip


def _with(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


@pytest.mark.req("J23")
def test_one_example_and_many(plane: Plane) -> None:
    one = plane.post("/v1/examples", GOOD)
    assert (one.status_code, one.json()["added"]) == (200, 1)
    identity = one.json()["results"][0]["example_id"]
    many = plane.post("/v1/examples", [GOOD, _with(input_text="Another."), _with(input_text="A third.")])
    assert {key: many.json()[key] for key in ("added", "duplicates", "quarantined", "rejected")} == {
        "added": 2, "duplicates": 1, "quarantined": 0, "rejected": 0
    }  # fmt: skip
    assert many.json()["results"][0] == {"index": 0, "status": "duplicate", "example_id": identity}
    assert len(plane.stored) == 3
    assert plane.post("/v1/examples", {"examples": [_with(input_text="A fourth.")]}).json()["added"] == 1


def test_a_repeat_with_the_same_id_is_stored_once(plane: Plane) -> None:
    body = _with(example_id=str(uuid4()))
    assert [plane.post("/v1/examples", body).json()["results"][0]["status"] for _ in range(2)] == ["added", "duplicate"]
    assert len(plane.stored) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agent_name": "nobody"}, "agent_name"), ({"agent_name": "Scout"}, "agent_name"),
        ({"agent_name": None}, "agent_name"), ({"agent_name": 7}, "agent_name"),
        ({"task_type": ""}, "task_type"), ({"task_type": ["topic"]}, "task_type"),
        ({"input_text": ""}, "input_text"), ({"input_text": None}, "input_text"), ({"input_text": 7}, "input_text"),
        ({"input_text": "x" * 30_000}, "input_text"), ({"input_text": "a\0b"}, "input_text"),
        ({"input_text": "\ud800"}, "input_text"), ({"uncertainty_score": 7.5}, "uncertainty_score"),
        ({"uncertainty_score": None}, "uncertainty_score"), ({"uncertainty_score": "high"}, "uncertainty_score"),
        ({"importance_score": -3}, "importance_score"), ({"correction_priority": 99}, "correction_priority"),
        ({"correction_priority": -1}, "correction_priority"), ({"correction_priority": "urgent"}, "correction_priority"),
        ({"expected_output": ""}, "expected_output"), ({"expected_output": {"a": "\0"}}, "expected_output"),
        ({"timestamp": "yesterday"}, "timestamp"), ({"example_id": "7"}, "example_id"),
        ({"source_url": "u" * 5000}, "source_url"), ({"label": "world"}, "expected_output"),
    ],
)  # fmt: skip
def test_an_unusable_record_is_refused_with_its_field_and_the_rest_lands(
    plane: Plane, changes: dict[str, Any], field: str
) -> None:
    alone = plane.post("/v1/examples", _with(**changes))
    assert (alone.status_code, alone.json()["results"][0]["field"]) == (422, field)
    mixed = plane.post("/v1/examples", [GOOD, _with(**changes)])
    assert (mixed.status_code, mixed.json()["added"], mixed.json()["rejected"]) == (207, 1, 1)
    assert len(plane.stored) == 1


def test_an_unknown_task_is_kept_aside_and_says_so(plane: Plane) -> None:
    answer = plane.post("/v1/examples", [_with(task_type="story_publishing"), GOOD])
    assert [item["status"] for item in answer.json()["results"]] == ["quarantined", "added"]
    assert answer.json()["quarantined"] == 1


@pytest.mark.req("J25", "J26", "J27")
@pytest.mark.parametrize(
    ("predicted", "actual", "confidence", "status", "stored"),
    [("sports", "world", 0.95, "added", "world"), ("sports", "Sports", 0.95, "not_kept", None),
     ("sports", None, 0.39, "added", None), ("sports", None, 0.40, "not_kept", None)],
)  # fmt: skip
def test_feedback_is_worth_what_the_client_says(
    plane: Plane, predicted: str, actual: str | None, confidence: float, status: str, stored: str | None
) -> None:
    body = {
        "agent_name": "scout", "task_type": "topic", "input_text": "t", "predicted_output": predicted,
        "actual_output": actual, "confidence_score": confidence,
    }  # fmt: skip
    answer = plane.post("/v1/feedback", body)
    assert (answer.status_code, answer.json()["results"][0]["status"]) == (200, status)
    rows = plane.stored
    assert len(rows) == (1 if status == "added" else 0)
    if rows:
        assert rows[0].expected_output == stored


@pytest.mark.req("J26", "J27")
@pytest.mark.parametrize(
    ("predicted", "actual", "importance"),
    [("0.70", "0.70", None), ("0.70", 0.7, None), (0.7, "0.70", None), ("0.9", "0.1", 0.8), ("0.9", 0.1, 0.8)],
)  # fmt: skip
def test_scores_that_come_as_texts_are_compared_as_numbers(
    plane: Plane, predicted: Any, actual: Any, importance: float | None
) -> None:
    body = {
        "agent": "scout", "task": "quality", "text": "t", "predicted_output": predicted, "actual_output": actual,
        "confidence": 0.95,
    }  # fmt: skip
    answer = plane.post("/v1/feedback", body)
    assert answer.json()["results"][0]["status"] == ("not_kept" if importance is None else "added")
    kept = [(row.importance, row.predicted_output, row.expected_output) for row in plane.stored]
    assert kept == ([] if importance is None else [(importance, 0.9, 0.1)])


def test_feedback_with_a_score_that_is_no_number_names_its_field(plane: Plane) -> None:
    body = {"agent": "scout", "task": "quality", "text": "t", "actual_output": 0.5, "confidence": 0.95}
    for wrong, field in (
        ({"predicted_output": "nan"}, "predicted_output"),
        ({"predicted_output": 0.5, "actual_output": "nan"}, "actual_output"),
    ):
        answer = plane.post("/v1/feedback", {**body, **wrong})
        assert (answer.status_code, answer.json()["results"][0]["field"]) == (422, field)


@pytest.mark.req("J29", "J30", "J104")
def test_a_correction_is_urgent_by_default(plane: Plane) -> None:
    body = {
        "agent_name": "scout", "task_type": "topic", "input_text": "t", "incorrect_output": "sports",
        "correct_output": "world", "source_id": "editor", "explanation": "an election",
    }  # fmt: skip
    assert plane.post("/v1/corrections", body).json()["added"] == 1
    (row,) = plane.stored
    assert (int(row.priority), row.expected_output, row.source.value) == (2, "world", "correction")
    for wrong in ({**body, "correct_output": None}, {**body, "priority": 7}, {**body, "explanation": 7}):
        assert plane.post("/v1/corrections", wrong).status_code == 422


@pytest.mark.req("J5")
def test_with_the_store_away_nothing_is_acknowledged(plane: Plane) -> None:
    plane.post("/v1/examples", GOOD)  # the fleet is known now
    plane.buffer.away = True
    for path, body in (
        ("/v1/examples", [_with(input_text="new")]),
        ("/v1/corrections", {**GOOD, "correct_output": "x"}),
    ):
        answer = plane.post(path, body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "results" not in answer.json()
    plane.buffer.away = False
    assert len(plane.stored) == 1
