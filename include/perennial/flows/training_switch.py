"""A person pauses an agent's trainings, or lets them go on: Airflow's own switch of its DAG, with who and why on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from perennial.errors import RolloutError
from perennial.flows.ports import Ports


@dataclass(frozen=True, kw_only=True, slots=True)
class DagFacts:
    """What Airflow says of one DAG; ``next_run`` is None for one that no clock starts."""

    paused: bool
    next_run: datetime | None = None


class Dags(Protocol):
    """The seam to Airflow's DAGs. Runs in the api-server, where it costs one query."""

    def facts(self, dag_ids: Sequence[str]) -> dict[str, DagFacts]:
        """What is known of these DAGs; one that Airflow has not parsed yet is left out."""
        ...

    def set_paused(self, dag_id: str, paused: bool) -> bool:
        """Pause or go on; False when Airflow does not know the DAG. A repeat changes nothing."""
        ...


class MemoryDags:
    """The twin in memory of Airflow's DAGs."""

    def __init__(self, known: dict[str, DagFacts] | None = None) -> None:
        self._known = dict(known or {})

    def facts(self, dag_ids: Sequence[str]) -> dict[str, DagFacts]:
        """See ``Dags``."""
        return {dag_id: self._known[dag_id] for dag_id in dag_ids if dag_id in self._known}

    def set_paused(self, dag_id: str, paused: bool) -> bool:
        """See ``Dags``."""
        known = self._known.get(dag_id)
        if known is None:
            return False
        self._known[dag_id] = DagFacts(paused=paused, next_run=known.next_run)
        return True


def train_dag_id(agent: str) -> str:
    """The DAG that trains an agent.

    >>> train_dag_id("scout")
    'train_scout'
    """
    return f"train_{agent}"


def switch_training(ports: Ports, dags: Dags, agent: str, *, paused: bool, actor: str, reason: str) -> None:
    """Pause an agent's trainings or let them go on. What was asked is on record before it happens, and again if it failed.

    A paused agent starts no training of any kind, a correction's neither; what comes in meanwhile waits in the buffer. Raises
    RolloutError without a name or a reason or when Airflow does not know the DAG, NotConfigured when there is no such agent.
    """
    if not actor.strip() or not reason.strip():
        raise RolloutError("pausing needs the name of who decides, and a reason")
    ports.fleet().agent(agent)
    action = "training_paused" if paused else "training_resumed"
    ports.audit.append(actor=actor, action=action, agent=agent, subject=train_dag_id(agent), detail={"why": reason})
    if not dags.set_paused(train_dag_id(agent), paused):
        ports.audit.append(
            actor=actor,
            action=f"{action}_failed",
            agent=agent,
            subject=train_dag_id(agent),
            detail={"why": "no such DAG"},
        )
        raise RolloutError(
            f"Airflow does not know the DAG {train_dag_id(agent)} yet; wait until it is parsed, then try again"
        )
