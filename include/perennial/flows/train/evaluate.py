"""Champion and candidate answer the same frozen rows."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perennial.domain.job import BatchRef
from perennial.domain.words import JobStatus
from perennial.errors import PerennialError
from perennial.fleet.agent import Agent
from perennial.flows.champion import bundle_folder, champion_folder, component
from perennial.flows.overrides import agent_of
from perennial.flows.ports import Ports
from perennial.flows.quiet import quiet
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.train.measure import Exam, examine
from perennial.flows.workspace import Workspace
from perennial.gates.gate import GateSettings
from perennial.registry.bundle import content_digest
from perennial.registry.rows import Alias

logger = logging.getLogger(__name__)


@quiet
def evaluate(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Score candidate and champion row by row on holdout, corrections, regression rows and disturbed texts.

    Keeps ids and numbers, no texts. Assembles the candidate's ``tasks`` folder: trained components, and the champion's
    own files for tasks that were not trained. For a first version the majority class and a TF-IDF baseline are measured
    too, below ``min_holdout`` a k-fold estimate, and of the recent versions the best one, if it is not the champion.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    ports.buffer.advance(ref.job_id, ref.attempt, JobStatus.EVALUATING)
    agent = agent_of(ports, ref)
    space = Workspace.of(ports.work, ref)
    began = time.monotonic()
    champion = champion_folder(ports, ref.agent)
    selected = space.read_json("select.json")["tasks"]
    trained = list(selected)
    settings = gate_settings(ports, agent)
    folder = _assemble(space, champion[1] if champion else None, trained)
    tasks: dict[str, Any] = {}
    for task in trained:
        exam = Exam(
            trainer=agent.trainer, bench=ports.bench, settings=settings, agent=ref.agent, task=task,
            kind=agent.task(task).kind, labels=tuple(selected[task]["labels"]), candidate=folder / task,
            champion=component(champion[1], task) if champion else None, job_id=ref.job_id, seed=agent.seed,
            holdout=space.read_rows(f"{task}/holdout.json"), batch=space.read_rows(f"{task}/new.json"),
            replay=space.read_rows(f"{task}/replay.json"), regression=space.read_rows(f"{task}/regression.json"),
            room=space.root,
        )  # fmt: skip
        tasks[task] = examine(_with_best(ports, exam, champion[0], settings) if champion else exam)
        logger.info("%s/%s: %s", ref.agent, task, tasks[task]["summary"])
    result: dict[str, Any] = {
        "mode": ref.mode.value,
        "reason": ref.reason.value,
        "why": str(ports.buffer.job(ref.job_id).config.get("why", "")),
        "new_labels": sorted({label for entry in selected.values() for label in entry["new_labels"]}),
        "champion": champion[0] if champion else None,
        "tasks": tasks,
        "unchanged": sorted(path.name for path in folder.iterdir() if path.name not in trained),
        "content_digest": content_digest(folder.parent),
        "seconds": round(time.monotonic() - began, 3),
    }
    space.write_json("evaluation.json", result)
    ports.jobs.add_cost(ref.job_id, ref.attempt, {"evaluate": result["seconds"]})
    return {
        "champion": result["champion"], "seconds": result["seconds"],
        "tasks": {name: scores["summary"] for name, scores in tasks.items()},
    }  # fmt: skip


def _assemble(space: Workspace, champion: Path | None, trained: list[str]) -> Path:
    out = space.aside("candidate")
    tasks = out / "tasks"
    tasks.mkdir()
    if champion is not None:
        for path in sorted((champion / "tasks").iterdir()):
            if path.name not in trained:
                shutil.copytree(path, tasks / path.name)
    for task in trained:
        shutil.copytree(space.root / "components" / task, tasks / task)
    return space.keep(out, "candidate") / "tasks"


def gate_settings(ports: Ports, agent: Agent) -> GateSettings:
    """What the agent's owner demands, with the deployment's threshold and window where the owner says nothing."""
    given = ports.buffer.overrides()
    return GateSettings.of(
        asdict(agent.gates),
        rollback_threshold=given.get("rollback_threshold", ports.settings.rollback_threshold),
        performance_window=int(given.get("performance_window", ports.settings.performance_window)),
    )


def _with_best(ports: Ports, exam: Exam, champion: str, settings: GateSettings) -> Exam:
    """The exam with the best of the recent champions, by the accuracies in their manifests; the champion itself needs no look.

    Versions that production rolled back do not count, unless a person put them back since. What cannot be fetched or verified is
    said, and the gate holds.
    """
    moves = [move for move in ports.ledger.moves(exam.agent, limit=200) if move.alias is Alias.CHAMPION]
    served = {move.version: move.moved_at for move in reversed(moves)}  # the newest move of each
    bad = {
        row.version
        for row in ports.buffer.performance(exam.agent, last=200)
        if row.rollback_triggered and not (row.version in served and served[row.version] > row.update_timestamp)
    }
    sound = [move.version for move in moves if move.version is not None and move.version not in bad]
    recent = list(dict.fromkeys([champion, *sound]))
    reached: dict[str, float] = {}
    for version in recent[: settings.window_versions]:
        release = ports.ledger.version(exam.agent, version)
        value = (release.manifest.get("metrics") or {}).get(f"{exam.task}.candidate") if release else None
        if value is not None:
            reached[version] = float(value)
    exam = replace(exam, best_version=champion, versions=len(recent[: settings.window_versions]))
    best = max(reached, key=lambda version: (reached[version], version == champion), default=champion)
    if best == champion:
        return exam
    try:
        folder = component(bundle_folder(ports, exam.agent, best), exam.task)
    except PerennialError as error:
        problem = f"version {best}, the best of the recent ones, could not be fetched ({type(error).__name__})"
        return replace(exam, best_version=best, best_problem=problem)
    return replace(exam, best_version=best, best=folder) if folder is not None else exam
