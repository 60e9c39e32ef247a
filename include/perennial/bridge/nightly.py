"""Which agents the night trains, and what it says about them in the morning."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run, paused_dags
from perennial.domain.words import Mode, Reason
from perennial.errors import PerennialError
from perennial.flows.training_switch import train_dag_id
from perennial.settings import load_settings

logger = logging.getLogger(__name__)

SUNDAY = 6


def plan(context: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Arguments of one ``TriggerDagRunOperator`` per agent to train tonight; empty when nothing waits anywhere.

    A night trains every agent with rows that wait, below its threshold too; the full variant trains all of them, so that
    replay and drift get their turn. The run ids are derived from this run's, so a repeated task starts nothing twice.
    """
    ports = task_ports()
    waiting = ports.buffer.waiting()
    run = context["dag_run"]
    agents = [agent.name for agent in ports.fleet().agents]
    names = awake(choose(agents, waiting, full=is_full(context["params"], run.run_after)))
    return [
        {
            "trigger_dag_id": f"train_{name}",
            "trigger_run_id": f"{run.run_id}__{name}",
            "conf": {"mode": Mode.BATCH.value, "reason": Reason.SCHEDULE.value},
        }
        for name in names
    ]


def awake(names: Sequence[str]) -> list[str]:
    """Those whose DAG is not paused: a run of a paused one stays queued, and the night would wait for it until it times out.

    Where Airflow cannot be asked, all of them.
    """
    dag_ids = {name: train_dag_id(name) for name in names}
    try:
        paused = paused_dags(load_settings(), dag_ids.values())
    except (PerennialError, ValueError) as error:  # ValueError: a setting is wrong
        logger.warning("Airflow does not say which DAGs are paused: %s: %s", type(error).__name__, error)
        return list(names)
    return [name for name in names if dag_ids[name] not in paused]


def is_full(params: Mapping[str, Any], when: datetime) -> bool:
    """Whether this night is the weekly full one: as the form says, or on Sundays (UTC)."""
    asked = params.get("full")
    return when.weekday() == SUNDAY if asked is None else bool(asked)


def choose(agents: Sequence[str], waiting: Mapping[str, int], *, full: bool) -> list[str]:
    """Agents in the order of how much waits for them.

    >>> choose(["analyst", "scout", "critic"], {"scout": 7, "critic": 30}, full=False)
    ['critic', 'scout']
    """
    chosen = [name for name in agents if full or waiting.get(name, 0) > 0]
    return sorted(chosen, key=lambda name: (-waiting.get(name, 0), name))


def tell(context: Mapping[str, Any], planned: Sequence[Mapping[str, Any]] | None) -> str:
    """One line about the night, from each training's own note; written as the run's note and returned."""
    ports = task_ports()
    told = []
    for one in planned or ():
        name = str(one["trigger_dag_id"]).removeprefix("train_")
        job = ports.buffer.job_of_run(name, str(one["trigger_run_id"]))
        told.append(job.note if job is not None and job.note else f"{name}: nothing to train")
    note = " · ".join(told) or "no agent had anything new"
    note_run(context, note)
    return note
