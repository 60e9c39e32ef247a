"""``RolloutStore`` in memory: the twin that tests and benchmarks use. The same moves, under one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import fmean, quantiles
from typing import Any
from uuid import UUID

from perennial.domain.words import Arm, Parked, ReportResult, RolloutAction, RolloutState
from perennial.errors import RolloutError
from perennial.rollout import machine, moves
from perennial.rollout.machine import OPEN, Plan
from perennial.rollout.moves import Change, Scene
from perennial.rollout.rows import (
    Answered,
    ErrorRate,
    GatewayRow,
    JudgedInput,
    Outcome,
    RecentInput,
    Report,
    RolloutRow,
    ServingMove,
    ServingRow,
)
from perennial.rollout.slices import SliceStats
from perennial.rollout.store import ALIVE_SECONDS, NEWEST, refusal
from perennial.rollout.verdict import ArmStats


class MemoryRollouts:
    """Keeps everything in lists; ``clock`` is the store's clock. Loses all when the process ends."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._guard = threading.RLock()
        self._rows: dict[int, RolloutRow] = {}
        self._serving: dict[str, ServingRow] = {}
        self._looks: list[tuple[int, dict[str, Any]]] = []
        self._history: list[ServingMove] = []
        self.alias_moves: list[dict[str, Any]] = []
        self.answers: list[tuple[datetime, Answered]] = []
        self._by_version: dict[tuple[str, str], list[tuple[datetime, Answered]]] = {}
        self._sorted = 0  # how many of the answers are in it
        self.outcomes: dict[Any, tuple[datetime, Outcome]] = {}
        self.inputs: list[tuple[datetime, str, RecentInput]] = []
        self.judged: list[tuple[datetime, str, str, JudgedInput]] = []  # at, agent, version
        self.reports: dict[UUID, tuple[datetime, Report]] = {}
        self._resets: list[tuple[datetime, str, str, str]] = []  # at, agent, actor, reason
        self.heartbeats: dict[tuple[str, str], tuple[datetime, GatewayRow]] = {}
        self.removed: set[tuple[str, str]] = set()  # agent and version whose files retention took

    def open(self, *, agent: str, version: str, plan: Plan, run_id: str) -> RolloutRow:
        """See ``RolloutStore.open``."""
        with self._guard:
            known = self.of_run(agent, run_id)
            if known is not None:
                return known
            scene = self._scene(agent)
            change = moves.opening(scene, version)
            status = machine.begin(scene.now)
            row = RolloutRow(
                id=len(self._rows) + 1, agent=agent, version=version, previous=scene.serving.champion, plan=plan,
                state=status.state, step=status.step, weight=status.weight, run_id=run_id, reason="",
                started_at=scene.now, step_at=scene.now,
            )  # fmt: skip
            self._rows[row.id] = row
            serving = replace(change.serving, rollout_id=row.id)
            self._write(scene, replace(change, serving=serving), "perennial", f"rollout {row.id} began")
            return row

    def get(self, rollout_id: int) -> RolloutRow:
        """See ``RolloutStore.get``."""
        with self._guard:
            if rollout_id not in self._rows:
                raise RolloutError(f"there is no rollout {rollout_id}; `perennial models` lists what there is")
            return self._rows[rollout_id]

    def of_run(self, agent: str, run_id: str) -> RolloutRow | None:
        """See ``RolloutStore.of_run``."""
        with self._guard:
            return next((row for row in self._rows.values() if (row.agent, row.run_id) == (agent, run_id)), None)

    def latest(self, agent: str) -> RolloutRow | None:
        """See ``RolloutStore.latest``."""
        with self._guard:
            return next((row for row in reversed(self._rows.values()) if row.agent == agent), None)

    def of_version(self, agent: str, version: str) -> list[RolloutRow]:
        """See ``RolloutStore.of_version``."""
        with self._guard:
            return [row for row in self._rows.values() if (row.agent, row.version) == (agent, version)]

    def serving_history(self, agent: str) -> list[ServingMove]:
        """See ``RolloutStore.serving_history``."""
        with self._guard:
            return [move for move in self._history if move.agent == agent]

    def baking(self) -> list[RolloutRow]:
        """See ``RolloutStore.baking``."""
        with self._guard:
            return [row for row in self._rows.values() if row.state is RolloutState.BAKING]

    def parked(self) -> list[RolloutRow]:
        """See ``RolloutStore.parked``."""
        with self._guard:
            return [row for row in self._rows.values() if row.parked is not None and row.state in OPEN]

    def running(self) -> list[RolloutRow]:
        """See ``RolloutStore.running``."""
        with self._guard:
            return [row for row in self._rows.values() if row.parked is None and row.state in OPEN]

    def reverted_lately(self, within: float) -> list[RolloutRow]:
        """See ``RolloutStore.reverted_lately``."""
        edge = self._clock() - timedelta(seconds=within)
        with self._guard:
            gone = [row for row in self._rows.values() if row.state is RolloutState.REVERTED]
            return [row for row in gone if row.ended_at is not None and row.ended_at > edge]

    def recent(self, agent: str, limit: int = 50) -> list[RolloutRow]:
        """See ``RolloutStore.recent``."""
        with self._guard:
            return [row for row in reversed(self._rows.values()) if row.agent == agent][:limit]

    def now(self) -> datetime:
        """See ``RolloutStore.now``."""
        return self._clock()

    def park(self, rollout_id: int, why: Parked, reason: str) -> RolloutRow:
        """See ``RolloutStore.park``."""
        return self._apply(rollout_id, lambda scene, row: moves.parking(scene, row, why, reason), actor="", reason="")

    def begin_shadow(self, rollout_id: int) -> RolloutRow:
        """See ``RolloutStore.begin_shadow``."""
        return self._apply(rollout_id, moves.shadowing, actor="", reason="")

    def set_step(self, rollout_id: int, *, step: int, weight: float, actor: str) -> RolloutRow:
        """See ``RolloutStore.set_step``."""
        reason = f"canary step {step + 1} at {weight:.0%}"
        return self._apply(rollout_id, lambda scene, row: moves.stepping(scene, row, step, weight), actor, reason)

    def promote_full(self, rollout_id: int, *, actor: str, reason: str) -> RolloutRow:
        """See ``RolloutStore.promote_full``."""
        return self._apply(rollout_id, moves.promoting, actor, reason)

    def close(self, rollout_id: int) -> RolloutRow:
        """See ``RolloutStore.close``."""
        return self._apply(rollout_id, moves.finishing, actor="", reason="")

    def revert(self, rollout_id: int, *, reason: str, actor: str, seen: RolloutRow | None = None) -> RolloutRow:
        """See ``RolloutStore.revert``."""
        return self._apply(rollout_id, lambda scene, row: moves.reverting(scene, row, reason, seen), actor, reason)

    def rollback(self, agent: str, version: str, *, actor: str, reason: str) -> ServingRow:
        """See ``RolloutStore.rollback``."""
        with self._guard:
            scene = self._scene(agent)
            self._write(scene, moves.rolling_back(scene, version, reason), actor, reason)
            return self._serving[agent]

    def previous_champion(self, agent: str) -> str | None:
        """See ``RolloutStore.previous_champion``."""
        with self._guard:
            scene = self._scene(agent)
            return scene.serving.previous or scene.before(scene.serving.champion)

    def serving(self, agent: str) -> ServingRow:
        """See ``RolloutStore.serving``."""
        with self._guard:
            return self._serving.get(agent, ServingRow(agent=agent))

    def all_serving(self) -> list[ServingRow]:
        """Every agent's row, for the twin of the gateway's store."""
        with self._guard:
            return list(self._serving.values())

    def look(self, rollout_id: int, *, action: RolloutAction, reason: str, evidence: Mapping[str, Any]) -> None:
        """See ``RolloutStore.look``."""
        with self._guard:
            row = self.get(rollout_id)
            look = {
                "state": row.state.value, "step": row.step, "action": action.value, "reason": reason,
                "evidence": dict(evidence), "at": self._clock(),
            }  # fmt: skip
            self._looks.append((rollout_id, look))

    def looks(self, rollout_id: int) -> list[dict[str, Any]]:
        """See ``RolloutStore.looks``."""
        with self._guard:
            return [look for owner, look in self._looks if owner == rollout_id]

    def stats(
        self, agent: str, version: str, *, since: datetime | None, last: int = NEWEST, label_delay: float = 0.0
    ) -> ArmStats:
        """See ``RolloutStore.stats``."""
        with self._guard:
            answers = self._answered(agent, version, since, last)
            judged = [outcome.correct for outcome in self._judged(agent, version, since, last, label_delay)]
        good = [answer.latency_ms for answer in answers if answer.error is None]
        trailing = 0
        for answer in reversed(answers):
            if answer.error is None:
                break
            trailing += 1
        return ArmStats(
            answers=len(answers), errors=len(answers) - len(good), trailing_errors=trailing,
            p50_ms=_quantile(good, 0.50), p95_ms=_quantile(good, 0.95),
            outcomes=len(judged), correct_sum=sum(judged), agreement=self._agreement(agent, version),
        )  # fmt: skip

    def slices(
        self, agent: str, version: str, *, since: datetime | None, last: int = NEWEST, label_delay: float = 0.0
    ) -> dict[str, SliceStats]:
        """See ``RolloutStore.slices``."""
        found: dict[tuple[str, str], list[float]] = {}
        with self._guard:
            for outcome in self._judged(agent, version, since, last, label_delay, labels=True):
                found.setdefault((outcome.task, outcome.actual), []).append(outcome.correct)
        return {
            f"{task}: {label}": SliceStats(outcomes=len(right), correct_sum=sum(right))
            for (task, label), right in found.items()
        }

    def _answered(self, agent: str, version: str, since: datetime | None, last: int) -> list[Answered]:
        return [answer for at, answer in self._own(agent, version) if since is None or at >= since][-last:]

    def _own(self, agent: str, version: str) -> list[tuple[datetime, Answered]]:
        """The answers to callers of one version; each answer is sorted in once, since simulations ask often."""
        while self._sorted < len(self.answers):
            at, answer = self.answers[self._sorted]
            self._sorted += 1
            if answer.arm is not Arm.SHADOW:
                self._by_version.setdefault((answer.agent, answer.version), []).append((at, answer))
        return self._by_version.get((agent, version), [])

    def _judged(
        self, agent: str, version: str, since: datetime | None, last: int, label_delay: float, labels: bool = False
    ) -> list[Outcome]:
        told = [
            outcome
            for at, outcome in self.outcomes.values()
            if (outcome.agent, outcome.version) == (agent, version)
            and (since is None or at >= since)
            and (not labels or (isinstance(outcome.actual, str) and len(outcome.actual) <= 100))
        ]
        if label_delay:
            edge = self._clock() - timedelta(seconds=label_delay)
            old = {answer.prediction_id for at, answer in self._own(agent, version) if at <= edge}
            told = [outcome for outcome in told if outcome.prediction_id in old]
        return told[-last:]

    def report(self, report: Report) -> ReportResult:
        """See ``RolloutStore.report``."""
        with self._guard:
            if report.report_id in self.reports:
                return ReportResult.DUPLICATE
            version = self._reported_version(report)
            if version is None:
                return ReportResult.UNKNOWN
            self.reports[report.report_id] = (self._clock(), replace(report, version=version))
            return ReportResult.ADDED

    def _reported_version(self, report: Report) -> str | None:
        made = (answer for _, answer in self.answers if answer.prediction_id == report.prediction_id)
        known = {row.version for row in self._rows.values() if row.agent == report.agent}
        named = report.version if report.version in known else None
        return next((answer.version for answer in made if answer.agent == report.agent), named)

    def reporters(self, agent: str, version: str, *, within: float) -> int:
        """See ``RolloutStore.reporters``."""
        edge = self._clock() - timedelta(seconds=within)
        with self._guard:
            mine = [
                one for at, one in self.reports.values() if (one.agent, one.version) == (agent, version) and at > edge
            ]
        return len({one.reporter for one in mine})

    def reset_breaker(self, agent: str, *, actor: str, reason: str) -> None:
        """See ``RolloutStore.reset_breaker``."""
        with self._guard:
            self._resets.append((self._clock(), agent, actor, reason))

    def breaker_reset(self, agent: str) -> datetime | None:
        """See ``RolloutStore.breaker_reset``."""
        with self._guard:
            return max((at for at, of, _, _ in self._resets if of == agent), default=None)

    def seconds_on_step(self, rollout_id: int) -> float:
        """See ``RolloutStore.seconds_on_step``."""
        return (self._clock() - self.get(rollout_id).step_at).total_seconds()

    def seconds_since_full(self, rollout_id: int) -> float:
        """See ``RolloutStore.seconds_since_full``."""
        row = self.get(rollout_id)
        began = row.step_at if row.state is RolloutState.BAKING else row.full_at
        return 0.0 if began is None else (self._clock() - began).total_seconds()

    def recent_inputs(self, agent: str, limit: int) -> list[RecentInput]:
        """See ``RolloutStore.recent_inputs``."""
        with self._guard:
            return [item for _, owner, item in reversed(self.inputs) if owner == agent][:limit]

    def judged_inputs(self, agent: str, version: str, *, since: datetime, limit: int) -> list[JudgedInput]:
        """See ``RolloutStore.judged_inputs``."""
        with self._guard:
            found = [
                item
                for at, owner, made_by, item in reversed(self.judged)
                if owner == agent and made_by == version and at >= since
            ]
        return found[:limit]

    def error_rates(self, agent: str, version: str, *, last: int = NEWEST) -> list[ErrorRate]:
        """See ``RolloutStore.error_rates``."""
        with self._guard:
            told = [
                outcome for _, outcome in self.outcomes.values() if (outcome.agent, outcome.version) == (agent, version)
            ]
        by_task: dict[str, list[float]] = {}
        for outcome in told[-last:]:
            by_task.setdefault(outcome.task, []).append(1 - outcome.correct)
        rates = [ErrorRate(task=task, judged=len(wrong), rate=fmean(wrong)) for task, wrong in by_task.items()]
        return sorted(rates, key=lambda one: (-one.rate, one.task))

    def gateways(self, agent: str, *, within: float = ALIVE_SECONDS) -> list[GatewayRow]:
        """See ``RolloutStore.gateways``."""
        now = self._clock()
        with self._guard:
            found = [
                replace(row, age=(now - at).total_seconds())
                for at, row in self.heartbeats.values()
                if row.agent == agent
            ]
        return sorted((row for row in found if row.age < within), key=lambda row: row.instance)

    def gateway_error(self, agent: str, version: str) -> str | None:
        """See ``RolloutStore.gateway_error``."""
        return refusal(self.gateways(agent), version)

    def _agreement(self, agent: str, version: str) -> float | None:
        for owner, look in reversed(self._looks):
            row = self._rows[owner]
            if (row.agent, row.version) == (agent, version) and "agreement" in look["evidence"]:
                value = look["evidence"]["agreement"]
                return None if value is None else float(value)
        return None

    def _apply(
        self, rollout_id: int, rule: Callable[[Scene, RolloutRow], Change], actor: str, reason: str
    ) -> RolloutRow:
        with self._guard:
            row = self.get(rollout_id)
            scene = self._scene(row.agent)
            self._write(scene, rule(scene, row), actor, reason)
            return self._rows[rollout_id]

    def _scene(self, agent: str) -> Scene:
        serving = self._serving.setdefault(agent, ServingRow(agent=agent))
        last: dict[str, RolloutRow] = {}
        for row in self._rows.values():
            if row.agent == agent:
                last[row.version] = row
        in_play = [
            row
            for row in self._rows.values()
            if row.agent == agent
            and (
                row.state in OPEN | {RolloutState.BAKING}
                or (row.state in {RolloutState.DONE, RolloutState.REVERTED} and row is last.get(serving.champion or ""))
            )
        ]
        moves = [move for move in self.alias_moves if (move["agent"], move["alias"]) == (agent, "champion")]
        served = [move["version"] for move in moves]
        latest = {move["version"]: move["moved_at"] for move in moves}
        reverted = [row for row in last.values() if row.state is RolloutState.REVERTED]
        return Scene(
            serving=serving, rollouts=tuple(in_play), now=self._clock(),
            champions=tuple(
                dict.fromkeys(one for one in reversed(served) if one is not None and (agent, one) not in self.removed)
            ),
            reverted=frozenset(
                row.version
                for row in reverted
                if row.ended_at is not None and not latest.get(row.version, row.ended_at) > row.ended_at
            ),
            cut_short=tuple(
                row for row in last.values() if row.state is RolloutState.SUPERSEDED and row.full_at is not None
            ),
        )  # fmt: skip

    def _write(self, scene: Scene, change: Change, actor: str, reason: str) -> None:
        for row in change.moved:
            self._rows[row.id] = row
        before, serving = scene.serving, change.serving
        if serving == before:
            return
        self._serving[serving.agent] = replace(serving, epoch=before.epoch + 1)
        if (before.champion, before.candidate, before.weight) != (serving.champion, serving.candidate, serving.weight):
            self._history.append(
                ServingMove(
                    agent=serving.agent, champion=serving.champion, candidate=serving.candidate, weight=serving.weight,
                    epoch=before.epoch + 1, changed_at=scene.now,
                )
            )  # fmt: skip
        for alias, was, now in (
            ("champion", before.champion, serving.champion), ("candidate", before.candidate, serving.candidate)
        ):  # fmt: skip
            if was != now:
                self.alias_moves.append(
                    {"agent": serving.agent, "alias": alias, "version": now, "actor": actor, "reason": reason,
                     "moved_at": scene.now}
                )  # fmt: skip


def _quantile(values: list[float], share: float) -> float | None:
    """The quantile as ``percentile_cont`` computes it."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
