"""Why did this model serve that day: everything that is on record about one version, or one refused candidate, as one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from perennial.domain.words import GateAction
from perennial.errors import NotConfigured, PerennialError, RegistryError, StoreError, UntrustedBundle
from perennial.flows.champion import bundle_folder
from perennial.flows.overrides import frozen_overrides
from perennial.flows.ports import Ports
from perennial.ingest.results import Job, KnownRow
from perennial.registry.recipe import Role
from perennial.registry.rows import Alias, AliasMove, ExampleUse, Release, StoredReport
from perennial.rollout.rows import RolloutRow, ServingMove

MOVES = 100_000  # of aliases that are read: all of them, in practice
NOT_CHECKED = "not checked here; `perennial explain` fetches the files and checks it, as does whoever serves them"


@dataclass(frozen=True, kw_only=True, slots=True)
class Period:
    """A time in which the version was champion or candidate; ``until`` None: it still is. ``shares``: (since, share of keys)."""

    alias: str
    since: datetime
    until: datetime | None
    actor: str
    reason: str
    shares: tuple[tuple[datetime, float], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """What served at one time. ``share`` is the candidate's share of the keys, None when it was not on record yet."""

    time: datetime
    champion: str | None
    since: datetime | None = None
    until: datetime | None = None
    actor: str = ""
    reason: str = ""
    candidate: str | None = None
    share: float | None = None
    first: tuple[str, datetime] | None = None  # the first version that ever served, when nothing did yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Trigger:
    """Why and how the training ran. ``missing`` says why there is nothing, when there is nothing."""

    job_id: str
    reason: str = ""
    mode: str = ""
    requested_by: str = ""
    forced: bool = False
    run_id: str = ""
    status: str = ""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    note: str = ""
    missing: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What one task was made from; counts over new and replayed rows by source and priority, as the buffer has them now."""

    task: str
    how: str  # trained, or the version whose files it keeps
    base: str | None = None
    new: int = 0
    replay: int = 0
    holdout: int = 0
    sources: Mapping[str, int] = field(default_factory=dict)
    priorities: Mapping[str, int] = field(default_factory=dict)
    gone: int = 0
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one gate said."""

    gate: str
    action: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """A person's decision on the candidate."""

    decision: str
    actor: str
    at: datetime
    expires_at: datetime
    comment: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One look at traffic that changed something."""

    at: datetime
    state: str
    step: int
    action: str
    reason: str


def look_of(row: Mapping[str, Any]) -> Look:
    """A look as the store of rollouts keeps it, without its evidence."""
    return Look(at=row["at"], state=row["state"], step=row["step"], action=row["action"], reason=row["reason"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Rolled:
    """One rollout: its frozen steps, what was seen, how it stands or ended."""

    id: int
    run_id: str
    previous: str | None
    steps: tuple[float, ...]
    state: str
    reason: str
    started_at: datetime
    full_at: datetime | None
    ended_at: datetime | None
    looks: tuple[Look, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ancestor:
    """One step of the way back to the first version."""

    version: str
    base: str | None
    released_at: datetime
    reason: str
    mode: str
    examples: int
    gate: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """The page. ``version`` is None for a candidate that was never released; ``outcome`` says in a line what became of it."""

    agent: str
    version: str | None
    outcome: str
    moment: Moment | None = None
    released_at: datetime | None = None
    digest: str = ""
    content_digest: str = ""
    signature: str = ""
    periods: tuple[Period, ...] = ()
    trigger: Trigger | None = None
    trained: tuple[Trained, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    overrides: tuple[Mapping[str, Any], ...] = ()  # what a person had set for a while when its job was claimed
    gate_action: str = ""
    gate_summary: str = ""
    gates: tuple[Answer, ...] = ()
    approval_needed: bool = False
    decisions: tuple[Decided, ...] = ()
    rollouts: tuple[Rolled, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    chain: tuple[Ancestor, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data; times are still ``datetime``."""
        return asdict(self)


def explain(
    ports: Ports, agent: str, subject: str | None = None, *, at: datetime | None = None, chain: bool = False,
    check_files: bool = True,
) -> Explanation:  # fmt: skip
    """Gather what is on record; nothing is written. Runs on the command line and in the pages.

    ``subject`` is a version, or the id of a job whose candidate was refused; left out, it is what served ``at`` that time
    or serves now. Without ``check_files`` the model store is not asked: no bundle is fetched, and there are no links to it.
    RegistryError when the agent or the subject is unknown, or when the job is another agent's.
    """
    moves = ports.ledger.moves(agent, MOVES)
    history = ports.rollouts.serving_history(agent)
    moment = moment_of(moves, history, at) if at is not None else None
    version = subject or (moment.champion if moment else ports.ledger.champion(agent))
    if version is None:
        if not ports.ledger.versions(agent):
            raise RegistryError(f"{agent} has no release; `perennial models` lists the agents that have one")
        said = "nothing served then" if moment else "nothing serves now"
        return Explanation(agent=agent, version=None, outcome=said, moment=moment)
    job_id = _as_uuid(version)
    if job_id is not None:
        released = ports.ledger.version_of_job(job_id)
        if released is None:
            return _refused(ports, agent, job_id, moment)
        _check_owner(agent, job_id, released.agent)
        version = released.version
    release = ports.ledger.version(agent, version)
    if release is None:
        raise RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")
    return _released(ports, release, moves, history, moment, chain, check_files)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _check_owner(agent: str, job_id: UUID, owner: str) -> None:
    if owner != agent:  # its version, if it has one, may be another model's here
        raise RegistryError(f"job {job_id} is one of {owner}, not of {agent}; ask about it under that agent")


def _released(
    ports: Ports, release: Release, moves: Sequence[AliasMove], history: Sequence[ServingMove], moment: Moment | None,
    chain: bool, check_files: bool,
) -> Explanation:  # fmt: skip
    record, agent, version = release.manifest, release.agent, release.version
    report = ports.ledger.gate_report(release.job_id) if release.job_id else None
    rollouts = tuple(_rolled(ports, row) for row in ports.rollouts.of_version(agent, version))
    periods = periods_of(version, moves, history)
    return Explanation(
        agent=agent, version=version, outcome=outcome_of(version, periods, rollouts), moment=moment,
        released_at=release.created_at, digest=release.digest, content_digest=record["content_digest"],
        signature=_signature(ports, agent, version) if check_files else NOT_CHECKED, periods=periods,
        overrides=tuple(record.get("overrides", ())),
        trigger=_trigger(ports, release.job_id, record), trained=_trained(ports, release), metrics=record["metrics"],
        **_gates(report), decisions=_decisions(ports, release.job_id), rollouts=rollouts,
        links=_links(ports, agent, version) if check_files else {}, chain=_chain(ports, release) if chain else (),
    )  # fmt: skip


def _refused(ports: Ports, agent: str, job_id: UUID, moment: Moment | None) -> Explanation:
    """A candidate that never became a version: its job, its gates, and who said no."""
    report = ports.ledger.gate_report(job_id)
    trigger = _trigger(ports, job_id, {})
    if report is None and trigger.missing:
        raise RegistryError(f"{agent} has no job {job_id}; `perennial models {agent}` lists the jobs of the releases")
    _check_owner(agent, job_id, report.agent if report is not None else ports.buffer.job(job_id).agent)
    decisions = _decisions(ports, job_id)
    ended = "not released yet" if trigger.status and trigger.completed_at is None else "never released"
    outcome = f"{ended}: {trigger.note or trigger.status or 'the job left no note'}"
    return Explanation(
        agent=agent, version=None, outcome=outcome, moment=moment, trigger=trigger, **_gates(report), decisions=decisions,
        overrides=() if trigger.missing else tuple(frozen_overrides(ports, job_id)),
        content_digest=report.content_digest if report else "",
    )  # fmt: skip


# --- what served ----------------------------------------------------------------------------------------------------------------


def periods_of(version: str, moves: Sequence[AliasMove], history: Sequence[ServingMove]) -> tuple[Period, ...]:
    """The times in which a version was champion or candidate, oldest first; ``moves`` are newest first."""
    found = []
    for alias in Alias:
        line = [move for move in reversed(moves) if move.alias is alias]
        for number, move in enumerate(line):
            if move.version == version:
                until = line[number + 1].moved_at if number + 1 < len(line) else None
                shares = shares_of(version, history, move.moved_at, until) if alias is Alias.CANDIDATE else ()
                found.append(
                    Period(
                        alias=alias.value, since=move.moved_at, until=until, actor=move.actor, reason=move.reason, shares=shares
                    )
                )  # fmt: skip
    return tuple(sorted(found, key=lambda period: period.since))


def shares_of(
    version: str, history: Sequence[ServingMove], since: datetime, until: datetime | None
) -> tuple[tuple[datetime, float], ...]:
    """When a candidate got which share of the keys, within one period."""
    return tuple(
        (move.changed_at, round(move.weight, 6))
        for move in history
        if move.candidate == version and move.weight > 0 and move.changed_at >= since
        and (until is None or move.changed_at < until)
    )  # fmt: skip


def moment_of(moves: Sequence[AliasMove], history: Sequence[ServingMove], time: datetime) -> Moment:
    """What served at one time, from when until when; ``moves`` are newest first, ``history`` oldest first.

    >>> from datetime import UTC
    >>> moment_of([], [], datetime(2026, 11, 21, tzinfo=UTC)).champion is None
    True
    """
    lines = {alias: [move for move in reversed(moves) if move.alias is alias] for alias in Alias}
    now = {alias: [move for move in line if move.moved_at <= time] for alias, line in lines.items()}
    champions = lines[Alias.CHAMPION]
    first = next(((move.version, move.moved_at) for move in champions if move.version is not None), None)
    past = now[Alias.CHAMPION]
    if not past or past[-1].version is None:
        return Moment(time=time, champion=None, first=first)
    served, following = past[-1], champions[len(past)] if len(past) < len(champions) else None
    candidates = now[Alias.CANDIDATE]
    candidate = candidates[-1].version if candidates else None
    known = [move for move in history if move.changed_at <= time]
    share = round(known[-1].weight, 6) if known and known[-1].candidate == candidate else None
    return Moment(
        time=time, champion=served.version, since=served.moved_at, until=following.moved_at if following else None,
        actor=served.actor, reason=served.reason, candidate=candidate, share=share if candidate else None,
    )  # fmt: skip


def outcome_of(version: str, periods: Sequence[Period], rollouts: Sequence[Rolled]) -> str:
    """One line: serves, is on its way, served and was replaced, was reverted, or never met traffic.

    >>> outcome_of("1.0.0", (), ())
    'never met traffic'
    """
    open_ended = [period for period in periods if period.until is None]
    if any(period.alias == Alias.CHAMPION.value for period in open_ended):
        return "serves now"
    if open_ended:
        return "is on its way as candidate"
    last = rollouts[-1] if rollouts else None
    if last is not None and last.state in {"reverted", "superseded"}:
        told = f": {last.reason}" if last.reason else ""
        return f"{'served and ' if last.full_at else ''}was {last.state}{told}"
    return "served, and was replaced" if any(period.alias == "champion" for period in periods) else "never met traffic"


# --- where it came from ---------------------------------------------------------------------------------------------------------


def _trigger(ports: Ports, job_id: UUID | None, record: Mapping[str, Any]) -> Trigger:
    known = {"job_id": str(job_id or ""), "reason": record.get("reason", ""), "mode": record.get("mode", "")}
    if job_id is None:
        return Trigger(**known, missing="the release names no job")
    try:
        job: Job = ports.buffer.job(job_id)
    except StoreError as error:
        return Trigger(**known, missing=str(error))
    return Trigger(
        job_id=str(job_id), reason=job.reason.value, mode=record.get("mode", job.mode), requested_by=job.requested_by,
        forced=job.forced, run_id=job.run_id, status=job.status.value, started_at=job.started_at,
        completed_at=job.completed_at, note=job.note,
    )  # fmt: skip


def _trained(ports: Ports, release: Release) -> tuple[Trained, ...]:
    uses = ports.ledger.examples_of_version(release.agent, release.version)
    learned = [use.example_id for use in uses if use.role is not Role.HOLDOUT]
    known = ports.buffer.rows_by_id(learned) if learned else {}
    recipe = release.manifest.get("recipe") or {"tasks": {}, "carried": {}}
    names = sorted({use.task for use in uses} | set(recipe["tasks"]))
    found = [_of_task(name, [use for use in uses if use.task == name], known, recipe["tasks"]) for name in names]
    return (*found, *(Trained(task=task, how=f"kept from {version}") for task, version in recipe["carried"].items()))


def _of_task(
    task: str, uses: Sequence[ExampleUse], known: Mapping[UUID, KnownRow], recipes: Mapping[str, Any]
) -> Trained:
    ids = {role: [use.example_id for use in uses if use.role is role] for role in Role}
    rows = [known.get(identity) for identity in (*ids[Role.NEW], *ids[Role.REPLAY])]
    here = [row for row in rows if row is not None and row.row is not None]
    return Trained(
        task=task, how="trained", base=recipes[task]["base"] if task in recipes else None, new=len(ids[Role.NEW]),
        replay=len(ids[Role.REPLAY]), holdout=len(ids[Role.HOLDOUT]), sources=dict(Counter(row.source for row in here)),
        priorities=dict(sorted(Counter(str(row.priority) for row in here).items())), gone=len(rows) - len(here),
        ids={role.value: tuple(str(identity) for identity in listed) for role, listed in ids.items()},
    )  # fmt: skip


def _gates(report: StoredReport | None) -> dict[str, Any]:
    if report is None:
        return {"gate_action": "", "gate_summary": "no gate report is on record", "gates": ()}
    return {
        "gate_action": report.action, "gate_summary": report.report.get("summary", ""),
        "approval_needed": report.action == GateAction.APPROVE.value,
        "gates": tuple(
            Answer(gate=line["gate"], action=line["action"], reason=line["reason"])
            for line in report.report.get("verdicts", ())
        ),
    }  # fmt: skip


def _decisions(ports: Ports, job_id: UUID | None) -> tuple[Decided, ...]:
    return tuple(
        Decided(
            decision=row.decision.value, actor=row.actor, at=row.created_at, expires_at=row.expires_at,
            comment=f"does not count: {row.void}" if row.void else row.comment,
        )
        for row in reversed(ports.ledger.decisions(job_id=job_id) if job_id else ())
    )  # fmt: skip


def _rolled(ports: Ports, row: RolloutRow) -> Rolled:
    return Rolled(
        id=row.id, run_id=row.run_id, previous=row.previous, steps=row.plan.steps, state=row.state.value,
        reason=row.reason, started_at=row.started_at, full_at=row.full_at, ended_at=row.ended_at,
        looks=tuple(look_of(look) for look in ports.rollouts.looks(row.id)),
    )  # fmt: skip


def _signature(ports: Ports, agent: str, version: str) -> str:
    try:
        bundle_folder(ports, agent, version)
    except UntrustedBundle as error:
        return f"REFUSED: {error}"
    except NotConfigured as error:
        return f"not checked: {error}"
    except RegistryError as error:
        return f"not checked, the bundle cannot be fetched: {error}"
    return "verified now: signature, digest, manifest and ledger row agree"


def _links(ports: Ports, agent: str, version: str) -> Mapping[str, str]:
    try:
        return dict(ports.models.links(agent, version))
    except PerennialError as error:
        return {"none": str(error)}


def _chain(ports: Ports, release: Release) -> tuple[Ancestor, ...]:
    """This version and its bases, back to the first one."""
    found: list[Ancestor] = []
    here: Release | None = release
    while here is not None and all(here.version != known.version for known in found):
        record = here.manifest
        found.append(
            Ancestor(
                version=here.version, base=here.base_version, released_at=here.created_at, reason=record["reason"],
                mode=record["mode"], examples=record["examples"]["count"], gate=record["gate_action"],
            )
        )  # fmt: skip
        here = ports.ledger.version(here.agent, here.base_version) if here.base_version else None
    return tuple(found)
