"""Which agents are due for a training, read from the table so that a lost notification costs seconds, never an update."""

from __future__ import annotations

from perennial.domain.words import Reason
from perennial.flows.pause import waits
from perennial.flows.ports import Ports


def due_agents(ports: Ports) -> list[tuple[str, Reason]]:
    """Agents that should train now and do not, with the reason; constant time per agent. One whose circuit breaker is open is
    not due by threshold or drift, nor is one whose training budget is spent."""
    due = ports.buffer.due_agents()
    if not due:
        return []  # at most looks: nothing needs the fleet's files
    ports = ports.with_fleet_read()
    return [(agent, reason) for agent, reason in due if waits(ports, agent, reason) is None]
