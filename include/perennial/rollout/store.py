"""Where rollouts are written down: the protocol, and PostgreSQL.

One transaction per change: rollout rows, the serving row (epoch + 1), alias moves and NOTIFY ``perennial_serving``.
Locks are taken in one order (the agent's serving row, then its rollouts), and all times are the database's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from perennial.domain.words import Parked, ReportResult, RolloutAction, RolloutState
from perennial.errors import RolloutError
from perennial.rollout import moves
from perennial.rollout.machine import Plan
from perennial.rollout.moves import Change, Scene
from perennial.rollout.rows import (
    ErrorRate,
    GatewayRow,
    JudgedInput,
    RecentInput,
    Report,
    RolloutRow,
    ServingMove,
    ServingRow,
)
from perennial.rollout.slices import SliceStats
from perennial.rollout.verdict import ArmStats
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

CHANNEL = "perennial_serving"
NEWEST = 5000  # answers and outcomes that one judgement reads at most
ALIVE_SECONDS = 15.0  # a gateway that was silent for longer is not asked
REFUSED = "refused"  # the word by which a gateway says that a bundle is not trusted


class RolloutStore(Protocol):
    """Keeps rollouts and what serves. Every verb may be repeated: a move that is made already changes nothing."""

    def open(self, *, agent: str, version: str, plan: Plan, run_id: str) -> RolloutRow:
        """Make ``version`` the candidate at weight 0; the same ``run_id`` finds its row again. A newer one supersedes
        an open one."""
        ...

    def get(self, rollout_id: int) -> RolloutRow:
        """One rollout; RolloutError when there is none."""
        ...

    def of_run(self, agent: str, run_id: str) -> RolloutRow | None:
        """The rollout that a run of the agent opened; another agent's run may bear the same id."""
        ...

    def latest(self, agent: str) -> RolloutRow | None:
        """The agent's newest rollout."""
        ...

    def of_version(self, agent: str, version: str) -> list[RolloutRow]:
        """Every rollout of one version, oldest first."""
        ...

    def serving_history(self, agent: str) -> list[ServingMove]:
        """Every change of champion, candidate or share, oldest first; it begins where the store began to keep it."""
        ...

    def baking(self) -> list[RolloutRow]:
        """Rollouts whose champion is still watched."""
        ...

    def parked(self) -> list[RolloutRow]:
        """Open rollouts that no run carries on."""
        ...

    def running(self) -> list[RolloutRow]:
        """Open rollouts that a run is to carry on; whether it does, the store does not know."""
        ...

    def reverted_lately(self, within: float) -> list[RolloutRow]:
        """Rollouts that were reverted in the last seconds."""
        ...

    def recent(self, agent: str, limit: int = 50) -> list[RolloutRow]:
        """The agent's rollouts, newest first."""
        ...

    def now(self) -> datetime:
        """The store's clock."""
        ...

    def park(self, rollout_id: int, why: Parked, reason: str) -> RolloutRow:
        """Say that no run carries an open rollout on; it keeps its share. RolloutError when it is not open."""
        ...

    def begin_shadow(self, rollout_id: int) -> RolloutRow:
        """Pending -> shadow."""
        ...

    def set_step(self, rollout_id: int, *, step: int, weight: float, actor: str) -> RolloutRow:
        """Give the candidate the share of canary step ``step``, counted from 0."""
        ...

    def promote_full(self, rollout_id: int, *, actor: str, reason: str) -> RolloutRow:
        """Make the candidate the champion; the former one stays hot as previous, and the bake begins."""
        ...

    def close(self, rollout_id: int) -> RolloutRow:
        """End a bake well."""
        ...

    def revert(self, rollout_id: int, *, reason: str, actor: str, seen: RolloutRow | None = None) -> RolloutRow:
        """Clear the candidate, or put the predecessor back when it bakes; a bake of that one which was cut short goes on.

        With ``seen``, a row that is not as it was seen stays as it is.
        """
        ...

    def rollback(self, agent: str, version: str, *, actor: str, reason: str) -> ServingRow:
        """By hand: serve a former champion again and take everything newer out of traffic."""
        ...

    def previous_champion(self, agent: str) -> str | None:
        """The version that a rollback without a name goes back to."""
        ...

    def serving(self, agent: str) -> ServingRow:
        """What the gateways should do now; an empty row before the first rollout."""
        ...

    def look(self, rollout_id: int, *, action: RolloutAction, reason: str, evidence: Mapping[str, Any]) -> None:
        """Write down one look at traffic."""
        ...

    def looks(self, rollout_id: int) -> list[dict[str, Any]]:
        """What was looked at, oldest first: state, step, action, reason, evidence, at."""
        ...

    def stats(
        self, agent: str, version: str, *, since: datetime | None, last: int = NEWEST, label_delay: float = 0.0
    ) -> ArmStats:
        """What one version did since then, from its newest ``last`` answers and outcomes, with its shadow's
        agreement. With ``label_delay`` seconds, outcomes of younger answers do not count."""
        ...

    def slices(
        self, agent: str, version: str, *, since: datetime | None, last: int = NEWEST, label_delay: float = 0.0
    ) -> dict[str, SliceStats]:
        """The outcomes of ``stats`` by ``task: true label``, for answers that are labels."""
        ...

    def report(self, report: Report) -> ReportResult:
        """Keep what a user complains about; durable when it returns. The same id again is a duplicate."""
        ...

    def reporters(self, agent: str, version: str, *, within: float) -> int:
        """How many different people reported this version in the last seconds."""
        ...

    def reset_breaker(self, agent: str, *, actor: str, reason: str) -> None:
        """Write down that a person closed the circuit breaker."""
        ...

    def breaker_reset(self, agent: str) -> datetime | None:
        """When a person closed it last."""
        ...

    def seconds_on_step(self, rollout_id: int) -> float:
        """How long the present state or step lasts, on the store's clock."""
        ...

    def seconds_since_full(self, rollout_id: int) -> float:
        """How long it serves everything without a break, on the store's clock; 0 before."""
        ...

    def recent_inputs(self, agent: str, limit: int) -> list[RecentInput]:
        """Recorded requests, newest first."""
        ...

    def judged_inputs(self, agent: str, version: str, *, since: datetime, limit: int) -> list[JudgedInput]:
        """Recorded requests of one version whose truth came in, newest first."""
        ...

    def error_rates(self, agent: str, version: str, *, last: int = NEWEST) -> list[ErrorRate]:
        """How wrong each task of a version was in its newest ``last`` outcomes, worst first."""
        ...

    def gateways(self, agent: str, *, within: float = ALIVE_SECONDS) -> list[GatewayRow]:
        """What the living gateways have loaded."""
        ...

    def gateway_error(self, agent: str, version: str) -> str | None:
        """Why a living gateway refused this version; None when none did."""
        ...


class PostgresRollouts:
    """``RolloutStore`` over the app role. Raises StoreUnavailable when PostgreSQL is away: then nothing has changed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = load("perennial.rollout")

    def open(self, *, agent: str, version: str, plan: Plan, run_id: str) -> RolloutRow:
        """See ``RolloutStore.open``."""
        with self._locked(agent) as (connection, scene):
            known = connection.execute(self._sql["by_run"], {"agent": agent, "run_id": run_id}).fetchone()
            if known is not None:
                return _rollout(known)
            change = moves.opening(scene, version)
            self._move(connection, change)  # first: only one rollout of an agent may be open
            row = connection.execute(
                self._sql["insert_rollout"],
                {"agent": agent, "version": version, "previous": scene.serving.champion, "plan":
                _json(plan.as_record()),
                 "run_id": run_id, "now": scene.now},
            ).fetchone()  # fmt: skip
            assert row is not None
            rollout = _rollout(row)
            serving = replace(change.serving, rollout_id=rollout.id)
            self._serve(connection, scene, serving, actor="perennial", reason=f"rollout {rollout.id} began")
            return rollout

    def get(self, rollout_id: int) -> RolloutRow:
        """See ``RolloutStore.get``."""
        found = self._one("by_id", {"id": rollout_id})
        if found is None:
            raise RolloutError(f"there is no rollout {rollout_id}; `perennial models` lists what there is")
        return _rollout(found)

    def of_run(self, agent: str, run_id: str) -> RolloutRow | None:
        """See ``RolloutStore.of_run``."""
        found = self._one("by_run", {"agent": agent, "run_id": run_id})
        return None if found is None else _rollout(found)

    def latest(self, agent: str) -> RolloutRow | None:
        """See ``RolloutStore.latest``."""
        found = self._one("latest", {"agent": agent})
        return None if found is None else _rollout(found)

    def of_version(self, agent: str, version: str) -> list[RolloutRow]:
        """See ``RolloutStore.of_version``."""
        return [_rollout(row) for row in self._all("of_version", {"agent": agent, "version": version})]

    def serving_history(self, agent: str) -> list[ServingMove]:
        """See ``RolloutStore.serving_history``."""
        return [ServingMove(**row) for row in self._all("serving_history", {"agent": agent})]

    def baking(self) -> list[RolloutRow]:
        """See ``RolloutStore.baking``."""
        return [_rollout(row) for row in self._all("baking", {})]

    def parked(self) -> list[RolloutRow]:
        """See ``RolloutStore.parked``."""
        return [_rollout(row) for row in self._all("parked", {})]

    def running(self) -> list[RolloutRow]:
        """See ``RolloutStore.running``."""
        return [_rollout(row) for row in self._all("running", {})]

    def reverted_lately(self, within: float) -> list[RolloutRow]:
        """See ``RolloutStore.reverted_lately``."""
        return [_rollout(row) for row in self._all("reverted_lately", {"within": within})]

    def recent(self, agent: str, limit: int = 50) -> list[RolloutRow]:
        """See ``RolloutStore.recent``."""
        return [_rollout(row) for row in self._all("recent", {"agent": agent, "limit": limit})]

    def now(self) -> datetime:
        """See ``RolloutStore.now``."""
        found = self._one("now", {})
        assert found is not None
        return cast(datetime, found["now"])

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
        with self._locked(agent) as (connection, scene):
            change = moves.rolling_back(scene, version, reason)
            self._move(connection, change)
            self._serve(connection, scene, change.serving, actor=actor, reason=reason)
        return self.serving(agent)

    def previous_champion(self, agent: str) -> str | None:
        """See ``RolloutStore.previous_champion``."""
        with self._locked(agent) as (_, scene):
            return scene.serving.previous or scene.before(scene.serving.champion)

    def serving(self, agent: str) -> ServingRow:
        """See ``RolloutStore.serving``."""
        found = self._one("serving", {"agent": agent})
        return ServingRow(agent=agent) if found is None else ServingRow(**found)

    def look(self, rollout_id: int, *, action: RolloutAction, reason: str, evidence: Mapping[str, Any]) -> None:
        """See ``RolloutStore.look``."""
        with self._database.connection() as connection:
            connection.execute(
                self._sql["add_look"],
                {"id": rollout_id, "action": action.value, "reason": reason, "evidence": _json(dict(evidence))},
            )

    def looks(self, rollout_id: int) -> list[dict[str, Any]]:
        """See ``RolloutStore.looks``."""
        return self._all("looks", {"id": rollout_id})

    def stats(
        self, agent: str, version: str, *, since: datetime | None, last: int = NEWEST, label_delay: float = 0.0
    ) -> ArmStats:
        """See ``RolloutStore.stats``."""
        values = {"agent": agent, "version": version, "since": since, "last": last, "label_delay": label_delay}
        found = self._one("stats", values)
        assert found is not None
        return ArmStats(**found)

    def slices(
        self, agent: str, version: str, *, since: datetime | None, last: int = NEWEST, label_delay: float = 0.0
    ) -> dict[str, SliceStats]:
        """See ``RolloutStore.slices``."""
        values = {"agent": agent, "version": version, "since": since, "last": last, "label_delay": label_delay}
        rows = self._all("slices", values)
        return {row["name"]: SliceStats(outcomes=row["outcomes"], correct_sum=row["correct_sum"]) for row in rows}

    def report(self, report: Report) -> ReportResult:
        """See ``RolloutStore.report``."""
        values = {**asdict(report), "kind": report.kind.value}
        with self._database.connection() as connection:
            if connection.execute(self._sql["add_report"], values).fetchone() is not None:
                return ReportResult.ADDED
            known = connection.execute(self._sql["known_report"], values).fetchone()
        return ReportResult.UNKNOWN if known is None else ReportResult.DUPLICATE

    def reporters(self, agent: str, version: str, *, within: float) -> int:
        """See ``RolloutStore.reporters``."""
        found = self._one("reporters", {"agent": agent, "version": version, "within": within})
        assert found is not None
        return int(found["people"])

    def reset_breaker(self, agent: str, *, actor: str, reason: str) -> None:
        """See ``RolloutStore.reset_breaker``."""
        with self._database.connection() as connection:
            connection.execute(self._sql["reset_breaker"], {"agent": agent, "actor": actor, "reason": reason})

    def breaker_reset(self, agent: str) -> datetime | None:
        """See ``RolloutStore.breaker_reset``."""
        found = self._one("breaker_reset", {"agent": agent})
        return None if found is None else found["at"]

    def seconds_on_step(self, rollout_id: int) -> float:
        """See ``RolloutStore.seconds_on_step``."""
        return float(self._seconds(rollout_id)["on_step"])

    def seconds_since_full(self, rollout_id: int) -> float:
        """See ``RolloutStore.seconds_since_full``."""
        return float(self._seconds(rollout_id)["since_full"] or 0.0)

    def recent_inputs(self, agent: str, limit: int) -> list[RecentInput]:
        """See ``RolloutStore.recent_inputs``."""
        return [RecentInput(**row) for row in self._all("recent_inputs", {"agent": agent, "limit": limit})]

    def judged_inputs(self, agent: str, version: str, *, since: datetime, limit: int) -> list[JudgedInput]:
        """See ``RolloutStore.judged_inputs``."""
        values = {"agent": agent, "version": version, "since": since, "limit": limit}
        return [JudgedInput(**row) for row in self._all("judged_inputs", values)]

    def error_rates(self, agent: str, version: str, *, last: int = NEWEST) -> list[ErrorRate]:
        """See ``RolloutStore.error_rates``."""
        return [
            ErrorRate(**row) for row in self._all("error_rates", {"agent": agent, "version": version, "last": last})
        ]

    def gateways(self, agent: str, *, within: float = ALIVE_SECONDS) -> list[GatewayRow]:
        """See ``RolloutStore.gateways``."""
        return [GatewayRow(**row) for row in self._all("gateways", {"agent": agent, "within": within})]

    def gateway_error(self, agent: str, version: str) -> str | None:
        """See ``RolloutStore.gateway_error``."""
        return refusal(self.gateways(agent), version)

    def _apply(
        self, rollout_id: int, rule: Callable[[Scene, RolloutRow], Change], actor: str, reason: str
    ) -> RolloutRow:
        agent = self.get(rollout_id).agent
        with self._locked(agent) as (connection, scene):
            found = connection.execute(self._sql["by_id"], {"id": rollout_id}).fetchone()
            assert found is not None  # rollouts are never deleted
            change = rule(scene, _rollout(found))
            self._move(connection, change)
            self._serve(connection, scene, change.serving, actor=actor, reason=reason)
        return self.get(rollout_id)

    @contextmanager
    def _locked(self, agent: str) -> Iterator[tuple[Connection, Scene]]:
        with self._database.connection() as connection:
            connection.execute(self._sql["ensure_serving"], {"agent": agent})
            found = connection.execute(self._sql["lock_serving"], {"agent": agent}).fetchone()
            assert found is not None
            now = found.pop("now")
            serving = ServingRow(**found)
            rows = connection.execute(self._sql["in_play"], {"agent": agent, "champion": serving.champion}).fetchall()
            champions = connection.execute(self._sql["champions"], {"agent": agent}).fetchall()
            reverted = connection.execute(self._sql["reverted"], {"agent": agent}).fetchall()
            cut_short = connection.execute(self._sql["cut_short"], {"agent": agent}).fetchall()
            yield connection, Scene(
                serving=serving, rollouts=tuple(_rollout(row) for row in rows), now=now,
                champions=tuple(row["version"] for row in champions),
                reverted=frozenset(row["version"] for row in reverted),
                cut_short=tuple(_rollout(row) for row in cut_short),
            )  # fmt: skip

    def _move(self, connection: Connection, change: Change) -> None:
        for row in change.moved:
            connection.execute(
                self._sql["update_rollout"],
                {"id": row.id, "state": row.state.value, "step": row.step, "weight": row.weight, "reason": row.reason,
                 "step_at": row.step_at, "full_at": row.full_at, "ended_at": row.ended_at,
                 "parked": row.parked.value if row.parked is not None else None, "previous": row.previous},
            )  # fmt: skip

    def _serve(self, connection: Connection, scene: Scene, serving: ServingRow, *, actor: str, reason: str) -> None:
        before = scene.serving
        if serving == before:
            return
        connection.execute(
            self._sql["set_serving"],
            {"agent": serving.agent, "champion": serving.champion, "previous": serving.previous,
             "candidate": serving.candidate, "weight": serving.weight, "rollout_id": serving.rollout_id},
        )  # fmt: skip
        for alias, was, now in (
            ("champion", before.champion, serving.champion), ("candidate", before.candidate, serving.candidate)
        ):  # fmt: skip
            if was != now:
                connection.execute(
                    self._sql["move_alias"],
                    {"agent": serving.agent, "alias": alias, "version": now, "actor": actor, "reason": reason},
                )
        connection.execute(self._sql["notify"], {"agent": serving.agent})

    def _seconds(self, rollout_id: int) -> dict[str, Any]:
        found = self._one("seconds", {"id": rollout_id})
        if found is None:
            raise RolloutError(f"there is no rollout {rollout_id}")
        return found

    def _one(self, name: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        with self._database.connection() as connection:
            return connection.execute(self._sql[name], values).fetchone()

    def _all(self, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._database.connection() as connection:
            return connection.execute(self._sql[name], values).fetchall()


def refusal(gateways: Sequence[GatewayRow], version: str) -> str | None:
    """What the first gateway that refused ``version`` says; errors of gateways begin with the version that they are
    about."""
    for gateway in gateways:
        for line in (gateway.error or "").splitlines():
            if line.startswith(f"{version} {REFUSED}"):
                return f"{gateway.instance}: {line}"
    return None


def _rollout(row: Mapping[str, Any]) -> RolloutRow:
    words = {"state": RolloutState(row["state"]), "parked": Parked(row["parked"]) if row["parked"] else None}
    return RolloutRow(**{**row, **words, "plan": Plan.from_record(row["plan"])})


def _json(value: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(value)
