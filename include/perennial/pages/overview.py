"""What the pages read of the whole fleet at once: a few bounded statements, whatever the number of agents, versions and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from perennial.domain.words import Reason, State
from perennial.flows.ports import Ports
from perennial.ingest.results import Due
from perennial.registry.rows import Alias
from perennial.storage.database import Database
from perennial.storage.queries import load

MOST = 500  # rows of one state that are counted; beyond it a page says "500+"
TREND = 16  # scores of one agent
_SHOWN = frozenset(
    {"holdout", *(one.value for one in (State.RAW, State.READY, State.CLAIMED, State.TRAINED, State.UNLABELLED, State.QUARANTINED,
                                        State.HELD))}
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How many rows of one task are in one state. ``more``: at least so many, and not counted on."""

    task: str
    state: str
    rows: int
    more: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the gates said last: ``action`` is pass, hold or approve, ``summary`` the report's one line."""

    job_id: UUID
    action: str
    summary: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One candidate's score in [0, 1]; ``version`` None: it was refused and never became one."""

    version: str | None
    score: float | None
    refused: bool
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionLine:
    """One release without its manifest."""

    version: str
    base: str | None
    job_id: UUID | None
    at: datetime
    reason: str
    mode: str
    gate: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where one agent stands. ``share`` is the candidate's share of the keys; ``due`` None while it trains."""

    agent: str
    champion: str | None = None
    since: datetime | None = None
    moved_by: str = ""
    candidate: str | None = None
    share: float = 0.0
    rollout_version: str | None = None
    rollout_state: str = ""
    rollout_reason: str = ""
    tallies: tuple[Tally, ...] = ()
    running: bool = False
    due: Due | None = None
    verdict: Verdict | None = None
    trend: tuple[Score, ...] = ()  # oldest first


class Overview(Protocol):
    """The pages' own reads. ``PostgresOverview`` answers in production, ``PortsOverview`` over any ports; one contract holds both."""

    def standings(self, agents: Sequence[str]) -> dict[str, Standing]:
        """Every agent asked for, in order; StoreUnavailable when PostgreSQL is away."""
        ...

    def versions(self, agent: str, limit: int) -> tuple[VersionLine, ...]:
        """The newest releases of an agent, newest first."""
        ...

    def verdicts(self, agent: str, limit: int) -> tuple[Verdict, ...]:
        """The newest verdicts on an agent's candidates, newest first, released or not."""
        ...


class PostgresOverview:
    """Seven statements in one transaction for the whole fleet."""

    _sql = load("perennial.pages", "overview.sql")
    _due = load("perennial.ingest", "jobs.sql")["due"]
    _running = load("perennial.ingest", "reads.sql")["running"]

    def __init__(self, database: Database) -> None:
        self._database = database

    def standings(self, agents: Sequence[str]) -> dict[str, Standing]:
        """See ``Overview``."""
        asked: dict[str, Any] = {"agents": list(agents), "most": MOST}
        with self._database.connection() as connection:

            def read(name: str, **more: Any) -> list[dict[str, Any]]:
                return connection.execute(self._sql[name], {**asked, **more}).fetchall()

            tallies = _by_agent(read("tallies"))
            serving = {row["agent"]: row for row in read("serving")}
            rollouts = {row["agent"]: row for row in read("rollouts")}
            verdicts = {row["agent"]: row for row in read("verdicts", limit=1)}
            trends = _by_agent(read("trend", limit=TREND))
            due = {row["agent"]: row for row in connection.execute(self._due, {"agent": None}).fetchall()}
            running = {row["agent"] for row in connection.execute(self._running)}
        return {
            agent: Standing(
                agent=agent, **_serving(serving.get(agent)), **_rollout(rollouts.get(agent)),
                tallies=_tallies(tallies.get(agent, ())), running=agent in running, due=_due(due.get(agent), agent in running),
                verdict=_verdict(verdicts[agent]) if agent in verdicts else None,
                trend=tuple(
                    Score(version=row["version"], score=row["score"], refused=row["refused"], at=row["at"])
                    for row in trends.get(agent, ())
                ),
            )
            for agent in agents
        }  # fmt: skip

    def versions(self, agent: str, limit: int) -> tuple[VersionLine, ...]:
        """See ``Overview``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["versions"], {"agent": agent, "limit": limit}).fetchall()
        return tuple(VersionLine(**row) for row in rows)

    def verdicts(self, agent: str, limit: int) -> tuple[Verdict, ...]:
        """See ``Overview``."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["verdicts"], {"agents": [agent], "limit": limit}).fetchall()
        return tuple(_verdict(row) for row in rows)


class PortsOverview:
    """The same over the stores' own methods: the twin for tests and trials in memory, right on any store but not bounded."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def standings(self, agents: Sequence[str]) -> dict[str, Standing]:
        """See ``Overview``."""
        running = set(self._ports.buffer.running())
        return {agent: self._standing(agent, agent in running) for agent in agents}

    def _standing(self, agent: str, running: bool) -> Standing:
        ports = self._ports
        serving, row = ports.rollouts.serving(agent), ports.rollouts.latest(agent)
        moves = [move for move in ports.ledger.moves(agent, 100_000) if move.alias is Alias.CHAMPION]
        newest = self.verdicts(agent, 1)
        due = ports.buffer.due(agent)
        return Standing(
            agent=agent, champion=serving.champion, since=moves[0].moved_at if moves else None,
            moved_by=moves[0].actor if moves else "", candidate=serving.candidate, share=serving.weight,
            rollout_version=row.version if row else None, rollout_state=row.state.value if row else "",
            rollout_reason=row.reason if row else "", tallies=_counted(ports.buffer.counts(agent)), running=running,
            due=None if running or due.threshold == 0 else due, verdict=newest[0] if newest else None,
            trend=tuple(
                Score(
                    version=one.version, score=one.accuracy_after, refused=one.rollback_triggered, at=one.update_timestamp
                )
                for one in ports.buffer.performance(agent, TREND)
            ),
        )  # fmt: skip

    def versions(self, agent: str, limit: int) -> tuple[VersionLine, ...]:
        """See ``Overview``."""
        return tuple(
            VersionLine(
                version=one.version, base=one.base_version, job_id=one.job_id, at=one.created_at,
                reason=one.manifest.get("reason", ""), mode=one.manifest.get("mode", ""), gate=one.manifest.get("gate_action", ""),
            )
            for one in self._ports.ledger.versions(agent)[:limit]
        )  # fmt: skip

    def verdicts(self, agent: str, limit: int) -> tuple[Verdict, ...]:
        """See ``Overview``."""
        return tuple(
            Verdict(job_id=row.job_id, action=row.action, summary=row.report.get("summary", ""), at=row.created_at)
            for row in self._ports.ledger.gate_reports(agent, limit)
        )


def _by_agent(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["agent"], []).append(row)
    return found


def _tallies(rows: Sequence[Mapping[str, Any]]) -> tuple[Tally, ...]:
    """Where a state reached the limit in all, no task of it is counted to its end (``trained`` is limited by task)."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[row["state"]] = sums.get(row["state"], 0) + row["rows"]
    found = [
        Tally(
            task=row["task"], state=row["state"], rows=row["rows"],
            more=(row["rows"] if row["state"] == State.TRAINED.value else sums[row["state"]]) >= MOST,
        )
        for row in rows
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda tally: (tally.task, tally.state)))


def _counted(counts: Mapping[tuple[str, str], int]) -> tuple[Tally, ...]:
    found = [
        Tally(task=task, state=state, rows=min(rows, MOST), more=rows >= MOST)
        for (task, state), rows in counts.items() if state in _SHOWN
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda tally: (tally.task, tally.state)))


def _serving(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {
        "champion": row["champion"], "since": row["since"], "moved_by": row["actor"] or "", "candidate": row["candidate"],
        "share": round(row["weight"], 6),
    }  # fmt: skip


def _rollout(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {"rollout_version": row["version"], "rollout_state": row["state"], "rollout_reason": row["reason"]}


def _due(row: Mapping[str, Any] | None, running: bool) -> Due | None:
    if row is None or running:
        return None
    reason = Reason(row["reason"]) if row["reason"] else None
    return Due(
        due=reason is not None, reason=reason, waiting=row["waiting"], corrections=row["corrections"],
        threshold=row["threshold"],
    )  # fmt: skip


def _verdict(row: Mapping[str, Any]) -> Verdict:
    return Verdict(job_id=row["job_id"], action=row["action"], summary=row["summary"], at=row["at"])
