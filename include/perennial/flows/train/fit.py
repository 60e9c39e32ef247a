"""Choose what each task trains on, then train it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.job import BatchRef
from perennial.domain.model import TaskBatch, Trainer
from perennial.domain.words import RolloutState, TaskKind
from perennial.errors import EmptyBatch, TrainingError
from perennial.fleet.agent import Agent, Task
from perennial.flows.champion import champion_folder, component
from perennial.flows.overrides import agent_of
from perennial.flows.ports import Ports
from perennial.flows.provenance import machine
from perennial.flows.quiet import quiet
from perennial.flows.scanning import scan
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.train.screen import screened
from perennial.flows.workspace import Workspace
from perennial.selection.labels import LabelChoice, choose_labels
from perennial.selection.neighbours import Separation, separate
from perennial.selection.replay import stratified_replay
from perennial.trainers.catalogue import same_method, trainer_for

logger = logging.getLogger(__name__)

REPLAY_POOL = 2000  # trained rows from which the replay is drawn
_ROLLOUTS = 1000  # newest rollouts in which versions that production took back are looked for
_CORRECTIONS = 1000  # newest corrections, as many as are replayed at most


@quiet
def select(ports: Ports, ref: BatchRef) -> list[str]:
    """Write what each task trains and is judged on to the workspace; returns the tasks with anything to train.

    Freezes the holdout as of the job's start and keeps near-duplicates apart: a row that repeats a holdout text leaves the
    batch, or is not replayed, unless it is a correction, new or replayed, which stays while the holdout row leaves. Rows of a
    label that is new and still too rare wait as ``held``, and so do those that the screening against poisoning holds back.
    Raises EmptyBatch when nothing is left. Run again after a kill, a choice that was made stays: what was trained by then was
    trained on it.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    agent = agent_of(ports, ref)
    space = Workspace.of(ports.work, ref)
    if space.has("select.json"):
        return _chosen(ports, ref, space)
    champion = champion_folder(ports, ref.agent)
    started = ports.buffer.job_started(ref.job_id)
    summary: dict[str, Any] = {"champion": champion[0] if champion else None, "tasks": {}}
    screening = screened(ports, ref, agent, space)
    summary["screening"] = screening.report
    for name, rows in screening.rows.items():
        spec = agent.task(name)
        known = _champion_labels(ports, ref.agent, name)
        choice = _choose(spec, rows, known)
        if choice.set_aside:
            ids = [row.example_id for row in choice.set_aside]
            ports.buffer.set_aside(ref.job_id, ref.attempt, ids, state="held", reason="new_label_waiting")
        held_out = ports.buffer.holdout(ref.agent, name, started, agent.selection.holdout_max)
        past = _past(ports, ref.agent, agent, spec, choice)
        apart, replay = _apart(choice.rows, past, screening.holdout(ports, name, held_out), agent)
        repeats = {row.example_id for row in apart.dropped}
        new = [row for row in choice.rows if row.example_id not in repeats]
        if repeats:
            ports.buffer.set_aside(
                ref.job_id, ref.attempt, sorted(repeats), state="superseded", reason="near_duplicate_of_holdout"
            )
        if not new:
            continue
        _write_task(ports, ref, space, agent, spec, new, replay, past.regression, apart.holdout)
        summary["tasks"][name] = {
            "new": len(new), "holdout": len(apart.holdout), "labels": list(choice.labels),
            "new_labels": list(choice.new) if known else [],
        }  # fmt: skip
    if not summary["tasks"]:
        raise EmptyBatch(
            "no row of the batch can be trained: all wait for a person or a new label's minimum, or repeat the holdout"
        )
    if champion is not None:  # where production says that it errs
        rates = ports.rollouts.error_rates(ref.agent, champion[0])
        summary["production_errors"] = {one.task: {"judged": one.judged, "rate": round(one.rate, 4)} for one in rates}
    space.write_json("select.json", summary)
    return _chosen(ports, ref, space)


def _chosen(ports: Ports, ref: BatchRef, space: Workspace) -> list[str]:
    """Note the choice in the job's record; the tasks to train, in order."""
    summary = space.read_json("select.json")
    ports.buffer.update_job_record(ref.job_id, ref.attempt, dataset=_dataset_record(space, summary))
    return [str(task) for task in summary["tasks"]]


def _choose(spec: Task, rows: Sequence[TrainingRow], known: tuple[str, ...]) -> LabelChoice:
    if spec.kind is TaskKind.SCORE:
        return LabelChoice(labels=(), new=(), rows=tuple(rows), set_aside=())
    return choose_labels(rows, known, new_label_rows=spec.new_label_rows, closed=spec.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Past:
    """Trained rows of one task: ``regression`` must stay right, ``taught`` are those of them that are replayed in any case, and
    from ``pool`` the rest of the replay is drawn."""

    regression: tuple[TrainingRow, ...]
    taught: tuple[TrainingRow, ...]
    pool: tuple[TrainingRow, ...]


def _past(ports: Ports, name: str, agent: Agent, spec: Task, choice: LabelChoice) -> _Past:
    def known(row: TrainingRow) -> bool:
        return spec.kind is TaskKind.SCORE or row.label in choice.labels

    ids = {row.example_id for row in choice.rows}
    regression = tuple(
        row for row in ports.buffer.regression(name, spec.name) if row.example_id not in ids and known(row)
    )
    refused = _taken_back(ports, name)
    taken = ids | {row.example_id for row in regression}
    pool = ports.buffer.replay_candidates(name, spec.name, REPLAY_POOL, agent.seed)
    return _Past(
        regression=regression, taught=tuple(row for row in regression if row.example_id not in refused),
        pool=tuple(row for row in pool if row.example_id not in taken and known(row)),
    )  # fmt: skip


def _apart(
    new: Sequence[TrainingRow], past: _Past, holdout: Sequence[TrainingRow], agent: Agent
) -> tuple[Separation, tuple[TrainingRow, ...]]:
    """New rows and holdout without near duplicates between them or the replay, and that replay.

    A row that is replayed stays trained and is only not drawn while something like it judges; a correction among them, taught
    again or drawn, stays as a new one does, and the holdout row leaves. Usually the rows that were drawn are all that is
    compared; when one of them is in the holdout, so is the pool, once, and the replay is drawn again from what is left.
    """
    # earlier corrections are always replayed, so that a later update does not unlearn them, and brings back those of a candidate
    # that gives way to this one; they never take more than half of the places of the ordinary rows, which show what else must stay
    places = max(agent.selection.replay - len(past.taught), (agent.selection.replay + 1) // 2)
    replay = (*past.taught, *stratified_replay(past.pool, places, seed=agent.seed))
    apart = separate((*new, *replay), holdout)
    drawn = {row.example_id for row in replay}
    if any(row.example_id in drawn for row in apart.dropped):
        pool = separate(past.pool, holdout).training
        replay = (*past.taught, *stratified_replay(pool, places, seed=agent.seed))
        apart = separate((*new, *replay), holdout)
    return apart, replay


def _write_task(
    ports: Ports,
    ref: BatchRef,
    space: Workspace,
    agent: Agent,
    spec: Task,
    rows: Sequence[TrainingRow],
    replay: tuple[TrainingRow, ...],
    usable: tuple[TrainingRow, ...],
    holdout: Sequence[TrainingRow],
) -> None:
    # rows that an older redactor made are trained on again only when the present one finds nothing in them
    leaking = scan(ports, agent, replay).leaking
    if leaking:
        logger.warning("%s replayed rows of %s/%s wait to be redacted again", len(leaking), ref.agent, spec.name)
        replay = tuple(row for row in replay if row.example_id not in leaking)
        usable = tuple(row for row in usable if row.example_id not in leaking)
    space.write_rows(f"{spec.name}/new.json", rows)
    space.write_rows(f"{spec.name}/replay.json", replay)
    space.write_rows(f"{spec.name}/holdout.json", holdout)
    space.write_rows(f"{spec.name}/regression.json", usable)


def _taken_back(ports: Ports, agent: str) -> set[UUID]:
    """Corrections whose version production took back: they are judged with the rest, and not taught again by themselves.

    A version that a person put back since then counts as sound.
    """
    last = {row.version: row for row in reversed(ports.rollouts.recent(agent, _ROLLOUTS))}
    gone = {version for version, row in last.items() if row.state is RolloutState.REVERTED and not row.lost}
    if gone:
        served = {move.champion: move.changed_at for move in ports.rollouts.serving_history(agent)}
        gone = {version for version in gone if not _later(served.get(version), last[version].ended_at)}
    if not gone:
        return set()
    return {one.row.example_id for one in ports.buffer.corrections(agent, _CORRECTIONS) if one.version in gone}


def _later(first: datetime | None, second: datetime | None) -> bool:
    return first is not None and second is not None and first > second


def _dataset_record(space: Workspace, summary: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        key: summary[key] for key in ("tasks", "champion", "production_errors", "screening") if key in summary
    }
    for part in ("new", "replay", "holdout"):
        ids = sorted(str(row.example_id) for task in summary["tasks"] for row in space.read_rows(f"{task}/{part}.json"))
        record[part] = {"count": len(ids), "digest": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
    return record


def _champion_labels(ports: Ports, agent: str, task: str) -> tuple[str, ...]:
    import json

    found = champion_folder(ports, agent)
    folder = component(found[1], task) if found else None
    if folder is None:
        return ()
    return tuple(json.loads((folder / "component.json").read_text(encoding="utf-8"))["labels"])


def trainer_of(ports: Ports, ref: BatchRef, agent: Agent) -> Trainer:
    """The agent's trainer with this run's ``overrides`` (from its params form); TrainingError for a setting that it has not, or that
    only the agent's file may say, such as which program runs."""
    overrides = dict(ports.buffer.job(ref.job_id).config.get("overrides") or {})
    if not overrides:
        return agent.trainer
    pinned: frozenset[str] = getattr(agent.trainer, "PINNED", frozenset())
    if fixed := sorted(overrides.keys() & pinned):
        raise TrainingError(f"a run cannot change {', '.join(fixed)} of {agent.trainer.key}; change the agent's file")
    return trainer_for(agent.trainer.key, {**agent.as_record()["trainer"], **overrides})


@quiet
def train(ports: Ports, ref: BatchRef, task: str) -> dict[str, Any]:
    """Train one task from the champion's component into the workspace; a repeat after a kill starts clean or finds it done."""
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    agent = agent_of(ports, ref)
    space = Workspace.of(ports.work, ref)
    if space.has(f"{task}/trained.json"):
        return dict(space.read_json(f"{task}/trained.json"))
    spec = agent.task(task)
    found = champion_folder(ports, ref.agent)
    start = component(found[1], task) if found else None
    batch = TaskBatch(
        agent=ref.agent, task=task, kind=spec.kind,
        labels=tuple(space.read_json("select.json")["tasks"][task]["labels"]),
        new=space.read_rows(f"{task}/new.json"), replay=space.read_rows(f"{task}/replay.json"), mode=ref.mode,
    )  # fmt: skip
    trainer = trainer_of(ports, ref, agent)
    if start is not None and not same_method(start, trainer):
        start = None  # the agent changed its trainer: begun anew, and judged against the champion all the same
    out = space.aside(task)
    began = time.monotonic()
    artefact = trainer.fit(batch, start, out, seed=agent.seed, bench=ports.bench)
    seconds = time.monotonic() - began
    space.keep(out, f"components/{task}")
    result = {
        "task": task, "seconds": round(seconds, 3), "labels": list(artefact.labels), "metrics": dict(artefact.metrics),
        "new": len(batch.new), "replay": len(batch.replay), "from": found[0] if start and found else None,
    }  # fmt: skip
    # first what trained.json vouches for: it says that the task is done
    space.write_json(f"{task}/details.json", {**artefact.details, "seed": agent.seed, "machine": machine()})
    space.write_json(f"{task}/trained.json", result)
    ports.jobs.add_cost(ref.job_id, ref.attempt, {f"train.{task}": seconds})
    logger.info(
        "trained %s/%s on %s new and %s replayed rows in %.2f s",
        ref.agent,
        task,
        len(batch.new),
        len(batch.replay),
        seconds,
    )
    return result
