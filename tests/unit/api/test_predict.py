"""Asking, telling what was true, and seeing what serves, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from perennial.api.services import Limits
from perennial.domain.model import Prediction
from tests.unit.api.conftest import Plane, plane_of
from tests.unit.serving.world import PLAN, Fixed


@pytest.mark.req("K39")
def test_a_prediction_says_what_answered(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    answer = plane.post("/v1/predict", {"agent": "scout", "task": "news_topic", "inputs": ["a", "b"], "key": 7})
    assert answer.status_code == 200
    first, second = answer.json()["predictions"]
    assert set(first) == {"prediction_id", "output", "confidence", "version", "arm"}
    assert (first["output"], first["confidence"], first["version"], first["arm"]) == (
        "sports",
        0.9,
        "1.0.0",
        "champion",
    )
    assert UUID(first["prediction_id"]) != UUID(second["prediction_id"])


@pytest.mark.req("J27")
def test_outcomes_come_back_as_examples(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    body = {"agent": "scout", "task": "topic", "inputs": ["first text", "second text"]}
    ids = [item["prediction_id"] for item in plane.post("/v1/predict", body).json()["predictions"]]
    one = plane.post("/v1/outcomes", {"prediction_id": ids[0], "actual": "world"})
    assert (one.status_code, one.json()["results"][0]) == (
        200, {"index": 0, "status": "added", "correct": 0.0, "example": True}
    )  # fmt: skip
    many = plane.post(
        "/v1/outcomes", [{"prediction_id": ids[0], "actual": "world"}, {"prediction_id": ids[1], "actual": "sports"}]
    )
    assert (many.json()["added"], many.json()["duplicate"]) == (1, 1)
    mixed = plane.post(
        "/v1/outcomes",
        [{"prediction_id": ids[1], "actual": "sports"}, {"prediction_id": str(uuid4()), "actual": "x"}, 7],
    )
    assert (mixed.status_code, mixed.json()["rejected"]) == (207, 2)
    assert plane.post("/v1/outcomes", {"prediction_id": "no", "actual": "x"}).status_code == 422
    rows = plane.stored
    assert [row.expected_output for row in rows] == ["world"]


@pytest.mark.req("J27", "D10")
@pytest.mark.parametrize("then", ["world", "culture"])
def test_a_label_that_an_outcome_took_back_is_not_trained_on(plane: Plane, then: str) -> None:
    plane.world.champion("1.0.0", topic=Fixed("world"), quality=Fixed(0.7))
    body = {"agent": "scout", "task": "topic", "inputs": ["hello there"]}
    (answer,) = plane.post("/v1/predict", body).json()["predictions"]
    for actual in ("sports", then):
        told = plane.post("/v1/outcomes", {"prediction_id": answer["prediction_id"], "actual": actual})
        assert told.json()["added"] == 1
    waiting = [row.example.expected_output for row in plane.buffer.state.of("scout") if row.waiting]
    assert waiting == ([then] if then != "world" else [])


def test_before_the_first_champion_callers_are_told_to_wait(plane: Plane) -> None:
    plane.world.settle()
    answer = plane.post("/v1/predict", {"agent": "scout", "task": "topic", "inputs": ["a"]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert plane.post("/v1/predict", {"agent": "nobody", "task": "topic", "inputs": ["a"]}).status_code == 404


@pytest.mark.req("K40")
def test_before_its_first_look_at_the_store_a_gateway_says_that_it_does_not_know_yet(plane: Plane) -> None:
    body = {"agent": "scout", "task": "topic", "inputs": ["a"]}
    plane.world.store.away = True
    for path in ("/v1/predict", "/v1/rollback"):
        answer = plane.post(path, body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "not read yet" in answer.json()["error"]
    plane.world.gateway.refresh()
    assert plane.post("/v1/predict", body).status_code == 503
    plane.world.store.away = False
    plane.world.champion("1.0.0")
    plane.world.store.away = True
    plane.world.gateway.refresh()
    assert plane.post("/v1/predict", body).status_code == 200
    assert plane.post("/v1/predict", {**body, "agent": "nobody"}).status_code == 404
    assert plane.post("/v1/rollback", {**body, "agent": "nobody"}).status_code == 404


def test_a_model_that_fails_is_a_503_without_a_text(plane: Plane) -> None:
    model = Fixed("sports")
    plane.world.champion("1.0.0", topic=model)
    model.raises = RuntimeError
    answer = plane.post("/v1/predict", {"agent": "scout", "task": "topic", "inputs": ["Ana Petrova"]})
    assert answer.status_code == 503
    assert "Petrova" not in answer.text


@pytest.mark.req("J49")
def test_agents_show_what_serves_and_what_is_refused(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    plane.world.shelf.tampered.add("1.0.1")
    plane.world.candidate("1.0.1")
    shown = plane.client.get("/v1/agents").json()
    assert (shown["store"], shown["drills"], shown["instance"]) == ("up", False, "g1")
    scout = shown["agents"]["scout"]
    assert (scout["champion"], scout["candidate"], scout["tasks"]) == ("1.0.0", None, ["quality", "topic"])
    assert "signature" in scout["error"]
    assert plane.client.get("/healthz").json() == {"status": "degraded", "store": "up"}


def test_health_and_metrics(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    plane.post("/v1/predict", {"agent": "scout", "task": "topic", "inputs": ["a"]})
    assert plane.client.get("/healthz").json() == {"status": "ok", "store": "up"}
    page = plane.client.get("/metrics").text
    assert 'perennial_predictions_total{agent="scout",arm="champion",task="topic"} 1.0' in page
    assert 'perennial_http_requests_total{route="/v1/predict",status="200"} 1.0' in page


@pytest.mark.req("J91")
def test_rollback_over_http_with_and_without_the_store(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    plane.world.champion("1.0.1")
    done = plane.post("/v1/rollback", {"agent": "scout", "actor": "ana", "reason": "complaints"})
    assert (done.status_code, done.json()) == (200, {"agent": "scout", "to": "1.0.0", "everywhere": True})
    assert plane.rolled_back == [("scout", None, "ana", "complaints")]
    assert plane.post("/v1/rollback", {"agent": "scout", "version": "9.9.9"}).status_code == 409
    plane.world.champion("1.0.2")
    plane.world.store.away = True
    here = plane.post("/v1/rollback", {"agent": "scout"})
    assert (here.status_code, here.json()["to"], here.json()["everywhere"]) == (202, "1.0.0", False)
    body = {"agent": "scout", "task": "topic", "inputs": ["a"]}
    assert plane.post("/v1/predict", body).json()["predictions"][0]["version"] == "1.0.0"
    again = plane.post("/v1/rollback", {"agent": "scout"})  # whoever heard no answer asks again
    assert (again.status_code, again.json()) == (202, here.json())
    assert plane.post("/v1/rollback", {"agent": "scout", "version": "1.0.0"}).status_code == 503


def test_a_rollback_that_a_restart_would_forget_says_so(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.world.champion("1.0.0")
    plane.world.champion("1.0.1")
    plane.world.store.away = True

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("perennial.serving.orders.os.replace", full)
        here = plane.post("/v1/rollback", {"agent": "scout"})
    assert (here.status_code, here.json()["to"]) == (202, "1.0.0")
    assert "a restart forgets it" in here.json()["note"]
    assert "restart" not in plane.post("/v1/rollback", {"agent": "scout"}).json()["note"]


def test_rollbacks_that_could_not_be_read_are_said_until_somebody_looked(tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_text("")
    plane = plane_of(tmp_path)
    with plane.client:
        plane.world.champion("1.0.0")
        (aside,) = tmp_path.glob("orders.json.unread-*")
        assert plane.client.get("/healthz").json() == {"status": "degraded", "store": "up"}
        assert plane.client.get("/v1/agents").json()["rollbacks_not_read"] == [aside.name]
        aside.unlink()
        assert plane.client.get("/healthz").json() == {"status": "ok", "store": "up"}
        assert plane.client.get("/v1/agents").json()["rollbacks_not_read"] == []
    plane.world.close()


def test_faults_are_for_drills_alone(plane: Plane) -> None:
    plane.world.champion("1.0.0")
    answer = plane.post("/v1/faults", {"agent": "scout", "version": "1.0.0", "kind": "wrong", "rate": 1.0})
    assert (answer.status_code, "PERENNIAL_FAULTS" in answer.text) == (403, True)


def test_a_drill_is_planted_shown_and_taken_away(drill: Plane) -> None:
    drill.world.champion("1.0.0")
    fault = {"agent": "scout", "version": "1.0.0", "kind": "wrong", "rate": 1}
    assert drill.post("/v1/faults", fault).json() == {"planted": {**fault, "rate": 1.0}}
    assert drill.client.get("/v1/agents").json()["drills"] is True
    body = {"agent": "scout", "task": "topic", "inputs": ["a"]}
    assert drill.post("/v1/predict", body).json()["predictions"][0]["output"] == "world"
    assert drill.post("/v1/faults", {**fault, "kind": "none"}).status_code == 200
    assert drill.post("/v1/predict", body).json()["predictions"][0]["output"] == "sports"
    for wrong in (
        {**fault, "kind": "explode"},
        {**fault, "rate": 2},
        {**fault, "rate": "x"},
        {"kind": "wrong"},
        {**fault, "rate": 10**400},
        {**fault, "agent": "sco\0ut"},
        {**fault, "version": "\ud800"},
    ):
        assert drill.post("/v1/faults", wrong).status_code == 422


@pytest.mark.parametrize("sign", ["\0", "\ud800"])
def test_names_that_no_store_can_hold_are_refused(plane: Plane, sign: str) -> None:
    plane.world.champion("1.0.0")
    for body in ({"agent": f"scout{sign}"}, {"agent": "scout", "version": f"1.0.0{sign}"}):
        answer = plane.post("/v1/rollback", body)
        assert (answer.status_code, answer.json()["field"]) == (422, list(body)[-1])
    assert not plane.rolled_back


class _Slow:
    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        time.sleep(0.3)
        return [Prediction(output="sports", confidence=0.9) for _ in texts]


@pytest.mark.req("J111")
def test_a_flood_is_answered_with_429_and_not_with_a_queue(tmp_path: Path) -> None:
    plane = plane_of(tmp_path, limits=Limits(predict_threads=1, waiting=2))
    with plane.client:
        plane.world.champion("1.0.0", topic=_Slow())
        codes: list[int] = []
        body = {"agent": "scout", "task": "topic", "inputs": ["a"]}
        threads = [
            threading.Thread(target=lambda: codes.append(plane.post("/v1/predict", body).status_code))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(codes) == {200, 429}
        assert codes.count(200) <= 4
    plane.world.close()


class _Stuck:
    """Answers the probe of its loading, then hangs until it is let go."""

    def __init__(self) -> None:
        self.let_go, self.asked = threading.Event(), 0

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        self.asked += 1
        if self.asked > 1:
            self.let_go.wait(30)
        return [Prediction(output="up", confidence=0.9) for _ in texts]


@pytest.mark.req("K39", "J111")
def test_a_laggard_blocks_its_own_callers_alone(tmp_path: Path) -> None:
    """Forty callers wait for a model that does not answer; another agent's callers do not notice."""
    plane = plane_of(tmp_path)
    world, stuck = plane.world, _Stuck()
    world.store.tasks.append({**world.store.tasks[0], "agent": "analyst"})
    world.shelf.put("1.0.0", "analyst", topic=stuck)
    with plane.client:
        world.champion("1.0.0")
        row = world.rollouts.open(agent="analyst", version="1.0.0", plan=PLAN, run_id="analyst")
        world.rollouts.promote_full(row.id, actor="t", reason="t")
        world.settle()

        def ask(agent: str) -> float:
            began = time.monotonic()
            answer = plane.post("/v1/predict", {"agent": agent, "task": "topic", "inputs": ["a"]})
            assert answer.status_code == 200, answer.text
            return time.monotonic() - began

        before = sorted(ask("scout") for _ in range(30))[15]
        threads = [threading.Thread(target=ask, args=("analyst",)) for _ in range(40)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 10
        while stuck.asked < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            assert stuck.asked >= 10  # more than there are cores: with one line for all, nobody would be answered now
            during = sorted(ask("scout") for _ in range(30))[15]
            assert all(thread.is_alive() for thread in threads)
            assert during < 10 * before + 0.5
        finally:
            stuck.let_go.set()
            for thread in threads:
                thread.join(10)
    world.close()
