"""What runs in the triggerer: the shared stream of due agents, and the look at a canary step."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from perennial.bridge.announcements import Announcer, Due

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

CHANNEL = "perennial_due"  # payload: the agent's name
POLL_SECONDS = 2.0
COALESCE_SECONDS = 0.2  # ten corrections of one moment make one run


class Bell(Protocol):
    """Something that may ring before the next look is due anyway."""

    async def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds``; True when it rang."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class PostgresBell:
    """Rings on NOTIFY of one channel. Without a server it is silent and tries to listen again at every wait, so polling goes on."""

    def __init__(self, url: Callable[[], str], channel: str = CHANNEL) -> None:
        self._url, self._channel = url, channel
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._deaf = False

    async def wait(self, seconds: float) -> bool:
        """Wait for a notification; an error costs the rest of the time, never the stream."""
        import psycopg

        began = time.monotonic()
        try:
            connection = self._connection or await self._listen()
            async for _ in connection.notifies(timeout=seconds, stop_after=1):
                return True
            return False
        except (psycopg.Error, OSError) as error:
            if not self._deaf:
                logger.warning(
                    "cannot listen on %s (%s); polling until it answers", self._channel, type(error).__name__
                )
            self._deaf = True
            await self.close()
        await asyncio.sleep(max(seconds - (time.monotonic() - began), 0.0))
        return False

    async def _listen(self) -> psycopg.AsyncConnection[Any]:
        import psycopg
        from psycopg import sql

        url = await asyncio.to_thread(self._url)
        connection = await psycopg.AsyncConnection.connect(
            url, autocommit=True, connect_timeout=5, application_name="perennial listener"
        )
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._connection = connection
        if self._deaf:
            logger.info("listening on %s again", self._channel)
        self._deaf = False
        return connection

    async def close(self) -> None:
        """Close the connection, if any; the next wait opens one."""
        import psycopg

        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error, OSError):  # it is being thrown away
                await connection.close()


async def due_events(
    look: Callable[[], Awaitable[Sequence[Due]]],
    bell: Bell,
    *,
    announcer: Announcer,
    poll_seconds: float = POLL_SECONDS,
    coalesce_seconds: float = COALESCE_SECONDS,
) -> AsyncIterator[Due]:
    """Yield agents that became due, for ever. Never raises but on cancellation: a stream that ends takes every watcher with it."""
    try:
        while True:
            try:
                due = await look()
            except Exception as error:  # noqa: BLE001 - whatever the store or an adapter raises, the next look may work
                logger.warning("could not ask which agents are due: %s: %s", type(error).__name__, error)
            else:
                for one in announcer.look(due, time.monotonic()):
                    logger.info("%s is due: %s", one.agent, one.reason)
                    yield one
            if await bell.wait(poll_seconds):
                await asyncio.sleep(coalesce_seconds)
    finally:
        await bell.close()


def _ask() -> list[Due]:
    from perennial.bridge.hooks import task_ports
    from perennial.flows.due import due_agents

    return [Due(agent=agent, reason=reason.value) for agent, reason in due_agents(task_ports())]


def _database_url() -> str:
    from perennial.bridge.hooks import database_url

    return database_url()


class DueTrigger(BaseEventTrigger):  # type: ignore[misc]
    """Fires the asset event of one agent; all agents share one stream: one LISTEN connection and one poll per triggerer."""

    def __init__(self, agent: str) -> None:
        super().__init__()
        self.agent = agent

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes it again."""
        return (f"{DueTrigger.__module__}.DueTrigger", {"agent": self.agent})

    def shared_stream_key(self) -> Hashable:
        """One stream for every agent of the deployment."""
        return ("perennial", "due")

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
        """Every announcement, as plain JSON. Runs once in the triggerer for all watchers."""
        stream = due_events(lambda: asyncio.to_thread(_ask), PostgresBell(_database_url), announcer=Announcer())
        async for due in stream:
            yield due.as_dict()

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """The announcements of this trigger's agent."""
        async for due in shared_stream:
            if due["agent"] == self.agent:
                yield TriggerEvent(due)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """The same without sharing, for a triggerer that does not know shared streams."""
        async for event in self.filter_shared_stream(self.open_shared_stream({"agent": self.agent})):
            yield event


class CanaryTrigger(BaseTrigger):  # type: ignore[misc]
    """Looks at one canary step about once a second until its verdict is anything but hold."""

    def __init__(self, ref: dict[str, Any], index: int, seconds: float = 1.0) -> None:
        super().__init__()
        self.ref, self.index, self.seconds = ref, index, seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes it again."""
        return (
            f"{CanaryTrigger.__module__}.CanaryTrigger",
            {"ref": self.ref, "index": self.index, "seconds": self.seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event with the verdict. A store that is away is asked again; the task's timeout bounds it."""
        while True:
            try:
                verdict = await asyncio.to_thread(self._look)
            except Exception as error:  # noqa: BLE001 - an unanswered look decides nothing, whatever the reason
                logger.warning("could not look at step %s: %s: %s", self.index + 1, type(error).__name__, error)
            else:
                if verdict["action"] != "hold":
                    yield TriggerEvent(verdict)
                    return
            await asyncio.sleep(self.seconds)

    def _look(self) -> dict[str, Any]:
        from perennial.bridge.hooks import task_ports
        from perennial.flows import rollout

        return rollout.look(task_ports(), self.ref, self.index)
