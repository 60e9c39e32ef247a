"""The audit log in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from perennial.audit.chain import MOST, Seal, content_digest, entry, json_text, make_seal
from perennial.audit.log import Entry, checked
from perennial.audit.verification import Chain


class MemoryAuditLog:
    """The audit log in memory, for tests and trials without a database."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._waiting: dict[int, bytes] = {}
        self._seals: list[tuple[Seal, bytes]] = []
        self._ids = itertools.count(1)
        self._guard = threading.Lock()

    def append(
        self, *, actor: str, action: str, agent: str = "", subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """See ``AuditLog``."""
        who = checked(actor, action)
        with self._guard:
            made = Entry(
                id=next(self._ids), at=datetime.now(UTC), agent=agent, subject=subject, detail=dict(detail or {}), **who
            )
            self._entries.append(made)
            self._waiting[made.id] = _entry(made)

    def entries(self, agent: str | None = None, limit: int = 100) -> tuple[Entry, ...]:
        """See ``AuditLog``."""
        return tuple(one for one in reversed(self._entries) if agent is None or one.agent == agent)[:limit]

    def has(
        self, *, agent: str, subject: str, actions: Collection[str], actor: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> bool:  # fmt: skip
        """See ``AuditLog``."""
        return any(
            (one.agent, one.subject) == (agent, subject)
            and one.action in actions
            and actor in (None, one.actor)
            and _contains(one.detail, detail or {})
            for one in self._entries
        )

    def seal(self, most: int = MOST) -> Seal | None:
        """See ``AuditLog``."""
        with self._guard:
            ids = sorted(self._waiting)[: min(max(most, 1), MOST)]
            if not ids:
                return None
            members = b"".join(self._waiting.pop(row_id) for row_id in ids)
            self._seals.append(
                (make_seal(self._seals[-1][0] if self._seals else None, members, datetime.now(UTC)), members)
            )
            return self._seals[-1][0]

    def seals(self, after: int, limit: int = 1000) -> tuple[Seal, ...]:
        """See ``AuditLog``."""
        return tuple(seal for seal, _ in self._seals[after : after + limit])

    @contextmanager
    def chain(self) -> Iterator[Chain]:
        """See ``AuditLog``."""
        with self._guard:
            view = Chain(
                seals=iter(list(self._seals)), rows=iter([_entry(one) for one in self._entries]),
                waiting=iter([self._waiting[row_id] for row_id in sorted(self._waiting)]),
            )  # fmt: skip
        yield view


def _entry(made: Entry) -> bytes:
    content = content_digest(made.actor, made.action, made.agent, made.subject, json_text(made.detail))
    return entry(made.id, made.at, content)


def _contains(whole: Any, part: Any) -> bool:
    """Whether JSON contains other JSON, as ``jsonb @>`` has it."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            key in whole and _contains(whole[key], value) for key, value in part.items()
        )
    if isinstance(part, list | tuple):
        return isinstance(whole, list | tuple) and all(any(_contains(one, value) for one in whole) for value in part)
    return bool(whole == part)
