"""Writing a decision down once, by a task that may be killed at any moment and run again.

The look and the entry are no single transaction: these are for steps that one process carries out at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial.audit.log import AuditLog


def append_once(
    log: AuditLog, *, actor: str, action: str, agent: str, subject: str, detail: Mapping[str, Any] | None = None
) -> bool:
    """Write one decision unless it is written already, however long ago; True when it was written now.

    A decision is the same when action and subject are.

    >>> from perennial.audit.memory import MemoryAuditLog
    >>> log = MemoryAuditLog()
    >>> [append_once(log, actor="perennial", action="registered", agent="scout", subject="1.0.1") for _ in range(2)]
    [True, False]
    """
    if log.has(agent=agent, subject=subject, actions={action}):
        return False
    log.append(actor=actor, action=action, agent=agent, subject=subject, detail=detail)
    return True
