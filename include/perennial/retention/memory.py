"""``RetentionStore`` in memory: the twin that tests use; it meets the same contract as PostgreSQL's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from perennial.retention.store import BATCH, NEWEST, Hold, Left, Removal, Rows, check_holdable


@dataclass(kw_only=True)
class OldRow:
    """One row of any kind: ``at`` decides; ``watched`` means that a rollout or a bake reads it, ``serving`` that its version serves."""

    rows: Rows
    at: datetime
    agent: str = "scout"
    version: str = ""
    watched: bool = False
    serving: bool = False


class MemoryRetention:
    """Keeps everything in lists. ``versions`` are the releases in their order and ``playing`` what is in play."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self.versions: dict[tuple[str, str], Left] = {}
        self.playing: dict[tuple[str, str], str] = {}
        self.jobs: dict[UUID, datetime | None] = {}  # when it ended; None: it is open
        self.old: list[OldRow] = []
        self._holds: dict[tuple[str, str], Hold] = {}
        self._removals: dict[tuple[str, str], Removal] = {}

    def in_play(self, agent: str) -> Mapping[str, str]:
        """See ``RetentionStore.in_play``."""
        held = {version: "held by a person" for name, version in self._holds if name == agent}
        return {**held, **{version: why for (name, version), why in self.playing.items() if name == agent}}

    def left(self, agent: str) -> tuple[Left, ...]:
        """See ``RetentionStore.left``."""
        mine = [left for key, left in self.versions.items() if key[0] == agent and key not in self._removals]
        return tuple(reversed(mine))

    def hold(self, agent: str, version: str, *, held: bool, actor: str, reason: str) -> bool:
        """See ``RetentionStore.hold``."""
        key = (agent, version)
        check_holdable(agent, version, known=key in self.versions, gone=self._removals.get(key))
        if held == (key in self._holds):
            return False
        if held:
            self._holds[key] = Hold(agent=agent, version=version, actor=actor, reason=reason, at=self._clock())
        else:
            del self._holds[key]
        return True

    def holds(self, agent: str) -> tuple[Hold, ...]:
        """See ``RetentionStore.holds``."""
        return tuple(hold for (name, _), hold in sorted(self._holds.items()) if name == agent)

    def begin_removal(self, agent: str, version: str, *, actor: str, reason: str) -> bool:
        """See ``RetentionStore.begin_removal``."""
        key = (agent, version)
        if key not in self._removals and key in self.versions and version not in self.in_play(agent):
            self._removals[key] = Removal(
                agent=agent, version=version, digest=self.versions[key].digest, actor=actor, reason=reason, at=self._clock(),
                complete=False,
            )  # fmt: skip
        return key in self._removals

    def end_removal(self, agent: str, version: str) -> None:
        """See ``RetentionStore.end_removal``."""
        found = self._removals.get((agent, version))
        if found is not None:
            self._removals[(agent, version)] = replace(found, complete=True)

    def removals(self, agent: str) -> tuple[Removal, ...]:
        """See ``RetentionStore.removals``."""
        return tuple(removal for (name, _), removal in self._removals.items() if name == agent)

    def unfinished(self, agent: str) -> tuple[Removal, ...]:
        """See ``RetentionStore.unfinished``."""
        return tuple(removal for removal in self.removals(agent) if not removal.complete)

    def removal(self, agent: str, version: str) -> Removal | None:
        """See ``RetentionStore.removal``."""
        return self._removals.get((agent, version))

    def finished_jobs(self, ids: Iterable[UUID], before: datetime) -> Mapping[UUID, bool]:
        """See ``RetentionStore.finished_jobs``."""
        found = {one: self.jobs[one] for one in ids if one in self.jobs}
        return {one: ended is not None and ended < before for one, ended in found.items()}

    def count_old(self, rows: Rows, before: datetime) -> int:
        """See ``RetentionStore.count_old``."""
        return len(self._aged(rows, before))

    def remove_old(self, rows: Rows, before: datetime, limit: int = BATCH) -> int:
        """See ``RetentionStore.remove_old``."""
        going = self._aged(rows, before)[:limit]
        self.old = [row for row in self.old if not any(row is one for one in going)]
        return len(going)

    def _aged(self, rows: Rows, before: datetime) -> list[OldRow]:
        mine = sorted((row for row in self.old if row.rows is rows), key=lambda row: row.at, reverse=True)
        newest: dict[tuple[str, str], int] = {}
        found = []
        for row in mine:
            key = (row.agent, row.version)
            newest[key] = newest.get(key, 0) + 1
            if row.at < before and not row.watched and not (row.serving and newest[key] <= NEWEST):
                found.append(row)
        return found
