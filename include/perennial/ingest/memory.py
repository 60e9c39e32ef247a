"""The buffer in the memory of one process: for tests and trials, with the rules of the one on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from perennial.domain.example import Example, TrainingRow
from perennial.domain.origin import self_labelled
from perennial.domain.words import JSON, Priority, RedactionState, State
from perennial.errors import UnknownAgent
from perennial.ingest.admit import (
    GUARD_AWAY,
    REDACTOR_CHANGED,
    AdmitOutcome,
    Admitted,
    Ahead,
    Examine,
    Personal,
    Refused,
    guarded,
    is_personal,
    kinds_of,
    never,
)
from perennial.ingest.digests import share
from perennial.ingest.memory_origins import MemoryOrigins
from perennial.ingest.memory_rows import Asked, MemoryState, Row, content_digest, digest_of, now
from perennial.ingest.plain_words import plain_answer, plain_example, plain_task
from perennial.ingest.postgres_intake import is_correction, rounds_of, warn_of_eviction
from perennial.ingest.postgres_jobs import WITH_HELD_BATCH
from perennial.ingest.results import (
    AddResult,
    KnownRow,
    Offset,
    Performance,
    Rejection,
    StoredCorrection,
    StoredExample,
    TaskLimits,
)

_KEPT = frozenset({State.READY, State.HELD, State.UNLABELLED, State.TRAINED})  # states in which a redacted copy is kept


class MemoryBuffer(MemoryOrigins):
    """A buffer that forgets with its process; every method is one step under one lock."""

    def __init__(self) -> None:
        self.state = MemoryState()

    def add(self, example: Example) -> AddResult:
        """Store one example."""
        return self.add_many((example,))

    def add_many(
        self, examples: Iterable[Example], *, offsets: Offset | None = None, rejected: Sequence[Rejection] = ()
    ) -> AddResult:
        """Store many examples as one step; see ``PostgresBuffer.add_many``."""
        batch = list(examples)
        with self.state.lock:
            for example in batch:
                if not self.state.agents.get(example.agent, {}).get("active"):
                    raise UnknownAgent(example.agent, sorted(self.fleet()))
            if offsets is not None and not self._advance(offsets):
                return AddResult(skipped=True)
            self.state.rejected += rejected
            self.state.add_to_counter("", "rejected", len(rejected))
            return self._add(batch)

    def withdraw(self, ids: Collection[UUID], *, back: Collection[UUID] = ()) -> None:
        """Take rows back, or let them wait again; see ``PostgresBuffer.withdraw``."""
        with self.state.lock:
            for row in self.state.rows:
                if row.example.example_id in ids:
                    self.state.take_back(row)
            for row in self.state.rows:
                if row.example.example_id in back and row.superseded_by == row.example.example_id:
                    self.state.bring_back(row)

    def _advance(self, offset: Offset) -> bool:
        key = (offset.source, offset.part)
        before = self.state.offsets.get(key)
        if before is not None:
            finishes = offset.finished and not before.finished and offset.position == before.position
            if offset.position <= before.position and not finishes:
                return False
        self.state.offsets[key] = offset
        return True

    def _add(self, batch: list[Example]) -> AddResult:
        ids: dict[UUID, UUID] = {}
        fresh: list[Row] = []
        for positions in rounds_of(batch):
            stored = []
            for position in positions:
                example = batch[position]
                identity, row = self._store(example)
                ids[example.example_id] = identity
                stored += [row] if row else []
            for row in stored:
                if row.correction and row.state is not State.QUARANTINED:
                    self.state.supersede(row)
            fresh += stored
        evicted = self._settle_agents(batch, fresh)
        warn_of_eviction(evicted)
        return AddResult(
            added=len(fresh), duplicates=len(batch) - len(fresh), evicted=evicted,
            quarantined=sum(row.state is State.QUARANTINED for row in fresh),
            ids=tuple(ids[example.example_id] for example in batch),
        )  # fmt: skip

    def _settle_agents(self, batch: list[Example], fresh: list[Row]) -> int:
        evicted = 0
        for agent in sorted({example.agent for example in batch}):
            mine = [row for row in fresh if row.example.agent == agent]
            given = sum(example.agent == agent for example in batch)
            gone = self._evict(agent)
            evicted += gone
            for name, amount in (
                ("duplicates", given - len(mine)), ("evicted", gone),
                ("quarantined", sum(row.state is State.QUARANTINED for row in mine)),
            ):  # fmt: skip
                self.state.add_to_counter(agent, name, amount)
            if mine:
                payload = {"count": len(mine), "example_ids": [str(row.example.example_id) for row in mine]}
                self.state.announced.append({"topic": "training.example.created", "agent": agent, "payload": payload})
        return evicted

    def _store(self, example: Example) -> tuple[UUID, Row | None]:
        record = self.state.agents[example.agent]
        names = {name: task["task"] for task in record["tasks"] for name in (task["task"], *task.get("aliases", ()))}
        task, known, correction = names.get(example.task, example.task), example.task in names, is_correction(example)
        digest = digest_of(example, task)
        latest = self.state.latest_correction(digest, example.example_id)
        if correction and latest is not None and _repeats(example, latest):
            return latest.example.example_id, None
        before = self.state.latest_correction(digest, example.example_id, dropped=True) if correction else None
        content = content_digest(
            example, task, correction=correction, after=before.example.example_id if before else None
        )
        for row in self.state.rows:
            if row.example.example_id == example.example_id or row.content_digest == content:
                if row.superseded_by == row.example.example_id:
                    self.state.bring_back(row)  # somebody says again what its sender took back
                return row.example.example_id, None
        overtaken = latest is not None and not correction and known
        labelled = example.expected_output is not None
        plain = known and labelled and not correction and not overtaken and example.priority <= Priority.MEDIUM
        own_answer = self_labelled(example.source, example.expected_output, example.predicted_output)
        state = State.RAW if labelled else State.UNLABELLED
        answer, example = example.predicted_output, plain_example(example, self.state.salt)
        task = task if known else plain_task(task, self.state.salt)
        row = Row(
            number=len(self.state.rows) + 1, example=example, task=task, correction=correction,
            state=State.QUARANTINED if not known else State.SUPERSEDED if overtaken else state,
            holdout=plain and not own_answer and share(digest) < record["holdout_share"], input_digest=digest, content_digest=content,
            added_at=now(), answer=answer,
            reason="unknown_task" if not known else "corrected_before" if overtaken else "",
            superseded_by=latest.example.example_id if overtaken and latest else None,
        )  # fmt: skip
        self.state.rows.append(row)
        return example.example_id, row

    def _evict(self, agent: str) -> int:
        waiting = [row for row in self.state.of(agent) if row.waiting]
        allowed = int(self.state.limit(agent, "max_buffer_size"))
        excess = max(len(waiting) - allowed, 0)
        excess += allowed // 1000 if excess and allowed >= 10_000 else 0
        leaving = sorted((row for row in waiting if not row.correction), key=lambda row: row.worth)[:excess]
        for row in leaving:
            row.state, row.reason = State.EVICTED, "buffer_full"
        return len(leaving)

    def offset(self, source: str, part: str) -> Offset | None:
        """How far a part of a source was read."""
        return self.state.offsets.get((source, part))

    def count(self, agent: str, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        with self.state.lock:
            self.state.add_to_counter(agent, name, amount)

    def counters(self) -> dict[str, dict[str, int]]:
        """All counters by agent."""
        found: dict[str, dict[str, int]] = {}
        for (agent, name), value in self.state.counters.items():
            found.setdefault(agent, {})[name] = value
        return found

    def fleet(self) -> dict[str, dict[str, TaskLimits]]:
        """The active agents with their tasks, by every name."""
        found: dict[str, dict[str, TaskLimits]] = {}
        for agent, record in self.state.agents.items():
            for task in record["tasks"] if record["active"] else ():
                labels = tuple(task["labels"]) if task["labels"] is not None else None
                limits = TaskLimits(name=task["task"], kind=task["kind"], labels=labels, max_length=task["max_length"])
                for name in (task["task"], *task.get("aliases", ())):
                    found.setdefault(agent, {})[name] = limits
        return found

    def sync_agents(self, records: Sequence[Mapping[str, Any]], *, keep: bool = False) -> None:
        """Write the fleet."""
        with self.state.lock:
            names = {record["agent"] for record in records}
            for agent, known in self.state.agents.items():
                known["active"] = known["active"] and (keep or agent in names)
            for record in records:
                self.state.agents[record["agent"]] = {**record, "active": True}

    def set_override(self, name: str, value: float | None, *, by: str = "") -> None:
        """Set or clear a value for the deployment."""
        with self.state.lock:
            if by.startswith("environment") and self.state.set_by.get(name, "").startswith("constructor"):
                return
            self.state.overrides.pop(name, None)
            self.state.set_by.pop(name, None)
            if value is not None:
                self.state.overrides[name], self.state.set_by[name] = value, by

    def overrides(self) -> dict[str, float]:
        """The overrides that hold now."""
        return dict(self.state.overrides)

    def holdout(self, agent: str, task: str, as_of: datetime, limit: int) -> tuple[TrainingRow, ...]:
        """The labelled rows kept from training."""
        rows = [
            row for row in self.state.of(agent)
            if row.task == task and row.holdout and row.state is State.READY
            and row.admitted_at is not None and row.admitted_at <= as_of and row.reason != WITH_HELD_BATCH
        ]  # fmt: skip
        return tuple(
            row.as_training_row()
            for row in sorted(rows, key=lambda row: (row.input_digest, row.content_digest))[:limit]
        )

    def _trained(self, agent: str, task: str) -> list[Row]:
        rows = [
            row for row in self.state.of(agent)
            if row.task == task and row.state is State.TRAINED and row.superseded_by is None
        ]  # fmt: skip
        return sorted(rows, key=lambda row: (row.trained_at or row.added_at, row.number), reverse=True)

    def regression(
        self, agent: str, task: str, as_of: datetime | None = None, limit: int = 1000
    ) -> tuple[TrainingRow, ...]:
        """Trained urgent corrections that still hold."""
        rows = [
            row for row in self._trained(agent, task)
            if row.regression and row.trained_at and row.trained_at <= (as_of or now())
        ]  # fmt: skip
        rows.sort(key=lambda row: row.number, reverse=True)
        return tuple(row.as_training_row() for row in rows[:limit])

    def replay_candidates(self, agent: str, task: str, limit: int, seed: int) -> list[TrainingRow]:
        """Trained rows in an order drawn by the seed."""
        import hashlib

        rows = sorted(
            self._trained(agent, task),
            key=lambda row: hashlib.sha256(f"{seed}{row.example.example_id}".encode()).digest(),
        )
        return [row.as_training_row() for row in rows[:limit]]

    def recent_trained(self, agent: str, task: str, limit: int) -> tuple[TrainingRow, ...]:
        """The newest trained rows."""
        return tuple(row.as_training_row() for row in self._trained(agent, task)[:limit])

    def counts(self, agent: str) -> dict[tuple[str, str], int]:
        """Rows by task and state."""
        found: dict[tuple[str, str], int] = {}
        for row in self.state.of(agent):
            name = "holdout" if row.holdout and row.state is State.READY else row.state.value
            found[row.task, name] = found.get((row.task, name), 0) + 1
        return found

    def example(self, example_id: UUID) -> StoredExample | None:
        """One row, or None when it is not there."""
        for row in self.state.rows:
            one = row.example
            if one.example_id == example_id:
                return StoredExample(
                    example_id=example_id, agent=one.agent, task=row.task, state=row.state, input_text=row.text,
                    expected_output=row.label, uncertainty=one.uncertainty, importance=one.importance,
                    source_url=one.source_url, created_at=one.created_at, user_feedback=row.feedback,
                    priority=int(one.priority), tag=one.tag, source=one.source.value, reason=row.reason,
                    model_version=row.model_version,
                )  # fmt: skip
        return None

    def rows_by_id(self, ids: Sequence[UUID]) -> dict[UUID, KnownRow]:
        """What is known of these ids."""
        wanted = set(ids)
        return {
            row.example.example_id: KnownRow(
                state=row.state, source=row.example.source.value, priority=int(row.example.priority),
                row=None if row.text is None or row.state is State.PURGED else row.as_training_row(),
            )
            for row in self.state.rows
            if row.example.example_id in wanted
        }  # fmt: skip

    def waiting(self) -> dict[str, int]:
        """Rows that wait, for every active agent."""
        return {
            agent: sum(row.waiting for row in self.state.of(agent))
            for agent, record in sorted(self.state.agents.items())
            if record["active"]
        }

    def quiet(self, seconds: float) -> list[str]:
        """Active agents that had rows before and got none within ``seconds``."""
        edge = now() - timedelta(seconds=seconds)
        with self.state.lock:
            newest = {
                agent: max((row.added_at for row in self.state.of(agent)), default=None) for agent in self.state.agents
            }
            return sorted(
                agent
                for agent, at in newest.items()
                if self.state.agents[agent]["active"] and at is not None and at <= edge
            )

    def corrections(self, agent: str, limit: int = 1000) -> tuple[StoredCorrection, ...]:
        """The agent's corrections with what became of them, newest first."""
        with self.state.lock:
            rows = sorted(self.state.of(agent), key=lambda row: row.number, reverse=True)
            return tuple(
                StoredCorrection(
                    row=row.as_training_row(), state=row.state, learned=row.learned, version=row.model_version,
                    refusals=row.refusals, reason=row.reason,
                )
                for row in [row for row in rows if row.correction][:limit]
            )  # fmt: skip

    def corrections_by_tag(self, agent: str) -> dict[str, dict[str, int]]:
        """Corrections by tag and state."""
        found: dict[str, dict[str, int]] = {}
        for row in self.state.of(agent):
            if row.correction:
                states = found.setdefault(row.example.tag, {})
                states[row.state.value] = states.get(row.state.value, 0) + 1
        return found

    def record_performance(
        self, *, agent: str, model_name: str, before: float | None, after: float | None, examples: int, rollback: bool,
        job_id: UUID | None = None, version: str | None = None, detail: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Append one update to the history, once per job, version and verdict."""
        with self.state.lock:
            for line in self.state.history:
                same = (line.agent_name, line.job_id, line.rollback_triggered, line.version)
                if job_id is not None and same == (agent, job_id, rollback, version):
                    return
            self.state.history.append(
                Performance(
                    agent_name=agent,
                    model_name=model_name,
                    accuracy_before=before,
                    accuracy_after=after,
                    examples_trained=examples,
                    update_timestamp=now(),
                    rollback_triggered=rollback,
                    version=version,
                    job_id=job_id,
                )
            )

    def performance(self, agent: str | None = None, last: int = 5) -> list[Performance]:
        """The last updates, oldest first."""
        lines = [line for line in self.state.history if agent is None or line.agent_name == agent]
        return lines[-last:]

    def performance_size(self) -> int:
        """How many updates the history holds."""
        return len(self.state.history)

    def recent_accuracy(self, agent: str, window: int) -> float | None:
        """Share of right answers among the last outcomes, which tests put into ``state.outcomes``."""
        last = [correct for name, correct in self.state.outcomes if name == agent][-window:]
        return sum(last) / len(last) if last else None


def _repeats(example: Example, latest: Row) -> bool:
    waits = latest.state in (State.RAW, State.READY, State.CLAIMED) and latest.example.priority >= example.priority
    return waits and latest.example.expected_output == example.expected_output


class MemoryAdmission:
    """Admission over a ``MemoryBuffer``, with the outcome of ``Admission``."""

    def __init__(self, buffer: MemoryBuffer) -> None:
        self._state = buffer.state

    def waiting(self, agents: Sequence[str]) -> list[str]:
        """See ``Admission.waiting``."""
        with self._state.lock:
            return [agent for agent in agents if any(_may_move(row) for row in self._state.of(agent))]

    def run(
        self, agent: str, examine: Examine, ahead: Ahead | None = None, personal: Personal = never
    ) -> AdmitOutcome:  # fmt: skip
        """Admit every waiting row of the agent."""
        self.release(agent)
        look = guarded(examine)
        totals = {"admitted": 0, "unlabelled": 0, "quarantined": 0, "unavailable": 0, "unsure": 0}
        with self._state.lock:
            for row in self._state.of(agent):
                fresh = row.state is State.RAW or (row.state is State.UNLABELLED and row.admitted_at is None)
                if fresh:
                    one = row.example
                    if ahead is not None:
                        ahead([one.input_text])
                    answer = look(one.example_id, row.task, one.input_text, one.expected_output, one.user_feedback)
                    totals[self._settle(row, answer)] += 1
                    self._state.overtake(row)
                    totals["unsure"] += isinstance(answer, Admitted) and bool(answer.doubts)
                    row.example = replace(one, predicted_output=_shown(row, answer, personal))
                    totals["unavailable"] += isinstance(answer, Refused) and answer.reason == GUARD_AWAY
            self._state.add_to_counter(agent, "quarantined", totals["quarantined"])
        return AdmitOutcome(**totals)

    def _settle(self, row: Row, answer: Admitted | Refused) -> str:
        if isinstance(answer, Refused):
            row.state, row.reason = State.QUARANTINED, answer.reason
            if row.correction and answer.reason != GUARD_AWAY:
                self._state.restore_corrected({row.example.example_id})
            return "quarantined"
        row.text, row.label, row.feedback = answer.text, answer.expected_output, answer.feedback
        row.state = State.READY if answer.expected_output is not None else State.UNLABELLED
        row.reason, row.admitted_at, row.redaction = "", now(), answer.as_note()
        self._ask(row, answer)
        return "admitted" if row.state is State.READY else "unlabelled"

    def _ask(self, row: Row, answer: Admitted) -> None:
        if not answer.doubts:
            return
        agent, identity, words = row.example.agent, row.example.example_id, {doubt.key for doubt in answer.doubts}
        known = self._state.asked.get((agent, answer.text_key))
        if known is None:
            self._state.asked[agent, answer.text_key] = Asked(
                number=len(self._state.asked) + 1, agent=agent, task=row.task, kinds=kinds_of(answer.doubts), doubts=answer.doubts,
                words=words, example_ids=[identity], version=answer.version, opened_at=now(),
            )  # fmt: skip
            return
        unanswered = known.state in (RedactionState.DROPPED, RedactionState.CLOSED)
        if words - known.words or (unanswered and identity not in known.example_ids):
            known.state, known.round, known.opened_at = RedactionState.OPEN, known.round + 1, now()
            known.kinds, known.doubts = kinds_of(answer.doubts), answer.doubts
        known.words |= words
        known.version = answer.version
        if identity not in known.example_ids:
            known.example_ids.append(identity)

    def redact_again(
        self, agent: str, version: str, redact: Examine, *, seconds: float, trained: bool, ahead: Ahead | None = None
    ) -> int:  # fmt: skip
        """Redact rows anew that another version made; see ``Admission.redact_again``."""
        look, done = guarded(redact), 0
        kept = _KEPT if trained else _KEPT - {State.TRAINED}
        with self._state.lock:
            for row in self._state.of(agent) if seconds > 0 else ():
                waits = row.state is State.QUARANTINED and row.reason == REDACTOR_CHANGED
                old = row.redaction is not None and row.redaction["version"] != version
                if not waits and not (old and row.state in kept):
                    continue
                one = row.example
                if ahead is not None:
                    ahead([one.input_text])
                answer = look(one.example_id, row.task, one.input_text, one.expected_output, one.user_feedback)
                if isinstance(answer, Admitted):
                    self._redacted(row, answer)
                    self._state.overtake(row)
                elif answer.reason == GUARD_AWAY:
                    break
                else:
                    row.state, row.reason = State.QUARANTINED, answer.reason
                done += 1
        return done

    def _redacted(self, row: Row, answer: Admitted) -> None:
        if row.example.predicted_output == row.label:
            row.example = replace(row.example, predicted_output=answer.expected_output)
        row.text, row.label, row.feedback = answer.text, answer.expected_output, answer.feedback
        row.redaction = answer.as_note()
        if row.state is State.QUARANTINED:
            labelled = State.READY if answer.expected_output is not None else State.UNLABELLED
            row.state, row.reason = State.SUPERSEDED if row.superseded_by else labelled, ""
        self._ask(row, answer)
        asked = self._state.asked.get((row.example.agent, answer.text_key))
        if asked is not None and not answer.doubts and asked.state is RedactionState.OPEN:
            asked.state, asked.doubts = RedactionState.CLOSED, ()

    def _rename(self, row: Row, task: str) -> None:
        content = content_digest(row.example, task, correction=row.correction, after=None)
        twin = next((other for other in self._state.rows if other.content_digest == content and other is not row), None)
        row.task = task
        if twin is not None:
            row.state, row.reason, row.superseded_by = State.SUPERSEDED, "duplicate", twin.example.example_id
            return
        row.input_digest, row.content_digest = digest_of(row.example, task), content
        row.state, row.reason = State.RAW if row.example.expected_output is not None else State.UNLABELLED, ""
        if row.superseded_by is not None:  # its sender took it back meanwhile
            row.state, row.reason = State.SUPERSEDED, "corrected"
        elif row.correction:
            self._state.supersede(row)

    def release(self, agent: str) -> int:
        """Let rows wait again that stood aside for an absent guard or for a task that the fleet knows by now."""
        released = 0
        with self._state.lock:
            record = self._state.agents.get(agent, {"tasks": []})
            names = {
                name: task["task"] for task in record["tasks"] for name in (task["task"], *task.get("aliases", ()))
            }
            for row in self._state.of(agent):
                if row.state is State.QUARANTINED and row.reason == GUARD_AWAY:
                    row.state = State.RAW if row.example.expected_output is not None else State.UNLABELLED
                    row.reason, released = "", released + 1
                    if row.superseded_by is not None:  # its sender took it back meanwhile
                        row.state, row.reason = State.SUPERSEDED, "corrected"
                elif row.state is State.QUARANTINED and row.reason == "unknown_task" and row.task in names:
                    self._rename(row, names[row.task])
                    released += 1
        return released


def _shown(row: Row, answer: Admitted | Refused, personal: Personal) -> JSON:
    if isinstance(answer, Refused):
        return None
    if row.answer == row.example.expected_output:
        return answer.expected_output
    plain = plain_answer(row.answer)
    return None if is_personal(plain, personal) else plain


def _may_move(row: Row) -> bool:
    """Whether an admission may change the row's state, or the release of new labels."""
    if row.state is State.QUARANTINED:
        return row.reason in {GUARD_AWAY, "unknown_task", REDACTOR_CHANGED}
    if row.state in _KEPT and row.redaction is not None and row.redaction["version"] == "":
        return True
    if row.state is State.HELD:
        return row.reason == "new_label_waiting"
    return row.state is State.RAW or (row.state is State.UNLABELLED and row.admitted_at is None)
