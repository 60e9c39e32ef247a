"""The two sensors that users put into their own DAGs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk.module_loading import import_string

from perennial.bridge import reports, sensors
from perennial.bridge.sensors import (
    BufferReadySensor,
    BufferReadyTrigger,
    ModelPromotedSensor,
    ModelPromotedTrigger,
    newest_promotion,
    promotions,
)  # fmt: skip
from perennial.domain.words import Reason

NOW = datetime(2026, 11, 21, 6, tzinfo=UTC)


def move(version: str | None, minutes: int, alias: str = "champion") -> Any:
    return SimpleNamespace(alias=alias, version=version, moved_at=NOW + timedelta(minutes=minutes))


@pytest.mark.req("D5")
def test_a_promotion_counts_once_and_names_what_it_replaced() -> None:
    moves = [move("1.0.2", 9, "candidate"), move("1.0.1", 5), move(None, 4), move("1.0.0", 0)]
    after = {minutes: newest_promotion("scout", moves, NOW + timedelta(minutes=minutes)) for minutes in (-1, 4, 5, 8)}
    found = {"agent": "scout", "version": "1.0.1", "previous": "1.0.0"}
    assert after == {-1: found, 4: found, 5: None, 8: None}
    assert newest_promotion("scout", moves[3:], NOW - timedelta(1)) == {
        "agent": "scout", "version": "1.0.0", "previous": "",
    }  # fmt: skip
    assert newest_promotion("scout", [], NOW) is None


@pytest.mark.req("D5")
def test_a_promotion_after_the_last_look_of_a_run_is_seen_by_the_next_one() -> None:
    from pathlib import Path

    source = (Path(__file__).parents[3] / "dags" / "reports.py").read_text(encoding="utf-8")
    assert "since=\"{{ prev_start_date_success or '' }}\"" in source  # Airflow's words for when the run before began
    started, ended = NOW, NOW + timedelta(minutes=7)
    moves = [move("1.0.1", 6), move("1.0.0", 0)]  # made between its look, in minute 5, and its end
    assert newest_promotion("scout", moves, ended) is None
    assert newest_promotion("scout", moves, started) is not None


@pytest.mark.req("D5", "J72")
def test_sensors_hold_no_worker_and_survive_a_restart_of_the_triggerer(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = SimpleNamespace(
        fleet=lambda: SimpleNamespace(names=("scout", "critic")),
        ledger=SimpleNamespace(
            moves=lambda agent: [move("1.0.1", 5)] if agent == "scout" else [],
            promoted_since=lambda time: frozenset({"scout"}),
        ),
    )
    monkeypatch.setattr("perennial.bridge.hooks.task_ports", lambda **_: ports)
    due = [("critic", Reason.CORRECTION), ("scout", Reason.THRESHOLD)]
    monkeypatch.setattr("perennial.flows.due.due_agents", lambda ports: due)

    def fire(sensor: Any) -> Any:
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({})
        assert deferred.value.timeout == timedelta(seconds=30)
        path, arguments = deferred.value.trigger.serialize()

        async def first() -> Any:
            async for event in import_string(path)(**arguments).run():
                return sensor.execute_complete({}, event.payload)

        return asyncio.run(first())

    common = {"task_id": "wait", "timeout": 30, "seconds": 0.01}
    assert fire(BufferReadySensor(agents=["scout"], **common)) == [{"agent": "scout", "reason": "threshold"}]
    assert [one["agent"] for one in fire(BufferReadySensor(**common))] == ["critic", "scout"]
    assert fire(ModelPromotedSensor(since=NOW.isoformat(), **common)) == [
        {"agent": "scout", "version": "1.0.1", "previous": ""}
    ]


def test_a_look_at_many_agents_asks_only_for_those_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    moved: set[str] = set()

    def moves(agent: str) -> list[Any]:
        asked.append(agent)
        return [move("1.0.1", 5)]

    names = tuple(f"agent_{number}" for number in range(100))
    ports = SimpleNamespace(
        fleet=lambda: SimpleNamespace(names=names),
        ledger=SimpleNamespace(moves=moves, promoted_since=lambda time: frozenset(moved)),
    )
    monkeypatch.setattr("perennial.bridge.hooks.task_ports", lambda **_: ports)
    assert promotions([], NOW) == []
    assert asked == []
    moved.update({"agent_7", "stranger"})
    assert [one["agent"] for one in promotions([], NOW)] == ["agent_7"]
    assert asked == ["agent_7"]
    assert promotions(["agent_8"], NOW) == []


def test_an_outage_is_waited_through(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [RuntimeError("away"), [], [{"agent": "scout", "reason": "drift"}]]

    def ready(agents: list[str]) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(sensors, "ready_buffers", ready)

    async def gather() -> list[Any]:
        return [event.payload async for event in BufferReadyTrigger([], 0.0).run()]

    assert asyncio.run(gather()) == [[{"agent": "scout", "reason": "drift"}]]


def test_a_moment_without_an_offset_is_refused_by_the_comparison() -> None:
    trigger = ModelPromotedTrigger(["scout"], 1.0, "2026-11-21T06:00:00")
    with pytest.raises(TypeError):
        newest_promotion("scout", [move("1.0.1", 5)], datetime.fromisoformat(trigger.since))


@pytest.mark.parametrize(
    ("since", "handed"),
    [
        ("2026-11-20", "2026-11-20T00:00:00+00:00"),  # {{ ds }}
        ("2026-11-20T06:00:00", "2026-11-20T06:00:00+00:00"),
        (" 2026-11-20 06:00:00+01:00 ", "2026-11-20T06:00:00+01:00"),  # a time as a template writes it
        ("20261120T060000", "2026-11-20T06:00:00+00:00"),  # {{ ts_nodash }}
        (NOW, "2026-11-21T06:00:00+00:00"),  # native templates
        (NOW.date(), "2026-11-21T00:00:00+00:00"),
    ],
    ids=str,
)
def test_a_moment_without_a_zone_is_in_utc(since: Any, handed: str) -> None:
    trigger = ModelPromotedSensor(task_id="wait", since=since).trigger()
    assert (trigger.since, trigger.serialize()[1]["since"]) == (handed, handed)


@pytest.mark.parametrize("since", ["", "  ", None])
def test_no_moment_is_that_of_the_start(since: Any) -> None:
    trigger = ModelPromotedSensor(task_id="wait", since=since).trigger()
    assert abs(datetime.fromisoformat(trigger.since) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("since", ["yesterday", "None", "2026-13-01", 7])
def test_what_is_no_moment_fails_the_task_at_once(since: Any) -> None:
    with pytest.raises(AirflowFailException, match=r"since is not a time.*2026-11-21T06:00"):
        ModelPromotedSensor(task_id="wait", since=since).execute({})


def test_a_trigger_that_was_handed_a_moment_without_a_zone_still_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[datetime] = []
    monkeypatch.setattr(sensors, "promotions", lambda agents, since: asked.append(since) or [])
    ModelPromotedTrigger(["scout"], 1.0, "2026-11-21T06:00:00").ask()  # deferred before sensors minded the zone
    assert asked == [NOW]


@pytest.mark.parametrize("sensor", [BufferReadySensor, ModelPromotedSensor])
def test_one_agent_is_not_taken_for_its_letters(sensor: Any) -> None:
    assert sensor(task_id="wait", agents="scout").trigger().agents == ["scout"]
    assert sensor(task_id="wait", agents=("scout", "desk")).trigger().agents == ["scout", "desk"]
    templated = sensor(task_id="wait", agents="{{ params.agent }}")
    templated.render_template_fields({"params": {"agent": "desk"}})
    assert templated.trigger().agents == ["desk"]


@pytest.mark.req("D11")
def test_pages_say_what_waits_and_what_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    update = SimpleNamespace(
        update_timestamp=NOW, model_name="scout-1.0.1", accuracy_before=0.8, accuracy_after=None, examples_trained=36,
        rollback_triggered=True,
    )  # fmt: skip
    buffer = SimpleNamespace(
        counts=lambda agent: {("topic", "ready"): 51, ("topic", "trained"): 7},
        corrections_by_tag=lambda agent: {"qa": {"trained": 2}},
        performance=lambda agent, last: [update],
    )
    ports = SimpleNamespace(settings=SimpleNamespace(home=tmp_path), buffer=buffer)
    monkeypatch.setattr(reports, "task_ports", lambda: ports)
    page = (tmp_path / "reports" / "buffers.md").__class__(
        reports.write_buffer_page([{"agent": "scout", "reason": "threshold"}])
    )
    assert "| topic | 51 | 7 |" in page.read_text()
    assert "corrections tagged qa: 2 trained" in page.read_text()
    path = reports.write_promotion_page([{"agent": "scout", "version": "1.0.1", "previous": "1.0.0"}])
    text = type(page)(path).read_text()
    assert "took the place of 1.0.0" in text
    assert "| scout-1.0.1 | 80.0% | - | 36 | yes |" in text
    assert [file.name for file in sorted((tmp_path / "reports").iterdir())] == ["buffers.md", "scout.md"]
