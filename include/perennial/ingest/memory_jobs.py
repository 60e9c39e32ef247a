"""Jobs of the in-memory buffer, with the fences of the ones on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from perennial.domain.example import TrainingRow
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Mode, Priority, Reason, State
from perennial.errors import StaleClaim, StoreError
from perennial.ingest.memory_rows import MemoryState, Row, now
from perennial.ingest.postgres_jobs import MOST_REFUSALS, TAKEN, WITH_HELD_BATCH, config_of, job_id_of
from perennial.ingest.results import Due, Job

_RUNNING = (JobStatus.VALIDATING, JobStatus.TRAINING, JobStatus.EVALUATING)
_ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class MemoryJobs:
    """Opens, runs and closes jobs; ``PostgresJobs`` documents each method."""

    state: MemoryState

    def open_job(self, request: JobRequest) -> UUID:
        """The job of a run, made when it is not there."""
        with self.state.lock:
            known = self.job_of_run(request.agent, request.run_id)
            if known is not None:
                return known.job_id
            job_id = request.job_id or job_id_of(request.agent, request.run_id)
            waiting = self.state.jobs.get(job_id)
            if waiting is not None:
                if waiting.agent != request.agent or waiting.status is not JobStatus.PENDING:
                    raise StoreError(TAKEN.format(job_id))
                return self.state.change_job(job_id, run_id=request.run_id).job_id
            self._new_job(job_id, request.agent, request.run_id, request, config_of(request))
            return job_id

    def _new_job(self, job_id: UUID, agent: str, run_id: str, request: JobRequest, config: dict[str, Any]) -> None:
        self.state.jobs[job_id] = Job(
            job_id=job_id, agent=agent, run_id=run_id, status=JobStatus.PENDING, reason=request.reason,
            mode=request.mode.value, forced=request.force, requested_by=request.requested_by, attempt=0,
            example_count=0, version=None, note="", error=None, dataset={}, config=config, lease_until=None,
            created_at=now(), started_at=None, completed_at=None,
        )  # fmt: skip

    def start_attempt(self, job_id: UUID, lease_seconds: float) -> int | None:
        """Begin or take over a job; None when another one of the agent runs or when it made its version already."""
        with self.state.lock:
            job = self.job(job_id)
            if job.version is not None:
                return None
            for other in list(self.state.jobs.values()):
                if other.agent != job.agent or other.job_id == job_id or other.status not in _RUNNING:
                    continue
                if other.lease_until is not None and other.lease_until >= now():
                    return None
                self._rows_back(other.job_id)
                self.state.change_job(
                    other.job_id, status=JobStatus.FAILED, error="lease expired", completed_at=now(),
                    note="its worker stopped renewing the lease; the rows went back to the buffer",
                )  # fmt: skip
            job = self.state.change_job(
                job_id, status=JobStatus.VALIDATING, attempt=job.attempt + 1, started_at=now(), completed_at=None,
                error=None, note="", lease_until=now() + timedelta(seconds=lease_seconds),
            )  # fmt: skip
            for row in self._claimed(job_id):
                row.attempt = job.attempt
            return job.attempt

    def _claimed(self, job_id: UUID) -> list[Row]:
        return [row for row in self.state.rows if row.job_id == job_id and row.state is State.CLAIMED]

    def _rows_back(self, job_id: UUID) -> None:
        for row in self._claimed(job_id):
            self.state.release(row)
        for row in self.state.rows:
            if row.holdout and row.job_id == job_id:
                row.job_id = None

    def renew(self, job_id: UUID, attempt: int, seconds: float) -> None:
        """Hold the job for longer."""
        with self.state.lock:
            job = self.state.jobs.get(job_id)
            if job is None or job.attempt != attempt or job.status not in _RUNNING:
                raise StaleClaim("another attempt took this job")
            until = now() + timedelta(seconds=seconds)
            self.state.change_job(job_id, lease_until=max(until, job.lease_until or until))

    def _fence(self, job_id: UUID, attempt: int) -> Job:
        job = self.state.jobs.get(job_id)
        live = job is not None and job.lease_until is not None and job.lease_until >= now()
        if job is None or not live or job.attempt != attempt or job.status not in _RUNNING:
            raise StaleClaim("this attempt lost its job to another one or to its lease; it must stop and write nothing")
        return job

    def claim(self, agent: str, job_id: UUID, attempt: int, limit: int, *, urgent: bool = False) -> list[TrainingRow]:
        """Take the best ready rows, or the urgent ones alone."""
        with self.state.lock:
            self._fence(job_id, attempt)
            if not self._claimed(job_id):
                ready = [row for row in self.state.of(agent) if row.state is State.READY and not row.holdout]
                if urgent:
                    ready = [row for row in ready if row.example.priority >= Priority.HIGH]
                    fewest = min((row.refusals for row in ready), default=0)
                    ready = [row for row in ready if row.refusals == fewest]
                for row in sorted(ready, key=lambda row: row.worth, reverse=True)[:limit]:
                    row.state, row.job_id, row.attempt = State.CLAIMED, job_id, attempt
                uncounted = [
                    row
                    for row in self.state.of(agent)
                    if row.holdout and row.job_id is None and row.state is State.READY and not urgent
                ]
                for row in uncounted[:limit]:
                    row.job_id = job_id
                self.state.change_job(job_id, example_count=len(self._claimed(job_id)))
            return list(self.claimed_rows(job_id, attempt))

    def claimed_rows(self, job_id: UUID, attempt: int) -> tuple[TrainingRow, ...]:
        """The rows of this attempt, best first."""
        with self.state.lock:
            if self.state.jobs[job_id].attempt != attempt:
                raise StaleClaim("another attempt took this job")
            rows = sorted(self._claimed(job_id), key=lambda row: row.worth, reverse=True)
            return tuple(row.as_training_row() for row in rows)

    def advance(self, job_id: UUID, attempt: int, status: JobStatus) -> None:
        """Say how far the job is."""
        if status not in _RUNNING:
            raise ValueError(f"{status.value} ends or begins a job; use finish or start_attempt")
        with self.state.lock:
            self._fence(job_id, attempt)
            self.state.change_job(job_id, status=status)

    def update_job_record(
        self, job_id: UUID, attempt: int, *, dataset: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Merge facts into the job's record."""
        with self.state.lock:
            job = self._fence(job_id, attempt)
            self.state.change_job(
                job_id, dataset={**job.dataset, **(dataset or {})}, config={**job.config, **(config or {})}
            )

    def set_aside(self, job_id: UUID, attempt: int, ids: Sequence[UUID], *, state: str, reason: str) -> int:
        """Take rows out of the claim."""
        target = State(state)
        if target not in (State.QUARANTINED, State.HELD, State.SUPERSEDED):
            raise ValueError(f"rows of a claim are set aside as quarantined, held or superseded, not {state}")
        with self.state.lock:
            self._fence(job_id, attempt)
            moved = [row for row in self._claimed(job_id) if row.example.example_id in set(ids)]
            for row in moved:
                row.state, row.reason, row.job_id, row.attempt = target, reason, None, None
            return len(moved)

    def settle_trained(self, job_id: UUID, attempt: int, version: str) -> int:
        """Mark the claimed rows as trained."""
        with self.state.lock:
            job = self._fence(job_id, attempt)
            rows = self._claimed(job_id)
            for row in rows:
                row.state, row.model_version, row.trained_at = State.TRAINED, version, now()
            return self.state.change_job(
                job_id, version=version, example_count=len(rows) or job.example_count
            ).example_count

    def give_back(
        self, job_id: UUID, attempt: int, *, refused: bool, reason: str, spared: Collection[UUID] = ()
    ) -> int:
        """Let the claimed rows wait again; refused twice they are held."""
        with self.state.lock:
            self._fence(job_id, attempt)
            rows = self._claimed(job_id)
            for row in rows:
                self.state.release(row)
                if row.example.example_id in set(spared):
                    continue
                row.refusals += int(refused)
                if row.state is State.READY:
                    row.reason = reason
                    if refused and row.refusals >= MOST_REFUSALS:
                        row.state = State.HELD
            if any(row.state is State.HELD for row in rows):
                for row in self.state.rows:
                    if row.holdout and row.job_id == job_id and row.state is State.READY:
                        row.reason = WITH_HELD_BATCH
            # holdout rows call for another training only together with rows that it could train on
            if not refused or any(row.state is State.READY for row in rows):
                self._rows_back(job_id)
            return len(rows)

    def finish(
        self, job_id: UUID, attempt: int, status: JobStatus, *, note: str = "", error: str | None = None,
        version: str | None = None,
    ) -> None:  # fmt: skip
        """End the job."""
        if status not in _ENDED:
            raise ValueError(f"a job does not end as {status.value}")
        with self.state.lock:
            job = self._fence(job_id, attempt)
            for row in self._claimed(job_id):
                self.state.release(row)
            self.absorb_requests(job.agent, job_id)
            self.state.change_job(
                job_id, status=status, note=note, error=error, version=version or job.version, completed_at=now(),
                lease_until=None,
            )  # fmt: skip

    def absorb_requests(self, agent: str, job_id: UUID) -> int:
        """Close the requests that were waiting when this job began."""
        with self.state.lock:
            job = self.job(job_id)
            began = job.started_at or job.created_at
            waiting = [
                other for other in self.state.jobs.values()
                if other.agent == job.agent and other.job_id != job_id and other.status is JobStatus.PENDING
                and other.created_at <= began
            ]  # fmt: skip
            for other in waiting:
                self.cancel_waiting(other.job_id, f"answered by job {job_id}")
            return len(waiting)

    def cancel_waiting(self, job_id: UUID, note: str) -> None:
        """End a job that never began."""
        with self.state.lock:
            if self.job(job_id).status is JobStatus.PENDING:
                self.state.change_job(job_id, status=JobStatus.CANCELLED, completed_at=now(), note=note)

    def request_training(
        self, agent: str, *, reason: Reason = Reason.REQUEST, mode: Mode = Mode.AUTO, force: bool = False,
        requested_by: str = "",
    ) -> UUID:  # fmt: skip
        """Ask for a training; a second wish joins the first."""
        with self.state.lock:
            for job in self.state.jobs.values():
                if job.agent == agent and job.status is JobStatus.PENDING and job.run_id == str(job.job_id):
                    return job.job_id
            job_id = uuid4()
            request = JobRequest(
                agent=agent, run_id=str(job_id), reason=reason, mode=mode, force=force, requested_by=requested_by
            )
            self._new_job(job_id, agent, str(job_id), request, {})
            return job_id

    def due(self, agent: str) -> Due:
        """Whether the agent should train."""
        with self.state.lock:
            if not self.state.agents.get(agent, {}).get("active"):
                return Due(due=False, reason=None, waiting=0, corrections=0, threshold=0)
            threshold = int(self.state.limit(agent, "update_threshold"))
            waiting = [row for row in self.state.of(agent) if row.waiting]
            urgent = sum(row.example.priority >= 2 for row in waiting)
            reason = self._reason(agent, urgent, len(waiting) >= threshold)
            return Due(
                due=reason is not None, reason=reason, waiting=min(len(waiting), threshold), corrections=urgent,
                threshold=threshold,
            )  # fmt: skip

    def _reason(self, agent: str, urgent: int, full: bool) -> Reason | None:
        jobs = [job for job in self.state.jobs.values() if job.agent == agent]
        dead = [job for job in jobs if job.status in _RUNNING and job.lease_until and job.lease_until < now()]
        requests = [job for job in jobs if job.status is JobStatus.PENDING]
        awake = self._awake(jobs)
        if dead:
            return dead[0].reason
        if urgent and awake:
            return Reason.CORRECTION
        if requests:
            return requests[0].reason
        return Reason.THRESHOLD if full and awake else None

    def _awake(self, jobs: list[Job]) -> bool:
        ended = [job for job in jobs if job.status in (JobStatus.COMPLETED, JobStatus.FAILED)]
        ended.sort(key=lambda job: job.created_at, reverse=True)
        failures = 0
        for job in ended[:7]:
            if job.status is not JobStatus.FAILED:
                break
            failures += 1
        if not failures:
            return True
        last = max(job.completed_at or job.created_at for job in ended)
        return last + timedelta(seconds=min(10 * 2 ** (failures - 1), 600)) < now()

    def due_agents(self) -> list[tuple[str, Reason]]:
        """Every agent that is due and has no live job."""
        with self.state.lock:
            found = [(agent, self.due(agent)) for agent in sorted(self.state.agents) if agent not in self.running()]
            found.sort(key=lambda pair: pair[1].corrections == 0)
            return [(agent, due.reason) for agent, due in found if due.reason is not None]

    def running(self) -> list[str]:
        """Agents that train now."""
        return sorted(
            job.agent for job in self.state.jobs.values()
            if job.status in _RUNNING and job.lease_until is not None and job.lease_until >= now()
        )  # fmt: skip

    def release_new_labels(self, agent: str, task: str, minimum: int) -> int:
        """Let rows of a new label wait again once enough carry it."""
        with self.state.lock:
            rows = [row for row in self.state.of(agent) if row.task == task]
            held = [row for row in rows if row.state is State.HELD and row.reason == "new_label_waiting"]
            alike = held + [row for row in rows if row.state is State.READY and not row.holdout]
            enough = [row for row in held if sum(other.label == row.label for other in alike) >= minimum]
            for row in enough:
                row.state, row.reason = State.READY, ""
            return len(enough)

    def mark_learned(self, ids: Sequence[UUID | str], version: str) -> None:
        """Note which version answered corrections right first."""
        known = {UUID(str(identity)) for identity in ids}
        with self.state.lock:
            for row in self.state.rows:
                if row.example.example_id in known and row.learned is None:
                    row.learned = version

    def job(self, job_id: UUID) -> Job:
        """One job."""
        if job_id not in self.state.jobs:
            raise StoreError(f"job {job_id} is not there")
        return self.state.jobs[job_id]

    def job_of_run(self, agent: str, run_id: str) -> Job | None:
        """The job that a run of the agent carries out, or None."""
        found = (job for job in self.state.jobs.values() if (job.agent, job.run_id) == (agent, run_id))
        return next(found, None)

    def run_of_job(self, job_id: UUID) -> str:
        """The run of a job."""
        return self.job(job_id).run_id

    def job_started(self, job_id: UUID) -> datetime:
        """When the job's latest attempt began."""
        job = self.job(job_id)
        return job.started_at or job.created_at
