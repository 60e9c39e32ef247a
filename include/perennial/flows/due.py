"""Which agents are due for a training, read from the table so that a lost notification costs seconds, never an update."""

from __future__ import annotations

from perennial.domain.words import Reason
from perennial.flows.ports import Ports


def due_agents(ports: Ports) -> list[tuple[str, Reason]]:
    """Agents that should train now and do not, with the reason; constant time per agent."""
    return list(ports.buffer.due_agents())
