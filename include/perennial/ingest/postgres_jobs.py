"""Jobs on PostgreSQL: who may train, which rows are theirs, how they end; every write is fenced by (job, attempt)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from perennial.domain.example import TrainingRow
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Mode, Priority, Reason, State
from perennial.errors import StaleClaim, StoreError
from perennial.ingest.results import Due, Job
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perennial.storage.database import Connection

WITH_HELD_BATCH = "held with its batch"  # marks holdout rows that no evaluation reads until a person releases them
MOST_REFUSALS = 2  # after this many refused candidates a row waits for a person
TAKEN = "job {} belongs to another run or to another agent already; start a run without job_id"
_STALE = "this attempt lost its job to another one or to its lease; it must stop and write nothing"


def job_id_of(agent: str, run_id: str) -> UUID:
    """The job id of an agent's run, the same whenever it is asked for. Airflow keeps run ids apart within one DAG only.

    >>> job_id_of("scout", "manual__1") == job_id_of("scout", "manual__1") != job_id_of("desk", "manual__1")
    True
    """
    return uuid5(NAMESPACE_URL, f"perennial:run:{agent}:{run_id}")


def own_id(job: Job) -> bool:
    """Whether the job bears the id of its run, so that no one brought it along."""
    earlier = uuid5(NAMESPACE_URL, f"perennial:run:{job.run_id}")  # as it was made before migration 0024
    return job.job_id in {job_id_of(job.agent, job.run_id), earlier}


def training_row(row: Mapping[str, Any]) -> TrainingRow:
    """A stored, redacted row as trainers see it."""
    return TrainingRow(
        example_id=row["example_id"], task=row["task"], text=row["input_text"], label=row["expected_output"],
        priority=row["priority"], correction=row["correction"], source_id=row["source_id"],
        created_at=row["created_at"], job_id=row.get("job_id"),
    )  # fmt: skip


def config_of(request: JobRequest) -> dict[str, Any]:
    """What a job keeps of the wish beside its columns.

    >>> config_of(JobRequest(agent="scout", run_id="r", why="new style guide"))
    {'why': 'new style guide'}
    """
    return {name: value for name, value in (("overrides", request.overrides), ("why", request.why)) if value}


class PostgresJobs:
    """Opens, runs and closes jobs; part of ``PostgresBuffer``."""

    _database: Database
    _jobs = load("perennial.ingest", "jobs.sql")

    def open_job(self, request: JobRequest) -> UUID:
        """The job of a run, made when it is not there; a waiting request named by ``request.job_id`` is adopted."""
        from psycopg.types.json import Jsonb

        job_id = request.job_id or job_id_of(request.agent, request.run_id)
        values = {
            "job_id": job_id, "agent": request.agent, "run_id": request.run_id, "reason": request.reason.value,
            "mode": request.mode.value, "forced": request.force, "requested_by": request.requested_by,
            "config": Jsonb(config_of(request)),
        }  # fmt: skip
        with self._database.connection() as connection:
            known = connection.execute(self._jobs["job_of_run"], values).fetchone()
            if known is not None:
                return UUID(str(known["job_id"]))
            if connection.execute(self._jobs["open_job"], values).fetchone() is not None:
                return job_id
            if connection.execute(self._jobs["adopt_job"], values).fetchone() is not None:
                return job_id
            known = connection.execute(self._jobs["job_of_run"], values).fetchone()
        if known is None:
            raise StoreError(TAKEN.format(job_id))
        return UUID(str(known["job_id"]))

    def start_attempt(self, job_id: UUID, lease_seconds: float) -> int | None:
        """Begin (or take over) a job; returns the attempt number that fences all its writes.

        None when another live job of the agent runs, or when this job already made its version. Jobs of the agent whose
        lease ran out are failed first and their rows wait again. Rows that an older attempt of this job had claimed are
        restamped, so a task that was killed and runs again goes on with the same batch.
        """
        import psycopg

        try:
            with self._database.connection() as connection:
                return self._start(connection, job_id, lease_seconds)
        except StoreError as error:
            if isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                return None  # another job of the agent began in the same moment: the index jobs_one_running is the lock
            raise

    def _start(self, connection: Connection, job_id: UUID, lease_seconds: float) -> int | None:
        job = connection.execute(self._jobs["lock_job"], {"job_id": job_id}).fetchone()
        if job is None:
            raise StoreError(f"job {job_id} is not there; open it first")
        values = {"job_id": job_id, "agent": job["agent"], "seconds": lease_seconds}
        if job["version"] is not None:
            return None
        expired = [row["job_id"] for row in connection.execute(self._jobs["expired_jobs"], values)]
        if expired:
            for statement in ("fail_expired", "rows_back", "holdout_back"):
                connection.execute(self._jobs[statement], {"jobs": expired})
        if connection.execute(self._jobs["other_running"], values).fetchone() is not None:
            return None
        started = connection.execute(self._jobs["start"], values).fetchone()
        assert started is not None  # the row is locked
        connection.execute(self._jobs["restamp"], {"job_id": job_id, "attempt": started["attempt"]})
        return int(started["attempt"])

    def renew(self, job_id: UUID, attempt: int, seconds: float) -> None:
        """Hold the job for ``seconds`` more; StaleClaim when another attempt or the sweep took it.

        Works after the lease ran out too, as long as nobody took over, and never shortens a longer lease.
        """
        with self._database.connection() as connection:
            values = {"job_id": job_id, "attempt": attempt, "seconds": seconds}
            if connection.execute(self._jobs["renew"], values).fetchone() is None:
                raise StaleClaim(_STALE)

    @contextmanager
    def _fenced(self, job_id: UUID, attempt: int) -> Iterator[tuple[Connection, dict[str, Any]]]:
        with self._database.connection() as connection:
            job = connection.execute(self._jobs["fence"], {"job_id": job_id, "attempt": attempt}).fetchone()
            if job is None:
                raise StaleClaim(_STALE)
            yield connection, job

    def claim(self, agent: str, job_id: UUID, attempt: int, limit: int, *, urgent: bool = False) -> list[TrainingRow]:
        """Take the best ``limit`` ready rows: by priority, importance, uncertainty, newest first. Claims never overlap.

        ``urgent``: rows of priority 2 and above alone, those that were never refused first; what else came in goes on
        waiting for its threshold, the holdout's newcomers too. An attempt whose job holds rows already gets those back.
        StaleClaim when the attempt is no longer the job's.
        """
        least = int(Priority.HIGH) if urgent else 0
        values = {"agent": agent, "job_id": job_id, "attempt": attempt, "limit": limit, "least": least}
        with self._fenced(job_id, attempt) as (connection, _job):
            held = connection.execute(self._jobs["claimed_rows"], values).fetchall()
            if not held:
                connection.execute(self._jobs["claim"], values)
                held = connection.execute(self._jobs["claimed_rows"], values).fetchall()
                if not urgent:
                    connection.execute(self._jobs["count_holdout"], values)
                connection.execute(self._jobs["note_claim"], {"job_id": job_id, "count": len(held)})
        return [training_row(row) for row in held]

    def claimed_rows(self, job_id: UUID, attempt: int) -> tuple[TrainingRow, ...]:
        """The rows of this attempt, best first; StaleClaim when it no longer owns the job."""
        values = {"job_id": job_id, "attempt": attempt}
        with self._database.connection() as connection:
            rows = connection.execute(self._jobs["claimed_rows"], values).fetchall()
            if not rows and connection.execute(self._jobs["owned"], values).fetchone() is None:
                raise StaleClaim(_STALE)
        return tuple(training_row(row) for row in rows)

    def advance(self, job_id: UUID, attempt: int, status: JobStatus) -> None:
        """Say how far the job is: validating, training or evaluating."""
        if status not in (JobStatus.VALIDATING, JobStatus.TRAINING, JobStatus.EVALUATING):
            raise ValueError(f"{status.value} ends or begins a job; use finish or start_attempt")
        with self._fenced(job_id, attempt) as (connection, _job):
            connection.execute(self._jobs["advance"], {"job_id": job_id, "status": status.value})

    def update_job_record(
        self, job_id: UUID, attempt: int, *, dataset: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Merge facts into the job's record: digests, counts, settings; never texts."""
        from psycopg.types.json import Jsonb

        with self._fenced(job_id, attempt) as (connection, _job):
            values = {"job_id": job_id, "dataset": Jsonb(dict(dataset or {})), "config": Jsonb(dict(config or {}))}
            connection.execute(self._jobs["job_record"], values)

    def set_aside(self, job_id: UUID, attempt: int, ids: Sequence[UUID], *, state: str, reason: str) -> int:
        """Take rows out of the claim into quarantined, held or superseded; returns how many moved."""
        if State(state) not in (State.QUARANTINED, State.HELD, State.SUPERSEDED):
            raise ValueError(f"rows of a claim are set aside as quarantined, held or superseded, not {state}")
        with self._fenced(job_id, attempt) as (connection, _job):
            values = {"job_id": job_id, "attempt": attempt, "ids": list(ids), "state": state, "reason": reason}
            return connection.execute(self._jobs["set_aside"], values).rowcount

    def settle_trained(self, job_id: UUID, attempt: int, version: str) -> int:
        """Mark exactly the claimed rows as trained with ``version``; returns how many this job trained; repeatable."""
        with self._fenced(job_id, attempt) as (connection, _job):
            values = {"job_id": job_id, "attempt": attempt, "version": version}
            count = connection.execute(self._jobs["settle_trained"], values).rowcount
            row = connection.execute(self._jobs["note_version"], {**values, "count": count}).fetchone()
        return int(row["example_count"]) if row else count

    def give_back(
        self, job_id: UUID, attempt: int, *, refused: bool, reason: str, spared: Collection[UUID] = ()
    ) -> int:
        """Let the claimed rows wait again; refused twice they are ``held`` for a person. Returns how many moved.

        ``spared`` rows were in the refused batch without being to blame: their refusal does not count. Once rows are held,
        the holdout rows that came with them count in no evaluation until a person releases them: a poisoned batch is poisoned
        in its holdout too.
        """
        with self._fenced(job_id, attempt) as (connection, _job):
            values = {
                "job_id": job_id, "attempt": attempt, "refusals": int(refused),
                "most": MOST_REFUSALS if refused else 10**6, "reason": reason, "jobs": [job_id], "spared": list(spared),
            }  # fmt: skip
            moved = [row["state"] for row in connection.execute(self._jobs["give_back"], values).fetchall()]
            if State.HELD.value in moved:
                connection.execute(self._jobs["holdout_with_batch"], {**values, "mark": WITH_HELD_BATCH})
            # holdout rows call for another training only together with rows that it could train on
            if not refused or State.READY.value in moved:
                connection.execute(self._jobs["holdout_back"], values)
        return len(moved)

    def finish(
        self, job_id: UUID, attempt: int, status: JobStatus, *, note: str = "", error: str | None = None,
        version: str | None = None,
    ) -> None:  # fmt: skip
        """End the job; rows that it still holds wait again. Requests that waited when it began count as answered."""
        if status not in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
            raise ValueError(f"a job does not end as {status.value}")
        with self._fenced(job_id, attempt) as (connection, _job):
            connection.execute(self._jobs["rows_back"], {"jobs": [job_id]})
            connection.execute(self._jobs["absorb_requests"], {"job_id": job_id})
            values = {"job_id": job_id, "status": status.value, "note": note, "error": error, "version": version}
            connection.execute(self._jobs["finish"], values)

    def absorb_requests(self, agent: str, job_id: UUID) -> int:
        """Close the agent's requests that were waiting when this job began; returns how many."""
        with self._database.connection() as connection:
            return connection.execute(self._jobs["absorb_requests"], {"agent": agent, "job_id": job_id}).rowcount

    def cancel_waiting(self, job_id: UUID, note: str) -> None:
        """End a job that never began."""
        with self._database.connection() as connection:
            connection.execute(self._jobs["cancel_waiting"], {"job_id": job_id, "note": note})

    def request_training(
        self, agent: str, *, reason: Reason = Reason.REQUEST, mode: Mode = Mode.AUTO, force: bool = False,
        requested_by: str = "",
    ) -> UUID:  # fmt: skip
        """Ask for a training and wake the watcher; a second wish joins the first that waits. Returns the job's id."""
        values = {
            "job_id": uuid4(), "agent": agent, "reason": reason.value, "mode": mode.value, "forced": force,
            "requested_by": requested_by,
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._jobs["request"], values)
            row = connection.execute(self._jobs["waiting_request"], values).fetchone()
            connection.execute(self._jobs["wake"], values)
        return UUID(str(row["job_id"])) if row else values["job_id"]  # type: ignore[return-value]

    def due(self, agent: str) -> Due:
        """Whether the agent should train, read from the table in constant time; running jobs are not looked at."""
        with self._database.connection() as connection:
            row = connection.execute(self._jobs["due"], {"agent": agent}).fetchone()
        if row is None:
            return Due(due=False, reason=None, waiting=0, corrections=0, threshold=0)
        reason = Reason(row["reason"]) if row["reason"] else None
        return Due(
            due=reason is not None, reason=reason, waiting=row["waiting"], corrections=row["corrections"],
            threshold=row["threshold"],
        )  # fmt: skip

    def due_agents(self) -> list[tuple[str, Reason]]:
        """Every active agent that is due and has no live job, agents with urgent corrections first."""
        with self._database.connection() as connection:
            rows = connection.execute(self._jobs["due"], {"agent": None}).fetchall()
        return [(row["agent"], Reason(row["reason"])) for row in rows if row["reason"]]

    def release_new_labels(self, agent: str, task: str, minimum: int) -> int:
        """Let rows of a new label wait for training again once ``minimum`` rows carry it; returns how many moved."""
        with self._database.connection() as connection:
            values = {"agent": agent, "task": task, "minimum": minimum}
            return connection.execute(self._jobs["release_new_labels"], values).rowcount

    def mark_learned(self, ids: Sequence[UUID | str], version: str) -> None:
        """Note on corrections which version answered them right first."""
        with self._database.connection() as connection:
            known = [UUID(str(identity)) for identity in ids]
            connection.execute(self._jobs["mark_learned"], {"ids": known, "version": version})

    def job(self, job_id: UUID) -> Job:
        """One job; StoreError when it is not there."""
        found = self._job("job", {"job_id": job_id})
        if found is None:
            raise StoreError(f"job {job_id} is not there")
        return found

    def job_of_run(self, agent: str, run_id: str) -> Job | None:
        """The job that a run of the agent carries out, or None; another agent's run may bear the same id."""
        return self._job("job_of_run", {"agent": agent, "run_id": run_id})

    def run_of_job(self, job_id: UUID) -> str:
        """The Airflow run of a job."""
        return self.job(job_id).run_id

    def job_started(self, job_id: UUID) -> Any:
        """When the job's latest attempt began, on the database's clock; the time as of which its holdout is frozen."""
        job = self.job(job_id)
        return job.started_at or job.created_at

    def _job(self, statement: str, values: Mapping[str, Any]) -> Job | None:
        with self._database.connection() as connection:
            row = connection.execute(self._jobs[statement], values).fetchone()
        if row is None:
            return None
        fields = {name: row[name] for name in Job.__slots__}
        return Job(**{**fields, "status": JobStatus(row["status"]), "reason": Reason(row["reason"])})
