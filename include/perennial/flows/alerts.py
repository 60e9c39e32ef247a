"""What is wrong now, raised once per cause and told until it was taken (DAG ``alerts``, every minute).

Level-triggered: causes are computed from the tables at every look, so a look that was missed or killed costs a minute and loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from perennial.alerts.channel import Channel
from perennial.alerts.kinds import Cause, Kind
from perennial.alerts.store import AlertStore
from perennial.domain.words import GateAction, JobStatus, RolloutState
from perennial.errors import AlertUndelivered, AuditBroken, NotConfigured, StoreUnavailable
from perennial.flows import sealing
from perennial.flows.pause import overspent_of, pause_of
from perennial.flows.ports import Ports
from perennial.ingest.job_log import Standing

logger = logging.getLogger(__name__)

AUDIT_CHECK = "audit"
RUNS = "run:"  # keys of failed runs, which Airflow alone knows
LATELY = timedelta(days=1)  # a failed run that nobody repeated is news for so long
_SHORT = 300  # characters of a reason
_MOST_OPEN = 1000


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The causes that stand, and the beginnings of ``kind:key:`` that could not be looked at."""

    causes: tuple[Cause, ...]
    blind: tuple[str, ...] = ()


def look(ports: Ports) -> Seen:
    """Every cause that stands now. Raises StoreUnavailable when PostgreSQL is away.

    Without Airflow its runs are left as they were. An agent whose file does not load is looked at as the store keeps it; what only its
    file tells, breaker and budget, is left as it was.
    """
    ports = ports.with_fleet_read()
    fleet = ports.fleet()
    unread = sorted(ports.buffer.fleet().keys() - set(fleet.names)) if fleet.errors else []
    blind = [f"{kind.value}:{agent}:" for kind in (Kind.BREAKER, Kind.BUDGET) for agent in unread]
    standings = {one.agent: one for one in ports.jobs.standings()}
    quiet = set(ports.buffer.quiet(ports.settings.alert_quiet_hours * 3600.0))
    causes = [
        cause
        for agent in (*fleet.names, *unread)
        for cause in _of_agent(ports, agent, standings.get(agent), quiet=agent in quiet)
    ]
    causes += _audit(ports)
    try:
        causes += [*_runs(ports)]  # all of them or none
    except (StoreUnavailable, NotConfigured) as error:
        logger.warning("Airflow's runs cannot be looked at: %s", error)
        blind.append(f"{Kind.FAILURE.value}:{RUNS}")
    return Seen(causes=tuple(causes), blind=tuple(blind))


def _of_agent(ports: Ports, agent: str, standing: Standing | None, *, quiet: bool) -> Iterator[Cause]:
    if standing is not None:
        yield from _training(agent, standing, ports.settings.alert_lease_seconds)
    reports = ports.ledger.gate_reports(agent, 1)
    if reports and reports[0].action == GateAction.HOLD:
        text = (
            f"{agent}: the gates held the candidate of job {reports[0].job_id}: {reports[0].report.get('summary', '')}"
        )
        yield Cause(kind=Kind.HOLD, key=str(reports[0].job_id), agent=agent, text=text[:_SHORT])
    rollout = ports.rollouts.latest(agent)
    if rollout is not None and rollout.state is RolloutState.REVERTED:
        text = f"{agent} {rollout.version} was taken out of traffic: {rollout.reason}"
        yield Cause(kind=Kind.ROLLBACK, key=f"{agent}:{rollout.id}", agent=agent, text=text[:_SHORT])
    paused = pause_of(ports, agent)
    if paused is not None:
        yield Cause(kind=Kind.BREAKER, key=agent, agent=agent, text=f"{agent}: {paused.reason}")
    spent = overspent_of(ports, agent)
    if spent is not None:
        yield Cause(kind=Kind.BUDGET, key=agent, agent=agent, text=f"{agent}: {spent}")
    if quiet:
        hours = ports.settings.alert_quiet_hours
        yield Cause(kind=Kind.QUIET, key=agent, agent=agent, text=f"{agent}: nothing came in for {hours:g} hours")


def _training(agent: str, standing: Standing, patience: float) -> Iterator[Cause]:
    if standing.last_status == JobStatus.FAILED:
        text = f"{agent}: the training of job {standing.last_job} failed: {standing.last_note or 'it gave no reason'}"
        yield Cause(kind=Kind.FAILURE, key=f"agent:{agent}", agent=agent, text=text[:_SHORT])
    if standing.stuck_job is not None and (standing.stuck_seconds or 0.0) > patience:
        text = f"{agent}: job {standing.stuck_job} holds its rows, and its worker stopped renewing the claim"
        yield Cause(kind=Kind.LEASE, key=str(standing.stuck_job), agent=agent, text=text)


def _audit(ports: Ports) -> Iterator[Cause]:
    last = ports.alerts.check(AUDIT_CHECK) if ports.alerts is not None else None
    if last is not None and not last.ok:
        yield Cause(kind=Kind.AUDIT, key="chain", text=f"the audit does not verify: {last.text}"[:_SHORT])


def _runs(ports: Ports) -> Iterator[Cause]:
    """Failed runs of our DAGs, but for those whose failure is told already as a training's or a rollback's."""
    if ports.runs is None:
        return
    for dag, run in ports.runs.failed(datetime.now(UTC) - LATELY):
        kind, _, agent = dag.partition("_")
        job = ports.buffer.job_of_run(agent, run) if kind == "train" else None
        rollout = ports.rollouts.of_run(agent, run) if kind == "rollout" else None
        if job is not None and job.status is not JobStatus.PENDING:
            continue
        if rollout is not None and rollout.state is RolloutState.REVERTED:
            continue
        yield Cause(kind=Kind.FAILURE, key=f"{RUNS}{dag}", text=f"the newest run of {dag} failed: {run}"[:_SHORT])


def verify_audit(ports: Ports) -> bool | None:
    """Walk the audit's chain when the last walk is older than the setting says; whether it holds, None when it was not due.

    Runs in the DAG ``alerts``. What it found is kept, so the alert stands until a later walk is sound.
    """
    last = _store(ports).check(AUDIT_CHECK)
    hours = ports.settings.alert_audit_hours
    # what was broken is looked at again soon, so that the alert closes soon after the repair
    if last is not None and last.age < 3600.0 * (hours if last.ok else min(hours, 1.0)):
        return None
    return keep_audit_check(ports)


def keep_audit_check(ports: Ports) -> bool:
    """Walk the audit's chain now, and keep what was found for the alert."""
    try:
        report = sealing.verify(ports).report
        ok, text = report.sound, "" if report.sound else report.findings[0].text
    except AuditBroken as error:  # the file of heads itself is damaged
        ok, text = False, str(error)
    _store(ports).note_check(AUDIT_CHECK, ok=ok, text=text[:_SHORT])
    return ok


def tick(ports: Ports, channel: Channel | None) -> dict[str, Any]:
    """Raise what is wrong now, close what is over, and tell what nobody was told; counts, and what did not get out.

    Each alert is marked after the channel took it: killed in between, it is told twice and never lost. Without a channel
    everything stays in the list (``perennial alerts``).
    """
    store = _store(ports)
    seen = look(ports)
    store.keep(seen.causes, blind=seen.blind)
    told, failed = _tell(store, channel) if channel is not None else (0, "")
    open_now = store.recent(limit=_MOST_OPEN)
    return {
        "open": len(open_now),
        "told": told,
        "undelivered": failed,
        "kinds": _counts([one.kind for one in open_now]),
    }


def _tell(store: AlertStore, channel: Channel) -> tuple[int, str]:
    told = 0
    for alert in store.undelivered():
        try:
            channel.send(alert)
        except AlertUndelivered as error:
            return told, str(error)  # the next look tells it again; a channel that is away is not asked a hundred times
        store.delivered(alert.id)
        told += 1
    return told, ""


def _store(ports: Ports) -> AlertStore:
    if ports.alerts is None:
        raise NotConfigured("PERENNIAL_DATABASE_URL", "alerts are kept in the database")
    return ports.alerts


def _counts(kinds: Sequence[Kind]) -> dict[str, int]:
    return {kind.value: kinds.count(kind) for kind in Kind if kind in kinds}


def note(outcome: dict[str, Any]) -> str:
    """One line for the run's note; empty when nothing is open and nothing was told.

    >>> note({"open": 2, "told": 1, "undelivered": "", "kinds": {"hold": 2}})
    '2 open (hold 2); told 1'
    """
    if not outcome["open"] and not outcome["told"] and not outcome["undelivered"]:
        return ""
    kinds = ", ".join(f"{kind} {count}" for kind, count in outcome["kinds"].items())
    lines = [f"{outcome['open']} open" + (f" ({kinds})" if kinds else ""), f"told {outcome['told']}"]
    return "; ".join([*lines, *([outcome["undelivered"]] if outcome["undelivered"] else [])])
