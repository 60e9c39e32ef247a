"""``JobLog`` over the in-memory buffer: the twin that tests use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from perennial.domain.words import JobStatus
from perennial.ingest.job_log import JobEntry, Standing
from perennial.ingest.memory import MemoryBuffer
from perennial.ingest.memory_rows import now
from perennial.ingest.results import Job

_RUNNING = (JobStatus.VALIDATING, JobStatus.TRAINING, JobStatus.EVALUATING)
_ENDED = (JobStatus.COMPLETED, JobStatus.FAILED)


class MemoryJobLog:
    """Reads the jobs of a ``MemoryBuffer``; keeps costs beside them."""

    def __init__(self, buffer: MemoryBuffer) -> None:
        self._state = buffer.state
        self._costs: dict[UUID, dict[str, float]] = {}

    def recent(self, agent: str, seconds: float) -> list[JobEntry]:
        """See ``JobLog.recent``."""
        edge = now() - timedelta(seconds=seconds)
        return [self._entry(job) for job in self._newest(agent) if job.created_at > edge]

    def of_version(self, agent: str, version: str) -> JobEntry | None:
        """See ``JobLog.of_version``."""
        return next((self._entry(job) for job in self._newest(agent) if job.version == version), None)

    def add_cost(self, job_id: UUID, attempt: int, cost: Mapping[str, float]) -> None:
        """See ``JobLog.add_cost``."""
        job = self._state.jobs.get(job_id)
        if job is not None and job.attempt == attempt:
            self._costs.setdefault(job_id, {}).update(cost)

    def training_seconds(self, agent: str) -> tuple[float, float]:
        """See ``JobLog.training_seconds``."""
        day, week = now() - timedelta(hours=24), now() - timedelta(days=7)
        steps = [
            (job.started_at or job.created_at, seconds)
            for job in self._newest(agent)
            for name, seconds in self._costs.get(job.job_id, {}).items()
            if name.startswith("train.")
        ]
        return _since(steps, day), _since(steps, week)

    def standings(self) -> list[Standing]:
        """See ``JobLog.standings``."""
        return [self._standing(agent) for agent, record in sorted(self._state.agents.items()) if record.get("active")]

    def _standing(self, agent: str) -> Standing:
        jobs = self._newest(agent)
        last = next((job for job in jobs if job.status in _ENDED), None)
        stuck = next(
            (job for job in jobs if job.status in _RUNNING and job.lease_until is not None and job.lease_until < now()),
            None,
        )
        return Standing(
            agent=agent, last_status=last.status.value if last else None, last_note=last.note if last else None,
            last_job=last.job_id if last else None, stuck_job=stuck.job_id if stuck else None,
            stuck_seconds=(now() - stuck.lease_until).total_seconds() if stuck and stuck.lease_until else None,
        )  # fmt: skip

    def _newest(self, agent: str) -> list[Job]:
        mine = [job for job in self._state.jobs.values() if job.agent == agent]
        return sorted(mine, key=lambda job: job.created_at, reverse=True)

    def _entry(self, job: Job) -> JobEntry:
        return JobEntry(
            job_id=job.job_id, run_id=job.run_id, status=job.status.value, reason=job.reason.value,
            example_count=job.example_count, version=job.version, note=job.note, cost=dict(self._costs.get(job.job_id, {})),
            finished=job.status in (*_ENDED, JobStatus.CANCELLED),
        )  # fmt: skip


def _since(steps: list[tuple[datetime, float]], edge: datetime) -> float:
    return sum(seconds for began, seconds in steps if began > edge)
