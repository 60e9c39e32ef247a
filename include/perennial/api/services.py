"""What the data plane is made of; tests hand in twins."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Protocol

from perennial.api.intake import Intake
from perennial.api.reports import Reports
from perennial.serving.feedback import Outcomes
from perennial.serving.gateway import Gateway
from perennial.serving.metrics import Metrics
from perennial.settings import DataPlanePart


class Part(Protocol):
    """Something that runs beside the requests."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End; returns when it has."""
        ...


class RollBack(Protocol):
    """Serves an earlier version again, for the whole fleet."""

    def __call__(self, agent: str, *, version: str | None, actor: str, reason: str) -> dict[str, Any]:
        """RolloutError when it cannot, StoreUnavailable when PostgreSQL is away."""
        ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one process takes on. Bytes, records, threads."""

    token: str | None = None
    max_body: int = 8 * 1024 * 1024
    max_inputs: int = 256
    max_records: int = 5000
    predict_threads: int = 16  # requests of one agent in hand; most of them wait for a batch
    predict_workers: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))  # batches at once
    # each is a transaction at work in PostgreSQL, which Airflow's heartbeats need too: two per core fill it
    store_threads: int = field(default_factory=lambda: max(2, min(8, 2 * (os.cpu_count() or 1))))
    waiting: int = 64  # requests in line per agent, and for the store, before 429
    reading: int = 128  # bodies that come in at one time, before 429


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that ``create_app`` needs. ``parts`` start in order with the app and stop in reverse."""

    gateway: Gateway
    outcomes: Outcomes
    intake: Intake
    metrics: Metrics
    roll_back: RollBack
    reports: Reports
    limits: Limits = Limits()
    parts: tuple[Part, ...] = ()
    serves: DataPlanePart = DataPlanePart.BOTH
