"""Two deferrable sensors for the users' own DAGs: a buffer is ready, a model was promoted. Neither holds a worker while it waits."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from perennial.registry.rows import AliasMove

logger = logging.getLogger(__name__)


def ready_buffers(agents: Sequence[str]) -> list[dict[str, str]]:
    """Agents whose buffer asks for a training now, as plain JSON; all agents when none is named."""
    from perennial.bridge.hooks import task_ports
    from perennial.flows.due import due_agents

    due = [{"agent": agent, "reason": reason.value} for agent, reason in due_agents(task_ports())]
    return [one for one in due if not agents or one["agent"] in agents]


def promotions(agents: Sequence[str], since: datetime) -> list[dict[str, str]]:
    """Agents whose served version changed after ``since``, with the version before it; all agents when none is named."""
    from perennial.bridge.hooks import task_ports

    ports = task_ports()
    moved = ports.ledger.promoted_since(since)  # asked every few seconds, so one look for all agents
    if not moved:
        return []
    names = [name for name in (agents or ports.fleet().names) if name in moved]
    found = [newest_promotion(name, ports.ledger.moves(name), since) for name in names]
    return [one for one in found if one is not None]


def newest_promotion(agent: str, moves: Sequence[AliasMove], since: datetime) -> dict[str, str] | None:
    """The last move of ``champion`` if it came after ``since``; ``moves`` are newest first."""
    served = [move for move in moves if move.alias == "champion" and move.version is not None]
    if not served or served[0].moved_at <= since:
        return None
    before = served[1].version if len(served) > 1 else None
    return {"agent": agent, "version": str(served[0].version), "previous": before or ""}


def moment(since: object) -> datetime:
    """A moment in ISO 8601, or what native templates make of one; UTC when it names no zone. ValueError for anything else.

    >>> moment("2026-11-20").isoformat(), moment("2026-11-20 06:00:00+01:00").isoformat()
    ('2026-11-20T00:00:00+00:00', '2026-11-20T06:00:00+01:00')
    """
    found = datetime.fromisoformat(str(since).strip())
    return found if found.tzinfo else found.replace(tzinfo=UTC)


class _PollTrigger(BaseTrigger):  # type: ignore[misc]
    """Asks a plain function in a thread every few seconds until it answers with anything."""

    def __init__(self, agents: list[str], seconds: float) -> None:
        super().__init__()
        self.agents, self.seconds = agents, seconds

    def arguments(self) -> dict[str, Any]:
        """What makes this trigger again."""
        return {"agents": self.agents, "seconds": self.seconds}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, from which the triggerer makes it again."""
        return f"{type(self).__module__}.{type(self).__name__}", self.arguments()

    @abstractmethod
    def ask(self) -> list[dict[str, str]]:
        """One look; an empty answer waits on."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event with the first answer."""
        while True:
            try:
                found = await asyncio.to_thread(self.ask)
            except Exception as error:  # noqa: BLE001 - a store that is away now may answer the next time
                logger.warning("could not look: %s: %s", type(error).__name__, error)
            else:
                if found:
                    yield TriggerEvent(found)
                    return
            await asyncio.sleep(self.seconds)


class BufferReadyTrigger(_PollTrigger):
    """Fires when one of the agents is due."""

    def ask(self) -> list[dict[str, str]]:
        """The agents that are due."""
        return ready_buffers(self.agents)


class ModelPromotedTrigger(_PollTrigger):
    """Fires when one of the agents came to serve another version after a moment."""

    def __init__(self, agents: list[str], seconds: float, since: str) -> None:
        super().__init__(agents, seconds)
        self.since = since  # ISO 8601 with an offset

    def arguments(self) -> dict[str, Any]:
        """What makes this trigger again."""
        return {**super().arguments(), "since": self.since}

    def ask(self) -> list[dict[str, str]]:
        """The agents that serve another version."""
        return promotions(self.agents, moment(self.since))


class _PerennialSensor(BaseSensorOperator):  # type: ignore[misc]
    """Defers at once and returns what the trigger saw."""

    template_fields: Sequence[str] = ("agents",)

    def __init__(self, *, agents: Sequence[str] = (), seconds: float = 5.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.agents, self.seconds = agents if isinstance(agents, str) else list(agents), seconds

    def named(self) -> list[str]:
        """The agents after templating; one that was given without a list is one, not its letters."""
        return [self.agents] if isinstance(self.agents, str) and self.agents else list(self.agents)

    def trigger(self) -> Any:
        """What waits in the triggerer."""
        raise NotImplementedError

    def execute(self, context: Any) -> None:
        """Hand the waiting to the triggerer, for at most the sensor's ``timeout``."""
        self.defer(trigger=self.trigger(), method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    def execute_complete(self, context: Any, event: list[dict[str, str]]) -> list[dict[str, str]]:
        """What was seen: one entry per agent."""
        self.log.info("%s", event)
        return event


class BufferReadySensor(_PerennialSensor):
    """Waits until the buffer of one of ``agents`` (all, when none is named) asks for a training.

    Returns ``[{"agent": ..., "reason": ...}]``. :param seconds: between two looks; :param timeout: longest wait in seconds.
    """

    def trigger(self) -> Any:
        """Looks at what is due."""
        return BufferReadyTrigger(self.named(), self.seconds)


class ModelPromotedSensor(_PerennialSensor):
    """Waits until one of ``agents`` (all, when none is named) comes to serve another version. A rollback counts.

    Returns ``[{"agent": ..., "version": ..., "previous": ...}]``.

    :param since: (templated) the moment after which a promotion counts, ISO 8601, UTC when it names no zone; empty: when the sensor
        starts. What is no time fails the task at once.
        ``{{ prev_start_date_success or '' }}`` loses none between two runs of one DAG; what the run before saw may come once more.
        (With its end instead, a promotion between its last look and its end would be lost.)
    """

    template_fields: Sequence[str] = ("agents", "since")

    def __init__(self, *, since: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.since = since

    def trigger(self) -> Any:
        """Compares with what served at ``since``; AirflowFailException when that is no time, since no look would ever end then."""
        given = "" if self.since is None else str(self.since).strip()
        try:
            since = moment(given) if given else datetime.now(UTC)
        except ValueError as error:
            raise AirflowFailException(
                f"since is not a time: {given[:60]!r}; give ISO 8601 such as 2026-11-21T06:00, or nothing (UTC is meant without a zone)"
            ) from error
        return ModelPromotedTrigger(self.named(), self.seconds, since.isoformat())
