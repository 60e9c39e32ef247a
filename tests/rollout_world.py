"""Rollouts in memory on a clock that tests move: real flows and verdicts, versions that behave as told, a controller that dies."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from perennial.audit.memory import MemoryAuditLog
from perennial.domain.words import Arm, RolloutState
from perennial.fleet.agent import Agent, Breaker, Rollout, Task
from perennial.fleet.loader import Fleet, Member
from perennial.flows.ports import Ports
from perennial.ingest.memory import MemoryBuffer
from perennial.registry.memory import MemoryLedger
from perennial.registry.rows import LOST_TRIES, Alias, AliasMove, Release
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.rows import Answered, Outcome, RolloutRow
from perennial.settings import Settings
from tests.dags.fleet import Nothing
from tests.unit.registry.samples import components, manifest

LABELS = ("business", "science", "sports", "world")
START = datetime(2026, 11, 18, 9, 0, tzinfo=UTC)  # a Wednesday


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Killed(BaseException):
    """The controller's process died here."""


@dataclass
class Fuse:
    """Kills the controller at one of its calls of a store, before or after the call takes effect."""

    at: int | None = None  # counts calls from 0; None: never
    after: bool = False
    calls: int = 0
    blown: bool = False

    def __call__(self, act: Callable[[], Any]) -> Any:
        mine, self.calls = self.calls, self.calls + 1
        dies = self.at is not None and mine == self.at and not self.blown
        if dies and not self.after:
            self.blown = True
            raise Killed
        result = act()
        if dies:
            self.blown = True
            raise Killed
        return result


class Fused:
    """A store whose every call passes the fuse."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        return lambda *args, **named: self._fuse(lambda: found(*args, **named))


class IndexedRollouts(MemoryRollouts):
    """The twin with its outcomes by version, for outcomes that are never corrected: a simulation asks a hundred thousand times."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)
        self.told: dict[str, list[tuple[datetime, Outcome]]] = {}

    def tell(self, at: datetime, outcome: Outcome) -> None:
        self.told.setdefault(outcome.version, []).append((at, outcome))

    def _judged(
        self, agent: str, version: str, since: datetime | None, last: int, label_delay: float, labels: bool = False
    ) -> list[Outcome]:
        own = self.told.get(version, [])
        found = own[_first(own, since) :]
        if label_delay:
            made = self._own(agent, version)
            edge = _first(made, self._clock() - timedelta(seconds=label_delay) + timedelta(microseconds=1))
            old = {answer.prediction_id for _, answer in made[:edge]}
            found = [pair for pair in found if pair[1].prediction_id in old]
        return [outcome for _, outcome in found[-last:]]

    def _answered(self, agent: str, version: str, since: datetime | None, last: int) -> list[Answered]:
        own = self._own(agent, version)
        return [answer for _, answer in own[max(_first(own, since), len(own) - last) :]]


def _first(pairs: Sequence[tuple[datetime, Any]], since: datetime | None) -> int:
    return 0 if since is None else bisect_left(pairs, since, key=lambda pair: pair[0])


@cache
def _record() -> dict[str, Any]:
    """A complete manifest as the ledger keeps it."""
    with TemporaryDirectory() as room:
        return manifest(components(Path(room))).as_dict()


class JoinedLedger(MemoryLedger):
    """The ledger in memory whose aliases are those that the rollouts move, as in PostgreSQL."""

    def __init__(self, rollouts: MemoryRollouts, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)
        self._rollouts = rollouts

    def champion(self, agent: str) -> str | None:
        return self._rollouts.serving(agent).champion

    def ever_served(self, agent: str) -> bool:
        mine = [move for move in self._rollouts.alias_moves if move["agent"] == agent]
        return any(Alias(move["alias"]) is Alias.CHAMPION and move["version"] is not None for move in mine)

    def candidate(self, agent: str) -> str | None:
        return self._rollouts.serving(agent).candidate

    def moves(self, agent: str, limit: int = 100) -> tuple[AliasMove, ...]:
        noted = super().moves(agent, limit)  # of worlds that move the aliases in the ledger itself
        return noted or tuple(reversed(self._joined(agent)))[:limit]

    def first_move(self, agent: str, *, reason: str, since: datetime) -> AliasMove | None:
        made = [move for move in self._joined(agent) if move.reason == reason and move.moved_at >= since]
        return next(iter(made), None)

    def served_at(self, agent: str, time: datetime) -> AliasMove | None:
        made = [move for move in self._joined(agent) if move.alias is Alias.CHAMPION and move.moved_at <= time]
        return made[-1] if made and made[-1].version is not None else None

    def _joined(self, agent: str) -> list[AliasMove]:
        return [
            AliasMove(**{**move, "alias": Alias(move["alias"])}, job_id=None)
            for move in self._rollouts.alias_moves
            if move["agent"] == agent
        ]

    def newest_unserved(self, agent: str) -> Release | None:
        newest = next(iter(self.versions(agent)), None)
        met = [
            row for row in self._rollouts.recent(agent, 10_000) if newest is not None and row.version == newest.version
        ]
        return None if not all(row.lost for row in met) or len(met) >= LOST_TRIES else newest

    def release(self, agent: str, version: str, *, action: str = "pass", judged: str | None = None) -> Release:
        """Put one version on record whose gates said ``action`` on the bytes ``judged`` (its own by default)."""
        job, content = uuid4(), f"content-{version}"
        self.add_gate_report(
            agent=agent, job_id=job, attempt=1, content_digest=judged or content, action=action, report={}
        )
        record = {
            **_record(), "agent": agent, "version": version, "job_id": str(job), "content_digest": content,
            "gate_action": action,
        }  # fmt: skip
        made = Release(
            agent=agent, version=version, digest=f"digest-{version}", order=self.reserve_order(), base_version=None,
            job_id=job, uri="", mlflow_run_id=None, manifest=record, created_at=self._clock(),
        )  # fmt: skip
        self._releases.append(made)
        return made


class Folder:
    """A target that only remembers what it was pointed at."""

    def __init__(self) -> None:
        self.pointed: dict[str, str] = {}

    def point(self, agent: str, version: str, folder: Path) -> None:
        self.pointed[agent] = version


@dataclass(frozen=True)
class Behaviour:
    """How a version answers. ``right`` by label overrides the share of right answers for that label."""

    errors: float = 0.004
    right: float = 0.85
    by_label: dict[str, float] = field(default_factory=dict)
    milliseconds: float = 40.0


@dataclass
class RolloutWorld:
    """One agent's deployment in memory; ``ports`` is what the flows get, ``fuse`` may kill them."""

    clock: Clock
    rollouts: IndexedRollouts
    ledger: JoinedLedger
    buffer: MemoryBuffer
    audit: MemoryAuditLog
    ports: Ports
    fuse: Fuse
    random: random.Random
    aliases: dict[str, str | None] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    late: list[tuple[datetime, Outcome]] = field(default_factory=list)

    def champion(self, version: str = "1.0.0") -> RolloutRow:
        """A version that served long enough to be done."""
        self.ledger.release("scout", version)
        row = self.rollouts.open(agent="scout", version=version, plan=self.plan, run_id=f"run-{version}")
        self.rollouts.promote_full(row.id, actor="test", reason="test")
        return self.rollouts.close(row.id)

    def candidate(self, version: str, **release: Any) -> RolloutRow:
        """A released version whose rollout was opened, as ``verify`` does."""
        self.ledger.release("scout", version, **release)
        return self.rollouts.open(agent="scout", version=version, plan=self.plan, run_id=f"run-{version}")

    @property
    def plan(self) -> Any:
        from perennial.flows.rollout import plan_of

        return plan_of(self.ports.fleet().agent("scout"))

    def agreed(self, row: RolloutRow, share: float | None) -> None:
        """What a shadow replay would have noted."""
        from perennial.domain.words import RolloutAction

        self.rollouts.begin_shadow(row.id)
        if share is not None:
            evidence = {"agreement": share}
            self.rollouts.look(row.id, action=RolloutAction.PROMOTE, reason="shadow", evidence=evidence)

    def traffic(self, requests: int, *, told: float = 0.5, delay: float = 0.0) -> None:
        """So many requests now; each arm answers its share, and of ``told`` of the answers the truth comes after ``delay``."""
        serving = self.rollouts.serving("scout")
        now = self.clock()
        for due, outcome in [pair for pair in self.late if pair[0] <= now]:
            self.rollouts.tell(due, outcome)
        self.late = [pair for pair in self.late if pair[0] > now]
        for _ in range(requests):
            is_candidate = serving.candidate is not None and self.random.random() < serving.weight
            version = (serving.candidate if is_candidate else serving.champion) or ""
            self._answer(version, Arm.CANDIDATE if is_candidate else Arm.CHAMPION, told, delay)

    def _answer(self, version: str, arm: Arm, told: float, delay: float) -> None:
        dice, how = self.random, self.behaviours.get(version, Behaviour())
        now, failed = self.clock(), dice.random() < how.errors
        identity = UUID(int=dice.getrandbits(128))
        answer = Answered(
            prediction_id=identity, agent="scout", task="topic", version=version, arm=arm, input_digest=b"",
            output=None if failed else "x", confidence=None if failed else 0.9,
            latency_ms=how.milliseconds * dice.lognormvariate(0.0, 0.45), error="RuntimeError" if failed else None,
        )  # fmt: skip
        self.rollouts.answers.append((now, answer))
        if failed or dice.random() >= told:
            return
        label = dice.choice(LABELS)
        right = float(dice.random() < how.by_label.get(label, how.right))
        outcome = Outcome(
            prediction_id=identity, agent="scout", task="topic", version=version, arm=arm, actual=label, correct=right
        )
        if delay:
            self.late.append((now + timedelta(seconds=delay), outcome))
        else:
            self.rollouts.tell(now, outcome)

    def state(self, row: RolloutRow) -> RolloutState:
        return self.rollouts.get(row.id).state

    def audited(self, version: str) -> list[str]:
        """The audited actions on a version, oldest first."""
        return [entry.action for entry in reversed(self.audit.entries("scout", 1000)) if entry.subject == version]


def make_rollout_world(
    *, seed: int = 1, rollout: Rollout | None = None, freeze: Sequence[str] = (), breaker: Breaker | None = None,
    settings: Settings | None = None, targets: Any = None, models: Any = None,
) -> RolloutWorld:  # fmt: skip
    """A deployment with one agent and nothing released."""
    clock, fuse, aliases = Clock(), Fuse(), {}
    agent = Agent(
        name="scout", owner="tests", tasks=(Task(name="topic"),), trainer=Nothing(), freeze=tuple(freeze),
        rollout=rollout or Rollout(targets=("gateway",)), breaker=breaker or Breaker(),
    )  # fmt: skip
    fleet = Fleet(members=(Member(agent=agent, file=Path("scout.py"), digest="0" * 64),), errors=())
    rollouts = IndexedRollouts(clock)
    ledger, buffer, audit = JoinedLedger(rollouts, clock), MemoryBuffer(), MemoryAuditLog()

    def align(agent_name: str, *, champion: str | None, candidate: str | None) -> bool:
        aliases.update(champion=champion, candidate=candidate)
        return True

    stores: Any = {
        "rollouts": rollouts, "ledger": ledger, "buffer": buffer, "audit": audit,
        "models": models or SimpleNamespace(align_aliases=align),
    }  # fmt: skip
    ports = Ports(
        settings=settings or Settings(), fleet=lambda: fleet, jobs=SimpleNamespace(), relay=lambda: 0, admission=None,  # type: ignore[arg-type]
        targets=targets or {}, bases=SimpleNamespace(), embeddings=None,  # type: ignore[arg-type]
        **{name: Fused(store, fuse) for name, store in stores.items()},
    )  # fmt: skip
    return RolloutWorld(
        clock=clock, rollouts=rollouts, ledger=ledger, buffer=buffer, audit=audit, ports=ports, fuse=fuse,
        random=random.Random(seed), aliases=aliases,
    )  # fmt: skip
