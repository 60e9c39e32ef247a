"""Champion and candidate answer the same frozen rows."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perennial.domain.example import TrainingRow
from perennial.domain.job import BatchRef
from perennial.domain.model import Predictor
from perennial.domain.words import JobStatus, TaskKind
from perennial.fleet.agent import Agent
from perennial.flows.champion import champion_folder, component
from perennial.flows.ports import Ports
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.workspace import Workspace
from perennial.gates.scores import row_score
from perennial.registry.bundle import content_digest
from perennial.trainers.tfidf_baseline import majority_baseline, tfidf_baseline

logger = logging.getLogger(__name__)


def evaluate(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Score candidate and champion row by row on holdout, corrections and regression rows; keep ids and numbers, no texts.

    Assembles the candidate's ``tasks`` folder: trained components, and the champion's own files for tasks that were not
    trained. For a first version the majority class and a TF-IDF baseline are measured too.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    ports.buffer.advance(ref.job_id, ref.attempt, JobStatus.EVALUATING)
    agent = ports.fleet().agent(ref.agent)
    space = Workspace.of(ports.work, ref)
    began = time.monotonic()
    champion = champion_folder(ports, ref.agent)
    trained = list(space.read_json("select.json")["tasks"])
    folder = _assemble(space, champion[1] if champion else None, trained)
    tasks: dict[str, Any] = {}
    for task in trained:
        old = component(champion[1], task) if champion else None
        tasks[task] = _score_task(ports, agent, space, task, old, folder / task)
    result: dict[str, Any] = {
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


def _score_task(ports: Ports, agent: Agent, space: Workspace, task: str, old: Path | None, new: Path) -> dict[str, Any]:
    kind = agent.task(task).kind
    holdout, batch = space.read_rows(f"{task}/holdout.json"), space.read_rows(f"{task}/new.json")
    corrections = tuple(row for row in batch if row.correction)
    regression = space.read_rows(f"{task}/regression.json")
    candidate = agent.trainer.load(new, ports.bench)
    champion = agent.trainer.load(old, ports.bench) if old is not None else None
    scores: dict[str, Any] = {
        "kind": kind.value,
        "ids": [str(row.example_id) for row in holdout],
        "labels": [None if kind is TaskKind.SCORE else str(row.label) for row in holdout],
        "times": [row.created_at.isoformat() if row.created_at else None for row in holdout],
        "candidate": answers(candidate, holdout, kind),
        "champion": answers(champion, holdout, kind) if champion else None,
        "corrections": {
            "ids": [str(row.example_id) for row in corrections],
            "candidate": answers(candidate, corrections, kind),
        },
        "regression": {
            "ids": [str(row.example_id) for row in regression],
            "candidate": answers(candidate, regression, kind),
            "champion": answers(champion, regression, kind) if champion else None,
        },
        "baselines": None if champion else _baselines(batch, holdout, kind),
    }
    mean_new, mean_old = _mean(scores["candidate"]), _mean(scores["champion"])
    scores["summary"] = {
        "rows": len(holdout),
        "champion": mean_old,
        "candidate": mean_new,
        "corrections": len(corrections),
    }
    logger.info("%s/%s: champion %s, candidate %s on %s rows", agent.name, task, mean_old, mean_new, len(holdout))
    return scores


def _baselines(batch: Sequence[TrainingRow], holdout: Sequence[TrainingRow], kind: TaskKind) -> dict[str, float] | None:
    """What a first version must beat, on the scale of the score tables; None when there is nothing to measure on."""
    if not batch or not holdout:
        return None
    found = {"majority": majority_baseline(batch, holdout, kind), "tfidf": tfidf_baseline(batch, holdout, kind)}
    # a score task's baseline is an absolute error; the tables hold 1 - |error|
    return {name: 1.0 - value for name, value in found.items()} if kind is TaskKind.SCORE else found


def answers(predictor: Predictor, rows: Sequence[TrainingRow], kind: TaskKind) -> list[float]:
    """How right a model is on each row: 1 or 0 for a label, 1 - |error| for a score."""
    if not rows:
        return []
    predictions = predictor.predict([row.text for row in rows])
    return [row_score(kind, prediction.output, row.label) for prediction, row in zip(predictions, rows, strict=True)]


def _mean(values: list[float] | None) -> float | None:
    return round(sum(values) / len(values), 6) if values else None
