"""The composed data plane over real PostgreSQL, real models and real signatures: a correction meets a canary's
caller."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from perennial.api.app import create_app
from perennial.api.data_plane import services_of
from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.example import Example
from perennial.domain.words import Mode, Reason
from perennial.flows import rollout
from perennial.rollout.machine import Plan
from perennial.serving.router import share
from tests.acceptance.world import World, make_world
from tests.postgres_fixture import Database, Server

TASK = "news_classification"
stream = NewsStream(5)


def _rows(count: int, period: float = 0.0) -> list[Any]:
    return list(stream.articles(count, period=period, topics=tuple(topic for topic in TOPICS if topic != LATE_TOPIC)))


def _until(ready: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def deployed(
    postgres_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, TestClient, Path]]:
    """One deployment for both tests: its first training is most of their time."""
    name, folder = f"t_{secrets.token_hex(6)}", tmp_path_factory.mktemp("deployed")
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template_perennial OWNER perennial_owner")  # type: ignore[arg-type]
    database = Database(postgres_server, name)
    world = make_world(database, folder)
    examples = [
        Example(agent="scout", task=TASK, input_text=row.text, expected_output=row.true_topic, uncertainty=0.5)
        for row in _rows(220)
    ]
    world.ports.buffer.add_many(examples)
    world.train_once(mode=Mode.ONLINE)  # heads alone: seconds instead of a minute
    world.promote()
    settings = world.ports.settings.model_copy(update={"database_url": SecretStr(database.app)})
    app = create_app(services_of(settings, world.ports, faults=True))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        _until(lambda: client.get("/v1/agents").json()["agents"].get("scout", {}).get("champion") == "1.0.0")
        yield world, client, folder


def _ask(client: TestClient, text: str, key: str) -> dict[str, Any]:
    answer = client.post("/v1/predict", json={"agent": "scout", "task": TASK, "inputs": [text], "key": key})
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["predictions"][0])


@pytest.mark.req("K39", "K40", "J33", "J49", "J91", "D7")
def test_from_a_correction_to_a_canary_to_full_and_back(deployed: tuple[World, TestClient, Path]) -> None:
    world, client, _ = deployed
    ports = world.ports
    wrong = next(
        (row, answer)
        for row in _rows(400, period=0.6)
        if (answer := _ask(client, row.text, "desk"))["output"] != row.true_topic
    )
    row, answer = wrong
    body = {
        "agent_name": "scout", "task_type": TASK, "input_text": row.text, "incorrect_output": answer["output"],
        "correct_output": row.true_topic, "priority": 2,
    }  # fmt: skip
    assert client.post("/v1/corrections", json=body).json()["added"] == 1
    verdict, settled = world.train_once(reason=Reason.CORRECTION)
    assert verdict["action"] == "pass", verdict["summary"]
    ref = rollout.verify(ports, "scout", "rollout-of-the-correction")
    assert ref is not None
    assert rollout.shadow(ports, ref)["action"] == "promote"
    assert rollout.begin_step(ports, ref, 0)["action"] == "hold"
    vip = next(key for key in (f"vip-{number}" for number in range(10_000)) if share(key, "scout") < 0.05)
    other = next(key for key in (f"vip-{number}" for number in range(10_000)) if share(key, "scout") > 0.6)
    told = _until(lambda: (found := _ask(client, row.text, vip))["arm"] == "candidate" and found)
    assert (told["version"], told["output"]) == (settled["version"], row.true_topic)
    assert _ask(client, row.text, other)["version"] == "1.0.0"
    for index in range(3):
        rollout.begin_step(ports, ref, index)
        _until(lambda at=index: client.get("/v1/agents").json()["agents"]["scout"]["weight"] == (0.05, 0.25, 0.5)[at])
        assert _traffic_until_verdict(world, client, ref, index) == "promote"
    rollout.full(ports, ref)
    _until(lambda: _ask(client, row.text, other)["version"] == settled["version"])
    back = client.post("/v1/rollback", json={"agent": "scout", "actor": "ana", "reason": "a drill"})
    assert back.json()["to"] == "1.0.0"
    _until(lambda: _ask(client, row.text, other)["version"] == "1.0.0")
    assert ports.targets["folder"].current("scout") == "1.0.0"


def _traffic_until_verdict(world: World, client: TestClient, ref: dict[str, Any], index: int) -> str:
    """Readers ask and report the truth until the step has its verdict."""
    rows, number = _rows(200), 0
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        for _ in range(20):
            number += 1
            row = rows[number % len(rows)]
            answer = _ask(client, row.text, f"reader-{index}-{number}")
            client.post("/v1/outcomes", json={"prediction_id": answer["prediction_id"], "actual": row.true_topic})
        seen = rollout.look(world.ports, ref, index)
        if seen["action"] != "hold":
            return str(seen["action"])
    return "hold"


@pytest.mark.req("J49", "K59")
def test_a_bundle_whose_bytes_changed_is_refused_by_the_gateway_itself(
    deployed: tuple[World, TestClient, Path],
) -> None:
    world, client, folder = deployed
    champion = world.ports.ledger.champion("scout")
    examples = [
        Example(
            agent="scout", task=TASK, input_text=row.text, expected_output=row.true_topic, uncertainty=0.5, priority=2
        )
        for row in _rows(12, period=0.3)
    ]  # fmt: skip
    world.ports.buffer.add_many(examples)
    _, settled = world.train_once(mode=Mode.ONLINE)
    version = settled["version"]
    heads = [path for path in (folder / "models").rglob("head.safetensors") if version in str(path)]
    assert heads
    for path in heads:
        path.chmod(0o644)
        spoilt = bytearray(path.read_bytes())
        spoilt[-1] ^= 1
        path.write_bytes(bytes(spoilt))
    world.ports.rollouts.open(agent="scout", version=version, plan=Plan(), run_id="past the task that verifies")
    refusal = _until(lambda: world.ports.rollouts.gateway_error("scout", version))
    assert version in refusal
    assert {_ask(client, "any text", f"k{number}")["version"] for number in range(50)} == {champion}
    assert client.get("/healthz").json()["status"] == "degraded"
