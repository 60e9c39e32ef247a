"""The documentation's own code runs unmodified against the shared buffer."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Optional
from unittest.mock import sentinel
from urllib.parse import urlsplit

import common.database
import pytest
import training_system

from perennial.ingest.buffer import PostgresBuffer
from tests.integration.client import seed_blocks
from tests.postgres_fixture import Database as Urls


def run(block: str, **names: Any) -> dict[str, Any]:
    """Run a block with the predecessor's imports in reach; returns its names."""
    known = {name: getattr(training_system, name) for name in training_system.__all__}
    scope: dict[str, Any] = {
        **known, "execute_query": common.database.execute_query, "get_db_connection": common.database.get_db_connection,
        "json": json, "Any": Any, "Optional": Optional, "datetime": datetime, "dataclass": dataclasses.dataclass,
        "PredictionResult": object, **names,
    }  # fmt: skip
    exec(block, scope)
    return scope


@pytest.mark.req("J1", "J19", "J20", "J102")
def test_runtime_configuration(buffer: PostgresBuffer) -> None:
    coordinator = run(seed_blocks.RUNTIME_CONFIGURATION)["coordinator"]
    assert (coordinator.update_threshold, coordinator.max_buffer_size, coordinator.performance_window) == (
        100,
        2000,
        200,
    )
    assert coordinator.rollback_threshold == 0.03
    assert buffer.due("scout").threshold == 100


@pytest.mark.req("J25", "J26", "J103")
@pytest.mark.parametrize(("confidence", "kept"), [(0.3, 1), (0.4, 0), (0.65, 0), (0.9, 0)])
def test_agent_integration(buffer: PostgresBuffer, confidence: float, kept: int) -> None:
    method = run(seed_blocks.AGENT_INTEGRATION)["make_prediction"]
    result = SimpleNamespace(output="good", confidence=confidence)
    agent = SimpleNamespace(
        model=SimpleNamespace(predict=lambda text: result), agent_name="scout", task_type="sentiment"
    )
    assert method(agent, "Rates fell.") is result
    assert buffer.counts("scout") == ({("sentiment", "unlabelled"): 1} if kept else {})


@pytest.mark.req("J29", "J33", "J104")
def test_user_interface_integration(buffer: PostgresBuffer) -> None:
    run(seed_blocks.USER_INTERFACE)["submit_correction"]("scout", "sentiment", "Rates fell.", "bad", "good")
    assert buffer.due("scout").corrections == 1


@pytest.mark.req("J84", "J85", "J105")
def test_monitoring_dashboard(buffer: PostgresBuffer, capsys: pytest.CaptureFixture[str]) -> None:
    training_system.initialize_online_training()
    training_system.add_training_example("scout", "sentiment", "Rates fell.", "good", 0.7)
    run(seed_blocks.DASHBOARD)
    out = capsys.readouterr().out
    assert (
        out == "Training Active: False\nTotal Examples: 1\nBuffer Sizes:\n  analyst: 0 examples\n  scout: 1 examples\n"
    )


@pytest.mark.req("J106")
def test_training_not_starting(
    buffer: PostgresBuffer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(seed_blocks.NOT_STARTING, coordinator=training_system.initialize_online_training())
    assert capsys.readouterr().out == "Training active: False\n"
    assert [agent for agent, _reason in buffer.due_agents()] == ["scout"]
    assert "nothing to train" in caplog.text


@pytest.mark.req("J83", "J109")
def test_connection_issues(buffer: PostgresBuffer, capsys: pytest.CaptureFixture[str]) -> None:
    run(seed_blocks.CONNECTION_ISSUES)
    assert capsys.readouterr().out == "Active connections: 0\n"


@pytest.mark.req("J78", "J79")
def test_persistence(buffer: PostgresBuffer) -> None:
    example = training_system.TrainingExample(
        "scout", "sentiment", "Rates fell.", {"label": "good"}, 0.7, 0.5, "http://news/1", datetime.now(UTC), "note", 1
    )
    run(seed_blocks.PERSIST)["_persist_training_example"](None, example)
    assert buffer.counts("scout") == {("sentiment", "raw"): 1}


@pytest.mark.req("J80")
def test_connection_pooling(buffer: PostgresBuffer) -> None:
    with run(seed_blocks.CONNECTION)["_get_db_connection"](None) as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
        assert common.database.get_pool_stats()["connections_in_use"] == 1
    assert common.database.execute_query("SELECT %s::int AS n", (7,)) == [{"n": 7}]


@pytest.mark.req("J24", "J39")
def test_the_selection_of_the_document_sorts_these_examples() -> None:
    examples = [
        training_system.TrainingExample("a", "t", str(n), "x", n / 10, 0.5, "", datetime.now(UTC), None, n % 2)
        for n in range(4)
    ]
    run(seed_blocks.SELECTION, training_examples=examples)
    assert [example.input_text for example in examples] == ["3", "1", "2", "0"]


@pytest.mark.req("J7", "J46")
@pytest.mark.parametrize(
    ("block", "name"),
    [(seed_blocks.EXAMPLE_FIELDS, "TrainingExample"), (seed_blocks.PERFORMANCE_FIELDS, "ModelPerformance")],
)
def test_the_records_have_the_fields_of_the_document_in_its_order(block: str, name: str) -> None:
    def shape(record: Any) -> list[tuple[str, Any]]:
        return [
            (field.name, sentinel.none if field.default is dataclasses.MISSING else field.default)
            for field in dataclasses.fields(record)
        ]

    assert shape(run(block)[name]) == shape(getattr(training_system, name))


@pytest.mark.req("J96", "J97", "J98", "J99")
def test_the_environment_of_the_document_is_read(buffer: PostgresBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in seed_blocks.ENVIRONMENT.splitlines():
        if not line.startswith("#"):
            name, _, value = line.partition("=")
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRAINING_UPDATE_THRESHOLD", "7")
    coordinator = training_system.initialize_online_training()
    assert buffer.due("scout").threshold == 7
    assert coordinator.rollback_threshold == 0.05


@pytest.mark.req("J100")
def test_postgres_variables_are_honoured_and_the_password_is_not_logged(
    buffer: PostgresBuffer, database: Urls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = urlsplit(database.app)
    monkeypatch.delenv("PERENNIAL_DATABASE_URL")
    for name, value in (
        ("HOST", url.hostname), ("PORT", str(url.port)), ("DB", database.name), ("USER", url.username), ("PASSWORD", url.password)
    ):  # fmt: skip
        monkeypatch.setenv(f"POSTGRES_{name}", str(value))
    common.database.initialize_connection_pool()
    training_system.add_training_example("scout", "sentiment", "Rates fell.", "good", 0.7)
    assert buffer.waiting()["scout"] == 1
    assert str(url.password) not in caplog.text
    assert str(url.password) not in repr(training_system.get_training_coordinator())


def test_the_managers_replies_are_those_of_the_predecessor(buffer: PostgresBuffer) -> None:
    reply = training_system.submit_correction("scout", "sentiment", "Rates fell.", "bad", "good", 2, "Look again.")
    assert {**reply, "timestamp": "", "example_id": ""} == {
        "correction_submitted": True, "agent_name": "scout", "task_type": "sentiment", "incorrect_output": "bad",
        "correct_output": "good", "priority": 2, "explanation": "Look again.", "immediate_update": True, "timestamp": "",
        "example_id": "",
    }  # fmt: skip
    refused = training_system.submit_correction("nobody", "sentiment", "x", "bad", "good")
    assert refused["correction_submitted"] is False
    assert "nobody" in refused["error"]
    training_system.collect_prediction("scout", "topic", "Oil rose.", "sports", 0.2)
    assert buffer.counts("scout")["topic", "unlabelled"] == 1  # the prediction is never its own label
    assert training_system.force_update("scout")["update_triggered"] is True
    assert training_system.force_update("nobody")["update_triggered"] is False
    dashboard = training_system.get_training_dashboard()
    assert set(dashboard) == {"system_status", "agent_status", "model_performance", "training_configuration"}
    assert dashboard["agent_status"]["scout"]["supported_tasks"] == ["quality", "sentiment", "topic"]
    assert dashboard["agent_status"]["scout"]["update_ready"] is True
    imported = training_system.get_system_training_manager().bulk_correction_import(
        [{"agent_name": "scout"}, {"agent_name": "scout", "task_type": "topic", "input_text": "x", "incorrect_output": "a",
                                   "correct_output": "b"}]
    )  # fmt: skip
    assert (imported["successfully_imported"], imported["failed_imports"]) == (1, 1)
