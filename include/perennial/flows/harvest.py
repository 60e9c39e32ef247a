"""Bring in what waits outside, make it ready, and pass announcements on."""

from __future__ import annotations

import logging
from typing import Any

from perennial.errors import SourceError
from perennial.events.drop_folder import DropFolder
from perennial.flows.admission import admit_agent, admittable
from perennial.flows.fleet_sync import sync
from perennial.flows.ports import Ports
from perennial.flows.quiet import quiet
from perennial.ingest.drain import drain as drain_source

logger = logging.getLogger(__name__)


def sources(ports: Ports) -> list[str]:
    """Names of the sources that have something now."""
    return ["inbox"] if ports.settings.inbox is not None and DropFolder(ports.settings.inbox).waiting() else []


@quiet
def drain(ports: Ports, source: str) -> dict[str, Any]:
    """Bring one source's records into the buffer, each once, with its position stored beside the rows."""
    if source != "inbox" or ports.settings.inbox is None:
        raise SourceError(f"there is no source {source!r}; known: inbox")
    sync(ports)
    return drain_source(DropFolder(ports.settings.inbox), ports.buffer).as_dict()


def admit_waiting(ports: Ports) -> dict[str, Any]:
    """Admit the raw rows of every agent; agents with nothing waiting are left out of the answer, and cost one probe of an index."""
    result: dict[str, Any] = {}
    ports = ports.with_fleet_read()
    for name in admittable(ports, ports.fleet().names):
        outcome = admit_agent(ports, name, background=True)
        if any(outcome.values()):
            result[name] = outcome
    return result


def relay_outbox(ports: Ports) -> dict[str, Any]:
    """Hand waiting announcements to the sinks of this deployment, each at least once."""
    return {"relayed": ports.relay()}
