"""The append-only record of releases, alias moves, verdicts and approvals: the last word on what serves and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from uuid import UUID

from perennial.domain.model import SemanticVersion
from perennial.errors import RegistryError, VersionExists
from perennial.registry.manifest import Manifest
from perennial.registry.recipe import Role, Rows
from perennial.registry.rows import (
    LOST,
    LOST_TRIES,
    Alias,
    AliasMove,
    Approval,
    Decision,
    ExampleUse,
    Judgement,
    Question,
    Release,
    StoredReport,
    Validation,
)
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

Examples: TypeAlias = Mapping[tuple[str, Role], Sequence[UUID]]  # (task, role) -> ids in training order
MOST_HOURS = 720.0  # 30 days; migration 0012 holds the same


class Ledger(Protocol):
    """What happened to the releases of every agent. Rows are only ever added."""

    def reserve_order(self) -> int:
        """The next place in the order of all releases; taken before signing, since it is signed. Gaps are harmless."""
        ...

    def next_version(self, agent: str, part: str) -> str:
        """The version after the highest one ever released, for a change of ``part`` (major, minor, patch).

        First 1.0.0.
        """
        ...

    def record_version(self, manifest: Manifest, *, digest: str, uri: str, mlflow_run_id: str | None) -> Release:
        """Publish: from here on the version exists. The same bytes again change nothing and return the row there is.

        Which examples made and judged it (``manifest.rows``) is written in the same transaction.
        Raises VersionExists when the name belongs to other bytes, or the order is not above the agent's last one;
        then make a new version. Raises IncompleteManifest before anything is written.
        """
        ...

    def version(self, agent: str, version: str) -> Release | None:
        """One release."""
        ...

    def version_of_job(self, job_id: UUID | str) -> Release | None:
        """What a job released, if it did."""
        ...

    def versions(self, agent: str) -> tuple[Release, ...]:
        """All releases of an agent, newest first."""
        ...

    def agents(self) -> tuple[str, ...]:
        """Agents that have a release."""
        ...

    def newest_unserved(self, agent: str) -> Release | None:
        """The newest release, when it has met no rollout yet, or up to ``LOST_TRIES`` whose runs were gone before any traffic.

        An older one that was passed over never comes back here.
        """
        ...

    def record_examples(self, agent: str, version: str, examples: Examples) -> None:
        """Note which examples made and judged a version from before the ledger kept them; what is noted already stays.

        Raises RegistryError when the ledger does not know the version.
        """
        ...

    def uses_of_example(self, example_id: UUID) -> tuple[ExampleUse, ...]:
        """Every version that was trained on an example, replayed it or was judged on it, oldest first."""
        ...

    def examples_of_version(self, agent: str, version: str) -> tuple[ExampleUse, ...]:
        """Every example of a version, by task and role, in training order; empty for versions that noted none."""
        ...

    def champion(self, agent: str) -> str | None:
        """The version that serves."""
        ...

    def ever_served(self, agent: str) -> bool:
        """Whether any version of the agent ever was champion; a release whose rollout was reverted before that was none."""
        ...

    def candidate(self, agent: str) -> str | None:
        """The version on its way."""
        ...

    def move_alias(
        self,
        agent: str,
        alias: Alias | str,
        version: str | None,
        *,
        actor: str,
        reason: str,
        job_id: UUID | None = None,
    ) -> bool:
        """Point an alias at a released version, or take it away (None). False, and no row, when it points there now.

        Raises RegistryError when the ledger does not know the version.
        """
        ...

    def moves(self, agent: str, limit: int = 100) -> tuple[AliasMove, ...]:
        """The last moves of both aliases, newest first."""
        ...

    def first_move(self, agent: str, *, reason: str, since: datetime) -> AliasMove | None:
        """The first move from a moment on that was made for this reason, whatever was moved since; of one change that moved both
        aliases it is the champion's."""
        ...

    def promoted_since(self, time: datetime) -> frozenset[str]:
        """Agents that came to serve another version after a moment; one look, whatever the number of agents and of earlier moves."""
        ...

    def served_at(self, agent: str, time: datetime) -> AliasMove | None:
        """Which version was champion at a moment, since when, and who decided; None before the first."""
        ...

    def add_gate_report(
        self, *, agent: str, job_id: UUID, attempt: int, content_digest: str, action: str, report: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keep the verdict on one attempt and return the report that is stored. A repeat returns the first one.

        Raises RegistryError when the stored verdict of this attempt is about other bytes or says something else.
        """
        ...

    def gate_report(self, job_id: UUID) -> StoredReport | None:
        """The verdict on the latest attempt of a job."""
        ...

    def gate_reports(self, agent: str, limit: int = 20) -> tuple[StoredReport, ...]:
        """The latest verdicts of an agent, newest first."""
        ...

    def judgements(self, job_id: UUID) -> tuple[Judgement, ...]:
        """What the gates decided on each attempt of a job, oldest first."""
        ...

    def ask(
        self, *, agent: str, job_id: UUID, attempt: int, content_digest: str, version: str, requested_by: str,
        body_digest: str,
    ) -> Question:  # fmt: skip
        """Write down what a person is asked about one attempt, and return what is stored. A repeat changes nothing.

        Raises RegistryError when the question of this attempt was about other bytes.
        """
        ...

    def questions(
        self, *, agent: str | None = None, job_id: UUID | None = None, limit: int = 50
    ) -> tuple[Question, ...]:
        """What people were asked, newest first; of one agent, of one job, or of all."""
        ...

    def add_approval(
        self, *, agent: str, job_id: UUID, content_digest: str, decision: Decision | str, actor: str, comment: str = "",
        hours: float = 72.0, attempt: int | None = None, version: str = "", requested_by: str = "", void: str = "",
    ) -> Approval:  # fmt: skip
        """Write a person's decision on exactly these bytes; it lapses after ``hours`` (30 days at most) on the store's clock.

        Raises RegistryError unless the gate report of that attempt (default: the latest) asks a person about these bytes.
        """
        ...

    def decisions(
        self, *, agent: str | None = None, job_id: UUID | None = None, limit: int = 200
    ) -> tuple[Approval, ...]:
        """What people decided, void answers too, newest first; of one agent, of one job, or of all."""
        ...

    def now(self) -> datetime:
        """The store's clock: what an expiry is held against."""
        ...

    def add_validation(
        self, *, agent: str, job_id: UUID, attempt: int, task: str, success: bool, report: Mapping[str, Any]
    ) -> None:
        """Keep what validation said of one task.

        A repeat changes nothing, another outcome for it is a RegistryError.
        """
        ...

    def validations(self, job_id: UUID) -> tuple[Validation, ...]:
        """What validation said about a job, all attempts."""
        ...

    def recent_validations(self, agent: str, limit: int = 50) -> tuple[Validation, ...]:
        """What validation said last about an agent's batches, newest first."""
        ...


def following_version(known: Iterable[str], part: str) -> str:
    """The version after the highest of the known ones.

    >>> following_version(["1.0.0", "1.10.2", "1.9.9"], "minor"), following_version([], "patch")
    ('1.11.0', '1.0.0')
    """
    versions = [SemanticVersion.parse(version) for version in known]
    return str(max(versions).bump(part)) if versions else "1.0.0"


def version_part(*, batch: bool, new_labels: bool, new_base: bool) -> str:
    """Which part of the version a training moves: new labels or another base model major, a batch minor, else patch.

    >>> version_part(batch=True, new_labels=False, new_base=False)
    'minor'
    """
    if new_labels or new_base:
        return "major"
    return "minor" if batch else "patch"


class PostgresLedger:
    """The ledger in PostgreSQL, where triggers and privileges refuse every change of a row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = load("perennial.registry")

    def reserve_order(self) -> int:
        """See ``Ledger``."""
        row = self._one("reserve_order", {})
        if row is None:
            raise RegistryError("the ledger gave no order; run `perennial migrate`")
        return int(row["reserved"])

    def next_version(self, agent: str, part: str) -> str:
        """See ``Ledger``."""
        return following_version((row["version"] for row in self._all("version_names", {"agent": agent})), part)

    def record_version(self, manifest: Manifest, *, digest: str, uri: str, mlflow_run_id: str | None) -> Release:
        """See ``Ledger``."""
        from psycopg.types.json import Jsonb

        manifest.check_complete()
        values = {
            "order": manifest.order, "agent": manifest.agent, "version": manifest.version, "digest": digest,
            "base_version": manifest.base_version, "job_id": manifest.job_id, "uri": uri,
            "mlflow_run_id": mlflow_run_id, "manifest": Jsonb(manifest.as_dict()),
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._sql["lock_agent"], values)
            clashes = connection.execute(self._sql["clashes"], values).fetchall()
            check_clashes(manifest, digest, clashes)
            connection.execute(self._sql["record_version"], values)
            self._record_examples(connection, manifest.agent, manifest.version, examples_of(manifest.rows))
            found = connection.execute(self._sql["version"], values).fetchone()
        return _release(found, manifest)

    def record_examples(self, agent: str, version: str, examples: Examples) -> None:
        """See ``Ledger``."""
        with self._database.connection() as connection:
            if connection.execute(self._sql["version"], {"agent": agent, "version": version}).fetchone() is None:
                raise unknown_version(agent, version)
            self._record_examples(connection, agent, version, examples)

    def _record_examples(self, connection: Connection, agent: str, version: str, examples: Examples) -> None:
        for (task, role), ids in sorted(examples.items()):
            values = {"agent": agent, "version": version, "task": task, "role": role.value, "ids": list(ids)}
            connection.execute(self._sql["record_examples"], values)

    def uses_of_example(self, example_id: UUID) -> tuple[ExampleUse, ...]:
        """See ``Ledger``."""
        rows = self._all("uses_of_example", {"example_id": example_id})
        return tuple(_use({**row, "example_id": example_id}) for row in rows)

    def examples_of_version(self, agent: str, version: str) -> tuple[ExampleUse, ...]:
        """See ``Ledger``."""
        return tuple(_use(row) for row in self._all("examples_of_version", {"agent": agent, "version": version}))

    def version(self, agent: str, version: str) -> Release | None:
        """See ``Ledger``."""
        return _maybe_release(self._one("version", {"agent": agent, "version": version}))

    def version_of_job(self, job_id: UUID | str) -> Release | None:
        """See ``Ledger``."""
        return _maybe_release(self._one("version_of_job", {"job_id": str(job_id)}))

    def versions(self, agent: str) -> tuple[Release, ...]:
        """See ``Ledger``."""
        return tuple(_row_release(row) for row in self._all("versions", {"agent": agent}))

    def agents(self) -> tuple[str, ...]:
        """See ``Ledger``."""
        return tuple(row["agent"] for row in self._all("agents", {}))

    def newest_unserved(self, agent: str) -> Release | None:
        """See ``Ledger``."""
        return _maybe_release(self._one("newest_unserved", {"agent": agent, "lost": LOST, "tries": LOST_TRIES}))

    def champion(self, agent: str) -> str | None:
        """See ``Ledger``."""
        return self._alias(agent, Alias.CHAMPION)

    def ever_served(self, agent: str) -> bool:
        """See ``Ledger``."""
        row = self._one("ever_served", {"agent": agent})
        return row is not None and bool(row["yes"])

    def candidate(self, agent: str) -> str | None:
        """See ``Ledger``."""
        return self._alias(agent, Alias.CANDIDATE)

    def _alias(self, agent: str, alias: Alias) -> str | None:
        row = self._one("alias", {"agent": agent, "alias": alias.value})
        return None if row is None else row["version"]

    def move_alias(
        self,
        agent: str,
        alias: Alias | str,
        version: str | None,
        *,
        actor: str,
        reason: str,
        job_id: UUID | None = None,
    ) -> bool:
        """See ``Ledger``."""
        values = {
            "agent": agent, "alias": Alias(alias).value, "version": version, "actor": actor, "reason": reason,
            "job_id": job_id,
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._sql["lock_agent"], values)
            if version is not None and connection.execute(self._sql["version"], values).fetchone() is None:
                raise unknown_version(agent, version)
            now = connection.execute(self._sql["alias"], values).fetchone()
            if (now["version"] if now else None) == version:
                return False
            connection.execute(self._sql["move_alias"], values)
        return True

    def moves(self, agent: str, limit: int = 100) -> tuple[AliasMove, ...]:
        """See ``Ledger``."""
        return tuple(_move(row) for row in self._all("moves", {"agent": agent, "limit": limit}))

    def first_move(self, agent: str, *, reason: str, since: datetime) -> AliasMove | None:
        """See ``Ledger``."""
        row = self._one("first_move", {"agent": agent, "reason": reason, "since": aware(since)})
        return None if row is None else _move(row)

    def promoted_since(self, time: datetime) -> frozenset[str]:
        """See ``Ledger``."""
        return frozenset(row["agent"] for row in self._all("promoted_since", {"time": aware(time)}))

    def served_at(self, agent: str, time: datetime) -> AliasMove | None:
        """See ``Ledger``."""
        row = self._one("served_at", {"agent": agent, "time": aware(time)})
        return None if row is None or row["version"] is None else _move(row)

    def add_gate_report(
        self, *, agent: str, job_id: UUID, attempt: int, content_digest: str, action: str, report: Mapping[str, Any]
    ) -> dict[str, Any]:
        """See ``Ledger``."""
        from psycopg.types.json import Jsonb

        values = {
            "agent": agent, "job_id": job_id, "attempt": attempt, "content_digest": content_digest,
            "action": str(action), "report": Jsonb(dict(report)),
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._sql["add_gate_report"], values)
            stored = connection.execute(self._sql["gate_report_of_attempt"], values).fetchone()
        return same_verdict(StoredReport(**stored) if stored else None, content_digest, str(action))

    def gate_report(self, job_id: UUID) -> StoredReport | None:
        """See ``Ledger``."""
        row = self._one("gate_report", {"job_id": job_id})
        return None if row is None else StoredReport(**row)

    def gate_reports(self, agent: str, limit: int = 20) -> tuple[StoredReport, ...]:
        """See ``Ledger``."""
        return tuple(StoredReport(**row) for row in self._all("gate_reports", {"agent": agent, "limit": limit}))

    def judgements(self, job_id: UUID) -> tuple[Judgement, ...]:
        """See ``Ledger``."""
        return tuple(Judgement(**row) for row in self._all("judgements", {"job_id": job_id}))

    def ask(
        self, *, agent: str, job_id: UUID, attempt: int, content_digest: str, version: str, requested_by: str,
        body_digest: str,
    ) -> Question:  # fmt: skip
        """See ``Ledger``."""
        values = {
            "agent": agent, "job_id": job_id, "attempt": attempt, "content_digest": content_digest, "version": version,
            "requested_by": requested_by, "body_digest": body_digest,
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._sql["ask"], values)
            row = connection.execute(self._sql["question_of_attempt"], values).fetchone()
        return same_question(None if row is None else Question(**row), content_digest)

    def questions(
        self, *, agent: str | None = None, job_id: UUID | None = None, limit: int = 50
    ) -> tuple[Question, ...]:
        """See ``Ledger``."""
        values = {"agent": agent, "job_id": job_id, "limit": limit}
        return tuple(Question(**row) for row in self._all("questions", values))

    def add_approval(
        self, *, agent: str, job_id: UUID, content_digest: str, decision: Decision | str, actor: str, comment: str = "",
        hours: float = 72.0, attempt: int | None = None, version: str = "", requested_by: str = "", void: str = "",
    ) -> Approval:  # fmt: skip
        """See ``Ledger``; a trigger holds the same for whoever writes past this class."""
        values = {
            "agent": agent, "job_id": job_id, "content_digest": content_digest, "decision": Decision(decision).value,
            "actor": named(actor), "comment": comment, "seconds": lifetime(hours) * 3600.0, "version": version,
            "requested_by": requested_by, "void": void,
        }  # fmt: skip
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["judgements"], values).fetchall()
            asked = asking(tuple(Judgement(**row) for row in rows), content_digest, attempt)
            row = connection.execute(self._sql["add_approval"], {**values, "attempt": asked.attempt}).fetchone()
        return _approval(row or {})

    def decisions(
        self, *, agent: str | None = None, job_id: UUID | None = None, limit: int = 200
    ) -> tuple[Approval, ...]:
        """See ``Ledger``."""
        return tuple(
            _approval(row) for row in self._all("decisions", {"agent": agent, "job_id": job_id, "limit": limit})
        )

    def now(self) -> datetime:
        """See ``Ledger``."""
        row = self._one("now", {})
        if row is None:
            raise RegistryError("the ledger told no time; check PERENNIAL_DATABASE_URL")
        return aware(row["now"])

    def add_validation(
        self, *, agent: str, job_id: UUID, attempt: int, task: str, success: bool, report: Mapping[str, Any]
    ) -> None:
        """See ``Ledger``."""
        from psycopg.types.json import Jsonb

        values = {
            "agent": agent, "job_id": job_id, "attempt": attempt, "task": task, "success": success,
            "report": Jsonb(dict(report)),
        }  # fmt: skip
        with self._database.connection() as connection:
            connection.execute(self._sql["add_validation"], values)
            rows = connection.execute(self._sql["validations"], values).fetchall()
        same_outcome([Validation(**row) for row in rows], attempt, task, success)

    def validations(self, job_id: UUID) -> tuple[Validation, ...]:
        """See ``Ledger``."""
        return tuple(Validation(**row) for row in self._all("validations", {"job_id": job_id}))

    def recent_validations(self, agent: str, limit: int = 50) -> tuple[Validation, ...]:
        """See ``Ledger``."""
        return tuple(Validation(**row) for row in self._all("recent_validations", {"agent": agent, "limit": limit}))

    def _one(self, name: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
        with self._database.connection() as connection:
            return connection.execute(self._sql[name], values).fetchone()

    def _all(self, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._database.connection() as connection:
            return connection.execute(self._sql[name], values).fetchall()


def examples_of(rows: Rows) -> dict[tuple[str, Role], tuple[UUID, ...]]:
    """The ids of a manifest's rows by task and role, in training order; empty roles are left out."""
    return {
        (task, role): tuple(UUID(mark.example_id) for mark in roles[role])
        for task, roles in rows.items()
        for role in Role
        if roles.get(role)
    }


def check_clashes(manifest: Manifest, digest: str, clashes: Iterable[Mapping[str, Any]]) -> None:
    """Raise VersionExists when a row that is there keeps this release out; the very same release is no clash."""
    for row in clashes:
        same = (row["version"], row["digest"], row["ordinal"]) == (manifest.version, digest, manifest.order)
        if same:
            return
        if row["version"] == manifest.version:
            raise VersionExists(
                f"{manifest.agent} {manifest.version} was released with other bytes; take the next version"
            )
        raise VersionExists(
            f"{manifest.agent} {row['version']} (order {row['ordinal']}) was released before this one (order "
            f"{manifest.order}); reserve a new order and sign again"
        )


def same_verdict(stored: StoredReport | None, content_digest: str, action: str) -> dict[str, Any]:
    """The stored report, when it is the verdict just reached."""
    if stored is None or (stored.content_digest, stored.action) != (content_digest, action):
        raise RegistryError(
            "another verdict is stored for this attempt and is never changed; start a new attempt of the job"
        )
    return dict(stored.report)


def same_outcome(stored: Iterable[Validation], attempt: int, task: str, success: bool) -> None:
    """Raise RegistryError unless the stored validation of this task says the same."""
    if not any((row.attempt, row.task, row.success) == (attempt, task, success) for row in stored):
        raise RegistryError(
            "another validation is stored for this attempt and is never changed; start a new attempt of the job"
        )


def unknown_version(agent: str, version: str) -> RegistryError:
    """What to say about a version that was never released."""
    return RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")


def named(actor: str) -> str:
    """A decision has an author; an anonymous one is refused."""
    if not actor.strip():
        raise RegistryError("a decision needs the name of who made it")
    return actor


def lifetime(hours: float) -> float:
    """The hours for which a decision holds; an approval for ever would be one that nobody remembers giving."""
    if hours > MOST_HOURS:
        raise RegistryError(f"a decision holds for {MOST_HOURS:.0f} hours at most; ask again after that")
    return hours


def asking(judgements: Sequence[Judgement], content_digest: str, attempt: int | None) -> Judgement:
    """The judgement that a decision answers: of this attempt, or of the latest one."""
    mine = [row for row in judgements if attempt in (None, row.attempt)]
    if not mine or (mine[-1].content_digest, mine[-1].action) != (content_digest, "approve"):
        raise RegistryError("no gate report asks a person about these bytes; run the gate of this job again")
    return mine[-1]


def same_question(stored: Question | None, content_digest: str) -> Question:
    """The stored question, when it is about the same bytes."""
    if stored is None or stored.content_digest != content_digest:
        raise RegistryError("a person was asked about other bytes under this attempt; start a new attempt of the job")
    return stored


def aware(time: datetime) -> datetime:
    """Times carry their zone; one without it would be read in the server's."""
    if time.tzinfo is None:
        raise ValueError("the time has no zone; use datetime(..., tzinfo=UTC)")
    return time


def _release(row: Mapping[str, Any] | None, manifest: Manifest) -> Release:
    if row is None:
        raise VersionExists(
            f"{manifest.agent} {manifest.version} could not be recorded; reserve a new order and sign again"
        )
    return _row_release(row)


def _maybe_release(row: Mapping[str, Any] | None) -> Release | None:
    return None if row is None else _row_release(row)


def _row_release(row: Mapping[str, Any]) -> Release:
    given = dict(row)
    return Release(order=given.pop("ordinal"), **given)


def _use(row: Mapping[str, Any]) -> ExampleUse:
    return ExampleUse(**{**row, "role": Role(row["role"])})


def _approval(row: Mapping[str, Any]) -> Approval:
    return Approval(**{**row, "decision": Decision(row["decision"])})


def _move(row: Mapping[str, Any]) -> AliasMove:
    return AliasMove(**{**row, "alias": Alias(row["alias"])})
