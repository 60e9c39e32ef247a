"""What people of MLflow load answers the same as the gateway: a real release, a real MLflow server, the real gateway."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from perennial.api.app import create_app
from perennial.api.data_plane import services_of
from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.example import Example
from perennial.domain.words import Mode
from perennial.registry.mlflow_store import MlflowStore
from tests.acceptance.world import make_world
from tests.integration.registry.conftest import MlflowServer
from tests.postgres_fixture import Database

TASK = "news_classification"
KNOWN = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)


@pytest.mark.req("K69", "K59")
def test_mlflow_and_the_gateway_answer_the_same(
    mlflow_server: MlflowServer, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    world = make_world(database, tmp_path / "deployment")
    world.ports = replace(world.ports, models=MlflowStore(mlflow_server.url))
    rows = list(NewsStream(5).articles(200, period=0.0, topics=KNOWN))
    world.ports.buffer.add_many(
        [
            Example(agent="scout", task=TASK, input_text=row.text, expected_output=row.true_topic, uncertainty=0.5)
            for row in rows
        ]
    )
    world.train_once(mode=Mode.ONLINE)
    world.promote()
    texts = [row.text for row in NewsStream(6).articles(24, period=0.0, topics=KNOWN)] + ["?!", "猫は眠る"]
    settings = world.ports.settings.model_copy(update={"database_url": SecretStr(database.app)})
    with TestClient(create_app(services_of(settings, world.ports)), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 60
        while client.get("/v1/agents").json()["agents"].get("scout", {}).get("champion") != "1.0.0":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        body = {"agent": "scout", "task": TASK, "inputs": texts, "key": "reader"}
        gateway = client.post("/v1/predict", json=body).json()["predictions"]

    # another machine: nothing but the public key and the address, and no encoder yet
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PERENNIAL_MLFLOW_URL", mlflow_server.url)
    monkeypatch.setenv("PERENNIAL_VERIFY_KEY_FILE", str(world.ports.settings.verify_key_file))
    mlflow.set_tracking_uri(mlflow_server.url)
    mlflow.set_registry_uri(mlflow_server.url)
    model = mlflow.pyfunc.load_model("models:/scout@champion")
    assert model.metadata.metadata["version"] == "1.0.0"
    answers = [answer[TASK] for answer in model.predict(texts)]
    assert [answer["output"] for answer in answers] == [answer["output"] for answer in gateway]
    assert [answer["confidence"] for answer in answers] == pytest.approx(
        [answer["confidence"] for answer in gateway], abs=1e-5
    )
    assert len({answer["output"] for answer in answers}) > 2

    import pandas

    framed = model.predict(pandas.DataFrame({"text": texts}))
    assert [answer[TASK]["output"] for answer in framed] == [answer["output"] for answer in answers]
