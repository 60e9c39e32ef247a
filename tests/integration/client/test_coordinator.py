"""The coordinator over the real store: what is kept, what it is worth, and what it says."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

import perennial.client as client
from perennial.client.shared import forget_coordinator
from perennial.errors import InvalidExample, StoreUnavailable, UnknownAgent
from perennial.ingest.admit import Admission, Admitted
from perennial.ingest.buffer import PostgresBuffer
from perennial.storage.database import Database
from tests.integration.client.conftest import record
from tests.postgres_fixture import Database as Urls


def stored(buffer: PostgresBuffer, identity: str | None) -> Any:
    assert identity is not None
    return buffer.example(UUID(identity))


@pytest.mark.req("J18", "J23", "J25", "J29")
def test_signatures_and_defaults_are_those_of_the_document() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}

    none = inspect.Parameter.empty
    assert defaults(client.initialize_online_training) == {"update_threshold": 50}
    assert defaults(client.OnTheFlyTrainingCoordinator) == {
        "update_threshold": 50, "max_buffer_size": 1000, "performance_window": 100, "rollback_threshold": 0.05
    }  # fmt: skip
    assert defaults(client.add_training_example) == {
        "agent_name": none, "task_type": none, "input_text": none, "expected_output": none, "uncertainty_score": none,
        "importance_score": 0.5, "source_url": "", "user_feedback": None, "correction_priority": 0,
    }  # fmt: skip
    feedback = ["agent_name", "task_type", "input_text", "predicted_output", "actual_output", "confidence_score"]
    assert list(defaults(client.add_prediction_feedback)) == feedback
    assert list(defaults(client.add_training_feedback)) == [*feedback[:-1], "confidence"]
    assert defaults(client.add_user_correction)["priority"] == 2
    assert list(defaults(client.add_user_correction))[3:5] == ["incorrect_output", "correct_output"]


@pytest.mark.req("J5", "J23")
def test_an_add_returns_the_id_of_a_durable_row(buffer: PostgresBuffer) -> None:
    identity = client.add_training_example("scout", "sentiment", "Rates fell.", "good", 0.7, source_url="http://n/1")
    row = stored(buffer, identity)
    assert (row.uncertainty, row.importance, row.source_url, row.priority) == (0.7, 0.5, "http://n/1", 0)
    again = client.add_training_example("scout", "sentiment", "Rates fell.", "good", 0.7)
    assert again == identity
    key = str(uuid4())
    assert client.add_training_example("scout", "sentiment", "Oil rose.", "good", 0.7, example_id=key) == key


@pytest.mark.req("J7", "J14", "J15", "J16")
def test_an_example_comes_back_unchanged(buffer: PostgresBuffer, database: Urls) -> None:
    example = client.TrainingExample(
        "scout", "sentiment", "Rates fell — in Zürich.", {"entities": [[0, 5, "X"]], "p": 0.1}, 0.123456789012, 1 / 3,
        "http://news/1", datetime(2025, 8, 1, 14, 2, 3, 456789, tzinfo=UTC), "note", 1,
    )  # fmt: skip
    coordinator = client.initialize_online_training()
    identity = coordinator.add_example(example)
    assert coordinator.get_training_example(identity) is None
    Admission(Database(database.admit)).run(
        "scout", lambda task, text, label, note: Admitted(text=text, expected_output=label, feedback=note)
    )
    assert coordinator.get_training_example(identity) == example


@pytest.mark.req("J26", "J27", "J28")
@pytest.mark.parametrize(
    ("task", "predicted", "actual", "confidence", "kept"),
    [
        ("sentiment", "good", "good", 0.40, None), ("sentiment", "good", "good", 0.39, 0.3), ("topic", "sports", "world", 0.95, 1.0),
        ("topic", {"label": "Sports "}, {"label": "sports"}, 0.95, None), ("topic", {"label": "a"}, {"label": "b"}, 0.95, 1.0),
        ("topic", " SPORTS", "sports", 0.95, None), ("unheard_of", "a", "b", 0.95, 1.0), ("quality", 0.9, 0.1, 0.95, 0.8),
        ("quality", 0.5, 0.45, 0.95, None), ("topic", "a", None, 0.39, 0.61), ("topic", "a", None, 0.41, None),
        ("quality", "0.70", "0.7", 0.95, None), ("quality", "0.9", 0.1, 0.95, 0.8), ("quality", 0.9, "0.1", 0.95, 0.8),
    ],
)  # fmt: skip
def test_feedback_is_kept_when_it_teaches(
    buffer: PostgresBuffer, task: str, predicted: Any, actual: Any, confidence: float, kept: float | None
) -> None:
    identity = client.add_prediction_feedback("scout", task, "Rates fell.", predicted, actual, confidence)
    assert (identity is not None) == (kept is not None)
    if kept is not None:
        row = stored(buffer, identity)
        assert row.importance == kept
        assert row.uncertainty == round(1 - confidence, 9)
        if actual is None:
            assert row.state == "unlabelled"


def test_the_other_name_of_feedback_has_the_other_argument(buffer: PostgresBuffer) -> None:
    assert client.add_training_feedback("scout", "topic", "Rates fell.", "sports", "world", confidence=0.9)
    with pytest.raises(InvalidExample, match="confidence_score"):
        client.add_prediction_feedback("scout", "topic", "Rates fell.", "sports", "world", 7)


@pytest.mark.req("J16", "J29", "J30", "J104")
def test_a_correction_keeps_its_words_its_tag_and_its_explanation(buffer: PostgresBuffer, database: Urls) -> None:
    coordinator = client.initialize_online_training()
    identity = client.add_user_correction("scout", "topic", "Rates fell.", "sports", "economy", source_tag="qa")
    row = stored(buffer, identity)
    assert (row.uncertainty, row.importance, row.priority, row.tag) == (1.0, 1.0, 2, "qa")
    reply = client.submit_correction("scout", "topic", "Oil rose.", "a", "b", 1, "It is about oil.")
    json.dumps(reply)
    assert (reply["immediate_update"], reply["explanation"]) == (False, "It is about oil.")
    assert coordinator.get_corrections("scout") == {"qa": {"raw": 1}, "manual": {"raw": 1}}
    assert coordinator.get_corrections("scout", "qa") == {"qa": {"raw": 1}}
    with Database(database.admit).connection() as connection:
        notes = connection.execute("SELECT user_feedback FROM perennial.originals ORDER BY added_at").fetchall()
    assert [note["user_feedback"] for note in notes] == [
        "Corrected from 'sports' to 'economy'", "Corrected from 'a' to 'b'. It is about oil."
    ]  # fmt: skip
    with pytest.raises(InvalidExample, match="correct_output"):
        client.add_user_correction("scout", "topic", "x", "a", None)


@pytest.mark.req("J8")
def test_bad_calls_raise_and_store_nothing(buffer: PostgresBuffer) -> None:
    for call in (
        lambda: client.add_training_example("nobody", "topic", "x", "a", 0.5),
        lambda: client.add_training_example("Scout", "topic", "x", "a", 0.5),
        lambda: client.add_training_example("scout", "topic", "", "a", 0.5),
        lambda: client.add_training_example("scout", "topic", "x" * 10_000_000, "a", 0.5),
        lambda: client.add_training_example("scout", "topic", "x", {1, 2}, 0.5),
        lambda: client.add_training_example("scout", "topic", "x", "a", 7.5),
        lambda: client.add_training_example("scout", "topic", "x", "a", 0.5, correction_priority=99),
    ):
        with pytest.raises(InvalidExample):
            call()
    assert buffer.counts("scout") == {}
    with pytest.raises(UnknownAgent):
        client.add_user_correction("nobody", "topic", "x", "a", "b")


@pytest.mark.req("J84")
def test_the_status_has_the_seven_keys_with_true_values(buffer: PostgresBuffer) -> None:
    client.initialize_online_training()
    for number in range(7):
        buffer.record_performance(
            agent="scout",
            model_name=f"scout-1.0.{number}",
            before=0.5,
            after=0.6,
            examples=3,
            rollback=False,
            version=str(number),
        )
    client.add_training_example("scout", "sentiment", "Rates fell.", "good", 0.7)
    status = client.get_training_status()
    assert list(status) == [
        "is_training", "buffer_sizes", "total_examples", "performance_history_size", "recent_performance", "update_threshold",
        "rollback_threshold",
    ]  # fmt: skip
    assert status["buffer_sizes"] == {"analyst": 0, "scout": 1}
    assert (status["is_training"], status["total_examples"], status["performance_history_size"]) == (False, 1, 7)
    assert [line.model_name for line in status["recent_performance"]] == [f"scout-1.0.{n}" for n in range(2, 7)]
    assert isinstance(status["recent_performance"][0], client.ModelPerformance)
    assert (status["update_threshold"], status["rollback_threshold"]) == (50, 0.05)


@pytest.mark.req("J85")
def test_before_there_is_a_coordinator_the_status_says_so(buffer: PostgresBuffer) -> None:
    assert client.get_training_coordinator() is None
    assert client.get_online_training_status() == {"status": "not_initialized"}
    client.initialize_online_training()
    assert client.get_online_training_status()["is_training"] is False


@pytest.mark.req("J18")
def test_a_second_initialisation_with_another_value_is_reported(
    buffer: PostgresBuffer, caplog: pytest.LogCaptureFixture
) -> None:
    first = client.initialize_online_training(update_threshold=20)
    assert client.initialize_online_training() is first
    assert client.initialize_online_training(update_threshold=20) is first
    assert caplog.text == ""
    assert client.initialize_online_training(update_threshold=30) is first
    assert "30 is ignored" in caplog.text
    assert buffer.due("scout").threshold == 20


@pytest.mark.req("J19", "J20", "J96", "J97", "J102")
def test_constructor_beats_environment_beats_default_and_the_agents_own_file_beats_all(
    buffer: PostgresBuffer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    buffer.sync_agents([record("scout"), record("analyst", own={"update_threshold": 35}, update_threshold=35)])
    assert client.OnTheFlyTrainingCoordinator().update_threshold == 50
    assert buffer.overrides() == {}
    monkeypatch.setenv("TRAINING_UPDATE_THRESHOLD", "9")
    monkeypatch.setenv("TRAINING_MAX_BUFFER_SIZE", "12")
    client.OnTheFlyTrainingCoordinator()
    assert buffer.overrides() == {"update_threshold": 9, "max_buffer_size": 12}
    client.OnTheFlyTrainingCoordinator(update_threshold=4)
    assert "changes from 9.0 to 4" in caplog.text
    client.OnTheFlyTrainingCoordinator()  # the environment of another process does not undo it
    assert buffer.overrides() == {"update_threshold": 4, "max_buffer_size": 12}
    for number in range(4):
        assert not buffer.due("scout").due
        client.add_training_example("scout", "topic", f"text {number}", "a", 0.5)
    assert buffer.due("scout").due
    assert buffer.due("analyst").threshold == 35
    for number in range(20):
        client.add_training_example("scout", "topic", f"more {number}", "a", 0.9)
    assert buffer.waiting()["scout"] == 12
    for wrong in (
        {"update_threshold": 0},
        {"rollback_threshold": 5},
        {"max_buffer_size": 1.5},
        {"performance_window": "x"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            client.OnTheFlyTrainingCoordinator(**wrong)  # type: ignore[arg-type]


@pytest.mark.req("J21", "J98")
def test_the_performance_window_changes_the_accuracy(buffer: PostgresBuffer) -> None:
    with buffer._database.connection() as connection:
        for number in range(10):
            connection.execute(
                "INSERT INTO perennial.outcomes (prediction_id, agent, task, version, arm, actual, correct, at) VALUES"
                " (gen_random_uuid(), 'scout', 'topic', '1.0.0', 'champion', '1', %s, now() + %s * interval '1 s')",
                (float(number < 8), number),
            )
    assert client.OnTheFlyTrainingCoordinator(performance_window=10).get_recent_accuracy("scout") == 0.8
    assert client.OnTheFlyTrainingCoordinator(performance_window=4).get_recent_accuracy("scout") == 0.5
    assert client.OnTheFlyTrainingCoordinator().get_recent_accuracy("analyst") is None


@pytest.mark.req("J76", "J106")
def test_forcing_an_update_returns_at_once_and_asks_once(
    buffer: PostgresBuffer, caplog: pytest.LogCaptureFixture
) -> None:
    client.add_training_example("scout", "topic", "Rates fell.", "a", 0.5)
    began = time.monotonic()
    assert client.force_update_agent("scout") is True
    assert client.force_update_agent("scout") is True
    assert time.monotonic() - began < 5
    assert "nothing to train" not in caplog.text
    assert client.force_update_agent("nobody") is False
    with buffer._database.connection() as connection:
        waiting = connection.execute("SELECT agent, status::text FROM perennial.jobs").fetchall()
    assert waiting == [{"agent": "scout", "status": "pending"}]


@pytest.mark.req("J83", "J109")
def test_pool_figures_are_true_and_the_pool_can_be_restarted(
    buffer: PostgresBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perennial.client.connection import connection

    client.initialize_connection_pool()
    with connection().database.connection(), connection().database.connection():
        stats = client.get_pool_stats()
    assert list(stats) == [
        "min_connections", "max_connections", "connections_in_use", "connections_available", "total_connections"
    ]  # fmt: skip
    assert (stats["connections_in_use"], stats["max_connections"], stats["connections_available"]) == (2, 10, 8)
    assert stats["total_connections"] >= 2
    monkeypatch.setenv("DB_POOL_MAX_CONNECTIONS", "3")
    client.initialize_connection_pool()
    assert client.get_pool_stats()["max_connections"] == 3


@pytest.mark.req("J5", "J82")
def test_with_the_store_away_the_caller_knows_and_a_repeat_after_it_is_back_works(
    buffer: PostgresBuffer, database: Urls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # a caller waits 10 s for a server that is away; a test need not
    monkeypatch.setattr("perennial.storage.database.Database", partial(Database, wait_seconds=1.0))
    client.add_training_example("scout", "topic", "before", "a", 0.5)
    key = str(uuid4())
    database.server.kill()
    try:
        with pytest.raises(StoreUnavailable):
            client.add_training_example("scout", "topic", "while away", "a", 0.5, example_id=key)
        forget_coordinator()
        client.OnTheFlyTrainingCoordinator(update_threshold=3)  # an agent starts although the store is away
        assert "not set yet" in caplog.text
    finally:
        database.server.start()
    assert (
        _repeated(lambda: client.add_training_example("scout", "topic", "while away", "a", 0.5, example_id=key)) == key
    )
    assert buffer.waiting()["scout"] == 2


def _repeated(call: Callable[[], str]) -> str:
    """As a caller repeats: a pool whose second is over comes back some tries later."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise


@pytest.mark.req("J1")
def test_two_processes_share_the_same_buffers(buffer: PostgresBuffer) -> None:
    code = (
        "import perennial.client as c; c.add_training_example('scout', 'topic', 'from another process', 'a', 0.5);"
        "print(c.get_training_status()['buffer_sizes']['scout'])"
    )
    client.add_training_example("scout", "topic", "from this one", "a", 0.5)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"
    assert client.get_training_status()["total_examples"] == 2


def test_bulk_adds_go_on_behind_a_refused_record(buffer: PostgresBuffer) -> None:
    rows: list[Any] = [{"agent": "scout", "task": "topic", "text": f"text {n}", "label": "a"} for n in range(20)]
    rows.insert(5, {"agent": "scout", "task": "topic", "text": ""})
    rows.append(client.TrainingExample("scout", "topic", "typed", "a", 0.5, 0.5, "", datetime.now(UTC)))
    rows.append({"agent": "nobody", "task": "topic", "text": "x", "problem": "a field of that name means nothing"})
    result = client.add_examples(iter(rows))
    assert (result.added, result.rejected) == (21, 2)
    assert result.problems[0].startswith("record 6: input_text is empty")
    assert client.add_examples(rows).duplicates == 21
    assert buffer.counters()[""]["rejected"] == 4


def test_a_file_is_imported_once_by_command_too(buffer: PostgresBuffer, tmp_path: Path) -> None:
    import typer

    from perennial.cli.buffer import register

    app = typer.Typer()
    register(app)
    file = tmp_path / "news.jsonl"
    lines = [json.dumps({"text": f"text {n}", "label": "good" if n % 2 else None}) for n in range(30)]
    lines[4] = "{"
    file.write_text("\n".join(lines))
    first = CliRunner().invoke(app, ["import", str(file), "--agent", "scout", "--task", "topic"])
    assert first.exit_code == 2
    assert "29 added" in first.output
    assert "line 5: record line 5 is not JSON" in first.output
    second = client.import_file(file, "scout", "topic")
    assert (second.added, second.duplicates, second.rejected) == (0, 29, 1)
    shown = CliRunner().invoke(app, ["buffer", "scout", "--json"])
    assert json.loads(shown.output)["tasks"] == {"topic": {"raw": 15, "unlabelled": 14}}
    table = CliRunner().invoke(app, ["buffer", "scout"])
    assert "unlabelled" in table.output
    assert "not due: 15 of 50 waiting" in table.output
    assert isinstance(CliRunner().invoke(app, ["buffer", "nobody"]).exception, UnknownAgent)
    csv = tmp_path / "more.csv"
    csv.write_text(
        "agent,task_type,input_text,expected_output,confidence\nscout,quality,Fine.,0.75,0.9\nscout,quality,Odd.,,\n"
    )
    assert client.import_file(csv).added == 2


def test_logs_never_hold_a_text(buffer: PostgresBuffer, caplog: pytest.LogCaptureFixture) -> None:
    canary = "anna.karenina@example.org"
    with caplog.at_level(logging.DEBUG):
        client.add_training_example("scout", "topic", canary, canary, 0.5)
        client.add_user_correction("scout", "topic", canary, canary, "x")
        client.add_examples([{"agent": "scout", "task": "topic", "text": canary, "uncertainty": canary}])
        with pytest.raises(InvalidExample):
            client.add_training_example("scout", "topic", canary, {canary}, 0.5)
    assert canary not in caplog.text
