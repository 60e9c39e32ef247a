"""Users report answers over HTTP."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Plane


@pytest.mark.req("J94")
def test_reports_of_answers_and_versions_count_people(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    answer = plane.post("/v1/predict", {"agent": "scout", "task": "topic", "inputs": ["a"]}).json()["predictions"][0]
    plane.world.recorder.flush()
    about = {"agent": "scout", "kind": "wrong", "prediction_id": answer["prediction_id"]}
    sent = [{**about, "reporter": "ana"}, {**about, "reporter": "ana"}, {**about, "reporter": "bo"}]
    told = plane.post("/v1/reports", sent)
    assert told.status_code == 200
    assert [one["status"] for one in told.json()["results"]] == ["added", "duplicate", "added"]
    one = {"agent": "scout", "kind": "harmful", "version": "1.0.0"}
    assert plane.post("/v1/reports", one).json()["added"] == 1  # nobody named: one more person
    assert plane.world.rollouts.reporters("scout", "1.0.0", within=600) == 3


@pytest.mark.req("J94")
def test_an_answer_may_be_reported_before_it_is_written_down(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    plane.world.store.away = True  # the recorder waits
    answer = plane.post("/v1/predict", {"agent": "scout", "task": "topic", "inputs": ["a"]}).json()["predictions"][0]
    about = {"agent": "scout", "kind": "wrong", "prediction_id": answer["prediction_id"], "reporter": "ana"}
    assert plane.post("/v1/reports", {**about, "agent": "nobody"}).status_code == 422
    told = plane.post("/v1/reports", about)
    assert (told.status_code, told.json()["added"]) == (200, 1)
    plane.world.store.away = False
    assert plane.world.recorder.flush()
    assert plane.post("/v1/reports", about).json()["duplicate"] == 1
    assert plane.world.rollouts.reporters("scout", "1.0.0", within=600) == 1


def test_a_bad_report_spoils_no_other_and_is_never_echoed(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    good = {"agent": "scout", "kind": "wrong", "version": "1.0.0"}
    bad = [{**good, "version": "9.9.9"}, {**good, "comment": "my secret"}, "text", {**good, "agent": "nobody"}]
    told = plane.post("/v1/reports", [good, *bad])
    assert told.status_code == 207
    assert (told.json()["added"], told.json()["rejected"]) == (1, 4)
    assert "my secret" not in told.text
    assert plane.post("/v1/reports", bad).status_code == 422
