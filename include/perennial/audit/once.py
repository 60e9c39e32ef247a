"""Writing a decision down once, by a task that may be killed at any moment and run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial.audit.log import AuditLog

NEWEST = 200  # entries of the agent in which that of a killed try is looked for


def append_once(
    log: AuditLog, *, actor: str, action: str, agent: str, subject: str, detail: Mapping[str, Any] | None = None
) -> bool:
    """Write one decision unless it is among the agent's newest ones already; True when it was written now.

    A decision is the same when action and subject are. For steps that only one process carries out at a time: the look and
    the entry are no single transaction.

    >>> from perennial.audit.log import MemoryAuditLog
    >>> log = MemoryAuditLog()
    >>> [append_once(log, actor="perennial", action="registered", agent="scout", subject="1.0.1") for _ in range(2)]
    [True, False]
    """
    if any((one.action, one.subject) == (action, subject) for one in log.entries(agent, NEWEST)):
        return False
    log.append(actor=actor, action=action, agent=agent, subject=subject, detail=detail)
    return True
