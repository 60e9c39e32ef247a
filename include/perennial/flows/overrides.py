"""Settings that a person set for a while: who may, what they do to the fleet, and how a running job keeps its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

from perennial.domain.job import BatchRef
from perennial.domain.words import JSON
from perennial.errors import FleetError, NotConfigured
from perennial.fleet.agent import Agent
from perennial.fleet.check import mistakes
from perennial.fleet.loader import Fleet, FleetFileError, Member
from perennial.fleet.override_store import OverrideStore
from perennial.fleet.overrides import Override, applied, holding, loosens, parse, value_of
from perennial.flows.ports import Ports

FROZEN = "agent_overrides"  # in a job's config: what held when it was claimed


def overridden(load: Callable[[], Fleet], store: OverrideStore) -> Fleet:
    """The fleet of the files with the overrides that hold now; one that does not fit (any more) is an error of its file.

    This is ``Ports.fleet``. Whoever parses DAG files reads the files alone. StoreUnavailable when the store is away.
    """
    fleet = load()
    active = store.active() if fleet.members else ()
    errors = list(fleet.errors)
    members = []
    for member in fleet.members:
        mine = [one for one in active if one.agent == member.agent.name]
        members.append(member if not mine else _with(member, mine, errors))
    return Fleet(members=tuple(members), errors=tuple(errors))


def _with(member: Member, overrides: list[Override], errors: list[FleetFileError]) -> Member:
    agent, kept, problems = holding(member.as_declared, overrides)
    errors += [FleetFileError(file=str(member.file), line=1, message=problem) for problem in problems]
    return replace(member, agent=agent, declared=member.as_declared, overrides=kept)


def set_override(
    ports: Ports, agent: str, key: str, text: str, *, seconds: float, actor: str, reason: str
) -> Override:  # fmt: skip
    """Let a setting hold for a while, audited. Runs in the CLI.

    FleetError when the setting may not be set, the value is not of its type or range, contradicts another setting, makes a gate
    laxer, or when actor, reason or time are missing. Trainings and rollouts that run keep what they began with.
    """
    store = _store(ports)
    member = ports.fleet().member(agent)
    declared = member.as_declared
    value = parse(key, text)
    after = applied(member.agent, {key: value})
    known = {one.says for one in mistakes(declared)}
    new = [one for one in mistakes(after) if one.says not in known]
    if new:
        raise FleetError(f"{key} of {agent} cannot be {value}: {new[0].field}: {new[0].says}")
    before = _told(ports, declared, key)
    why_not = loosens(key, value, before)
    if why_not:
        raise FleetError(why_not)
    made = store.set(agent, key, value, seconds=seconds, actor=actor, reason=reason)
    ports.audit.append(
        actor=actor, action="override_set", agent=agent, subject=key,
        detail={"value": value, "declared": before, "until": made.until.isoformat(), "reason": reason, "override": made.id},
    )  # fmt: skip
    return made


def unset_override(ports: Ports, agent: str, key: str, *, actor: str, reason: str) -> bool:
    """End an override before its time, audited; False when none holds, and then nothing is written."""
    ended = _store(ports).unset(agent, key, actor=actor, reason=reason)
    if ended:
        ports.audit.append(
            actor=actor, action="override_unset", agent=agent, subject=key, detail={"reason": reason}
        )  # fmt: skip
    return ended


def freeze(ports: Ports, member: Member, job_id: UUID, attempt: int) -> Agent:
    """Write what holds now into the job's record, once; the agent as this job will see it until its end.

    A later attempt of the job goes on with what its first one froze.
    """
    records = ports.buffer.job(job_id).config.get(FROZEN)
    if records is None:
        records = [one.as_record(member.as_declared) for one in member.overrides]
        ports.buffer.update_job_record(job_id, attempt, config={FROZEN: records})
    return _with_frozen(member, records).agent


def member_of(ports: Ports, ref: BatchRef) -> Member:
    """The member of a claim with the overrides that held when it was claimed, not those of now."""
    return _with_frozen(ports.fleet().member(ref.agent), frozen_overrides(ports, ref.job_id))


def agent_of(ports: Ports, ref: BatchRef) -> Agent:
    """The agent of a claim, as ``member_of``."""
    return member_of(ports, ref).agent


def frozen_overrides(ports: Ports, job_id: UUID) -> list[dict[str, Any]]:
    """What a job was claimed under, as its record and its release's manifest hold it; empty when nothing was set."""
    return list(ports.buffer.job(job_id).config.get(FROZEN) or [])


def _with_frozen(member: Member, records: Iterable[dict[str, Any]]) -> Member:
    values: dict[str, JSON] = {one["key"]: one["value"] for one in records}
    return replace(member, agent=applied(member.as_declared, values), declared=member.as_declared)


def _told(ports: Ports, declared: Agent, key: str) -> Any:
    """What holds without the override; for a None what was set for the deployment, else its settings, as the gates see it."""
    value, name = value_of(declared, key), key.rsplit(".", 1)[-1]
    return ports.buffer.overrides().get(name, getattr(ports.settings, name, None)) if value is None else value


def _store(ports: Ports) -> OverrideStore:
    if ports.overrides is None:
        raise NotConfigured("the store of overrides", "this deployment has none; change the agent's file")
    return ports.overrides
