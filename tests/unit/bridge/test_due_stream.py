"""The shared stream of due agents, with a look and a bell made of lists."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from perennial.bridge import triggers
from perennial.bridge.announcements import Announcer, Due
from perennial.bridge.triggers import CanaryTrigger, DueTrigger, due_events
from perennial.errors import StoreUnavailable


def due(agent: str, reason: str = "threshold") -> Due:
    return Due(agent=agent, reason=reason)


class Bell:
    """Rings when told so; remembers how long it was asked to wait."""

    def __init__(self, rings: Sequence[bool] = ()) -> None:
        self.rings, self.waits, self.closed = list(rings), [], False  # type: ignore[var-annotated]

    async def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        await asyncio.sleep(0)
        return self.rings.pop(0) if self.rings else False

    async def close(self) -> None:
        self.closed = True


def collect(looks: list[Any], bell: Bell | None = None, announcer: Announcer | None = None) -> list[Due]:
    """What the stream yields until the looks run out."""
    bell = bell or Bell()

    class Over(BaseException):
        pass

    async def look() -> list[Due]:
        if not looks:
            raise Over
        answer = looks.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    async def gather() -> list[Due]:
        found: list[Due] = []
        try:
            async for one in due_events(look, bell, announcer=announcer or Announcer(), coalesce_seconds=0):
                found.append(one)
        except Over:
            return found
        return found

    return asyncio.run(gather())


@pytest.mark.req("J72", "D5")
def test_an_agent_is_said_once_while_it_stays_due() -> None:
    assert collect([[due("scout")]] * 5) == [due("scout")]


@pytest.mark.req("J33")
def test_it_is_said_again_after_it_was_not_due() -> None:
    assert collect([[due("scout")], [], [due("scout")]]) == [due("scout")] * 2


def test_a_lost_event_is_repeated_after_a_while() -> None:
    assert collect([[due("scout")]] * 4, announcer=Announcer(first_seconds=0.0)) == [due("scout")] * 4


def test_an_agent_whose_dag_is_paused_is_repeated_ever_more_rarely() -> None:
    announcer = Announcer()
    said = [second for second in range(3600) if announcer.look([due("scout")], float(second))]
    assert said[:6] == [0, 20, 60, 140, 300, 600]
    assert len(said) == 15


def test_agents_do_not_hide_each_other() -> None:
    looks = [[due("scout")], [due("analyst", "correction"), due("scout")], [due("scout")]]
    assert collect(looks) == [due("scout"), due("analyst", "correction")]


@pytest.mark.req("J82")
def test_a_store_that_is_away_ends_nothing() -> None:
    looks: list[Any] = [StoreUnavailable("away"), RuntimeError("anything"), [due("scout")]]
    assert collect(looks) == [due("scout")]


def test_the_poll_goes_on_without_any_notification() -> None:
    bell = Bell()
    collect([[], [], []], bell)
    assert bell.waits == [2.0] * 3
    assert bell.closed


def test_only_its_own_agent_reaches_a_watcher() -> None:
    async def shared() -> Any:
        for agent in ("analyst", "scout", "critic", "scout"):
            yield due(agent).as_dict()

    async def gather() -> list[Any]:
        return [event.payload async for event in DueTrigger(agent="scout").filter_shared_stream(shared())]

    assert asyncio.run(gather()) == [{"agent": "scout", "reason": "threshold"}] * 2


def test_all_watchers_share_one_stream_and_survive_their_serialisation() -> None:
    from airflow.sdk.module_loading import import_string

    first, second = DueTrigger(agent="scout"), DueTrigger(agent="analyst")
    assert first.shared_stream_key() == second.shared_stream_key()
    path, arguments = second.serialize()
    assert import_string(path)(**arguments).agent == "analyst"
    path, arguments = CanaryTrigger(ref={"rollout_id": 7}, index=2).serialize()
    assert import_string(path)(**arguments).ref == {"rollout_id": 7}


@pytest.mark.req("D5", "J72")
def test_a_hundred_agents_listen_once_and_ask_once_per_look(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.triggers.shared_stream import SharedStreamManager

    bells: list[SlowBell] = []
    looks: list[int] = []

    class SlowBell(Bell):
        def __init__(self, *_: object) -> None:
            super().__init__()
            bells.append(self)

        async def wait(self, seconds: float) -> bool:
            await asyncio.sleep(0.05)
            return await super().wait(seconds)

    names = [f"agent_{number}" for number in range(100)]

    def ask() -> list[Due]:
        looks.append(1)
        return [due(name) for name in names] if len(looks) == 3 else []

    monkeypatch.setattr(triggers, "PostgresBell", SlowBell)
    monkeypatch.setattr(triggers, "_ask", ask)

    async def first(manager: SharedStreamManager, number: int) -> Any:
        trigger = DueTrigger(agent=names[number])
        shared = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
        async for event in trigger.filter_shared_stream(shared):
            await manager.unsubscribe(number, trigger.shared_stream_key())
            return event.payload["agent"]

    async def play() -> list[Any]:
        manager = SharedStreamManager()
        return await asyncio.wait_for(asyncio.gather(*(first(manager, number) for number in range(100))), 20)

    assert asyncio.run(play()) == names
    assert len(bells) == 1
    assert bells[0].closed
    assert len(looks) - len(bells[0].waits) in {0, 1}  # one look per wait, not one per agent


@pytest.mark.parametrize("action", ["promote", "rollback", "superseded"])
def test_a_canary_waits_through_holds_and_outages(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [
        {"action": "hold", "reason": "3 of 20"}, StoreUnavailable("away"), {"action": action, "reason": "seen"},
    ]  # fmt: skip

    def look(self: CanaryTrigger) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(CanaryTrigger, "_look", look)

    async def gather() -> list[Any]:
        return [event.payload async for event in CanaryTrigger(ref={}, index=0, seconds=0.0).run()]

    assert asyncio.run(gather()) == [{"action": action, "reason": "seen"}]
    assert answers == []
