"""The gateway over a real PostgreSQL: it follows the serving row within a blink, and outlives the server."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
from starlette.testclient import TestClient

from perennial.api.app import create_app
from perennial.api.intake import Intake
from perennial.api.reports import Reports
from perennial.api.services import Services
from perennial.domain.words import State
from perennial.ingest.door import Door
from perennial.serving.feedback import Outcomes
from tests.integration.serving.conftest import PLAN, Deployment
from tests.postgres_fixture import Server
from tests.unit.serving.world import Fixed


def _until(ready: Callable[[], object], seconds: float = 30.0) -> float:
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - began


def _client(deployment: Deployment) -> TestClient:
    services = Services(
        gateway=deployment.gateway, metrics=deployment.metrics, roll_back=lambda agent, **_: {"agent": agent},
        outcomes=Outcomes(deployment.store, deployment.recorder, deployment.buffer, deployment.metrics),
        intake=Intake(deployment.buffer, Door(deployment.buffer)),
        reports=Reports(deployment.rollouts.report, deployment.recorder.find, key=b"test"),
    )  # fmt: skip
    return TestClient(create_app(services), base_url="http://127.0.0.1")


@pytest.mark.req("J33", "K39")
def test_a_change_of_the_serving_row_arrives_by_notification(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perennial.serving.gateway.POLL_SECONDS", 60.0)
    deployment.champion("1.0.0")
    _until(lambda: deployment.served() == "1.0.0")
    for number in range(1, 8):
        deployment.champion(f"1.0.{number}")
        assert _until(lambda wanted=f"1.0.{number}": deployment.served() == wanted) < 20  # polls are a minute apart
    _until(lambda: deployment.rollouts.gateways("scout")[0].champion == "1.0.7")
    (beat,) = deployment.rollouts.gateways("scout")
    assert (beat.instance, beat.error) == ("host:8600", None)


@pytest.mark.req("K37", "K40", "J27")
def test_traffic_outcomes_and_unsure_answers_reach_the_tables(deployment: Deployment) -> None:
    deployment.champion("1.0.0", topic=Fixed("sports", 0.9), quality=Fixed(0.5, 0.2))
    _until(lambda: deployment.served() == "1.0.0")
    with _client(deployment) as client:
        for number in range(40):
            body = {"agent": "scout", "task": "news_topic", "inputs": [f"text {number}"], "key": f"k{number}"}
            answer = client.post("/v1/predict", json=body).json()["predictions"][0]
            told = client.post("/v1/outcomes", json={"prediction_id": answer["prediction_id"], "actual": "world"})
            assert told.json()["added"] == 1
        for _ in range(3):
            client.post("/v1/predict", json={"agent": "scout", "task": "quality", "inputs": ["an unsure one"]})
    assert deployment.recorder.flush()
    stats = deployment.rollouts.stats("scout", "1.0.0", since=None)
    assert (stats.answers, stats.errors, stats.outcomes, stats.correct_sum) == (43, 0, 40, 0.0)
    assert stats.p50_ms is not None
    assert len(deployment.rollouts.recent_inputs("scout", 500)) == 43
    counts = deployment.buffer.counts("scout")
    assert counts.get(("topic", State.RAW.value)) == 40  # every wrong answer, labelled
    with psycopg.connect(deployment.database.app) as connection:
        rows = connection.execute(
            "SELECT state::text, source, count(*) FROM perennial.examples WHERE task = 'quality' GROUP BY 1, 2"
        ).fetchall()
    assert rows == [("unlabelled", "gateway", 1)]  # one input, once


@pytest.mark.req("J27", "D10")
def test_an_outcome_that_is_told_anew_takes_its_earlier_label_back(deployment: Deployment) -> None:
    deployment.champion("1.0.0", topic=Fixed("world"), quality=Fixed(0.5, 0.2))
    _until(lambda: deployment.served() == "1.0.0")
    with _client(deployment) as client:
        for task, values in (("topic", ("sports", "culture", "sports")), ("quality", (1, 0.0, 1.0))):
            body = {"agent": "scout", "task": task, "inputs": ["hello there"]}
            answer = client.post("/v1/predict", json=body).json()["predictions"][0]
            for actual in values:
                told = client.post("/v1/outcomes", json={"prediction_id": answer["prediction_id"], "actual": actual})
                assert told.json()["added"] == 1
    with psycopg.connect(deployment.database.app) as connection:
        rows = connection.execute(
            "SELECT task, state::text, expected_output FROM perennial.examples WHERE label_digest <> '' ORDER BY id"
        ).fetchall()
    assert rows == [
        ("topic", "raw", "sports"), ("topic", "superseded", "culture"),
        ("quality", "superseded", 1), ("quality", "superseded", 0.0), ("quality", "raw", 1.0),
    ]  # fmt: skip


@pytest.mark.req("J49")
def test_a_refusal_is_seen_by_the_rollout(deployment: Deployment) -> None:
    deployment.champion("1.0.0")
    deployment.shelf.tampered.add("1.0.1")
    deployment.rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="bad")
    _until(lambda: deployment.rollouts.gateway_error("scout", "1.0.1"))
    assert deployment.served() == "1.0.0"


@pytest.mark.req("K40", "J5")
def test_postgresql_killed_under_load_fails_no_request_and_loses_no_recording(
    deployment: Deployment, postgres_server: Server
) -> None:
    deployment.champion("1.0.0")
    deployment.champion("1.0.1")
    _until(lambda: deployment.served() == "1.0.1")
    stop, failed, asked = threading.Event(), [], Counter()

    def ask(number: int) -> None:
        while not stop.is_set():
            try:
                deployment.gateway.predict("scout", "topic", [f"text {number} {asked[number]}"])
                asked[number] += 1
            except Exception as error:  # noqa: BLE001 - any failure at all is what the test looks for
                failed.append(repr(error))
            time.sleep(0.004)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        postgres_server.kill()
        _until(lambda: not deployment.gateway.store_up)
        began = time.monotonic()
        assert deployment.gateway.roll_back_here("scout", actor="ana", reason="bad") == "1.0.0"
        assert time.monotonic() - began < 1.0
        assert deployment.gateway.predict("scout", "topic", ["after"])[0].version == "1.0.0"
        time.sleep(0.5)
    finally:
        postgres_server.start()
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    _until(lambda: deployment.gateway.store_up, 60)
    assert deployment.recorder.flush(60)
    with psycopg.connect(deployment.database.app) as connection:
        row = connection.execute("SELECT count(*) FROM perennial.predictions").fetchone()
    assert row == (sum(asked.values()) + 1,)


@pytest.mark.req("J5", "J111")
def test_postgresql_killed_under_ingest_loses_nothing_that_was_acknowledged(
    deployment: Deployment, postgres_server: Server
) -> None:
    acknowledged: list[str] = []
    refused = Counter()
    stop = threading.Event()

    def send(worker: int, client: TestClient) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            rows = [
                {"agent_name": "scout", "task_type": "topic", "input_text": f"w{worker} n{number} i{index}",
                 "expected_output": "world", "uncertainty_score": 0.5}
                for index in range(20)
            ]  # fmt: skip
            answer = client.post("/v1/examples", json=rows)
            if answer.status_code == 200:
                acknowledged.extend(item["example_id"] for item in answer.json()["results"])
            else:
                refused[answer.status_code] += 1

    with _client(deployment) as client:
        threads = [threading.Thread(target=send, args=(worker, client)) for worker in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                before = len(acknowledged)
                _until(lambda before=before: len(acknowledged) >= before + 200, 60)
                postgres_server.kill()
                postgres_server.start()
            before = len(acknowledged)
            _until(lambda: len(acknowledged) >= before + 200, 60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert len(acknowledged) >= 600
    assert set(refused) <= {503}
    with psycopg.connect(deployment.database.app) as connection:
        stored = {str(row[0]) for row in connection.execute("SELECT example_id FROM perennial.examples").fetchall()}
    assert len(set(acknowledged)) == len(acknowledged)
    assert set(acknowledged) <= stored
