"""Tells the database which agents the fleet folder declares."""

from __future__ import annotations

import logging
from typing import Any

from perennial.fleet.loader import Member
from perennial.flows.ports import Ports
from perennial.settings import Settings

logger = logging.getLogger(__name__)


def sync(ports: Ports) -> dict[str, Any]:
    """Write every loaded agent to the store; an agent whose file went away becomes inactive, its rows stay.

    Runs in the data plane every few seconds, in harvest and at start. A broken file keeps its agent as it was.
    """
    fleet = ports.fleet()
    ports.buffer.sync_agents([record_of(member, ports.settings) for member in fleet.members], keep=bool(fleet.errors))
    return {"agents": [agent.name for agent in fleet.agents], "errors": [str(error) for error in fleet.errors]}


def record_of(member: Member, settings: Settings) -> dict[str, Any]:
    """One agent as the store keeps it; the deployment's settings fill what the file leaves open."""
    agent = member.agent
    return {
        "agent": agent.name,
        "record": {
            **agent.as_record(),
            **({"overrides": [one.as_record(member.as_declared) for one in member.overrides]} if member.overrides else {}),
        },
        "file_digest": member.digest,
        "update_threshold": agent.update_threshold or settings.update_threshold,
        "max_buffer_size": agent.max_buffer_size or settings.max_buffer_size,
        "holdout_share": agent.selection.holdout_share,
        "tasks": [
            {
                "task": task.name, "kind": task.kind.value, "labels": list(task.labels) if task.labels else None,
                "max_length": task.max_length, "aliases": list(task.aliases),
            }
            for task in agent.tasks
        ],
    }  # fmt: skip
