"""Where rows came from, in memory; ``PostgresOrigins`` documents each method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from perennial.domain.origin import HELD_WORDS, REFUSED, RELEASED, SOURCE_CAP, Origin, allowance, self_labelled
from perennial.domain.words import State
from perennial.ingest.memory_jobs import MemoryJobs
from perennial.ingest.memory_rows import Row
from perennial.ingest.results import HeldRows


class MemoryOrigins(MemoryJobs):
    """What the screening of a batch asks; part of ``MemoryBuffer``."""

    def origins(self, ids: Sequence[UUID]) -> dict[UUID, Origin]:
        """The origin of each row that is there, by its id."""
        wanted = set(ids)
        with self.state.lock:
            return {
                row.example.example_id: self._origin(row) for row in self.state.rows if row.example.example_id in wanted
            }

    def _origin(self, row: Row) -> Origin:
        one = row.example
        seen = [other.added_at for other in self.state.of(one.agent) if other.example.source_id == one.source_id]
        label = one.expected_output if row.admitted_at is None else row.label
        return Origin(
            kind=one.source, source_id=one.source_id, first_seen=min(seen), released=row.reason == RELEASED,
            self_labelled=self_labelled(one.source, label, one.predicted_output),
        )  # fmt: skip

    def recall_capped(self, agent: str, job_id: UUID, attempt: int, *, share: float, most: float) -> int:
        """Let rows held as ``source_cap`` join the claim where it has room for them."""
        with self.state.lock:
            self._fence(job_id, attempt)
            claimed = self._claimed(job_id)
            sizes = Counter(row.task for row in claimed)
            places = Counter((row.task, row.example.source_id) for row in claimed)
            waiting = [row for row in self.state.of(agent) if row.state is State.HELD and row.reason == SOURCE_CAP]
            fitting: list[tuple[int, int, Row]] = []
            turns = Counter[tuple[str, str]]()
            for row in waiting:
                key = (row.task, row.example.source_id)
                turns[key] += 1
                if turns[key] + places[key] <= allowance(sizes[row.task], share):
                    fitting.append((turns[key], row.number, row))
            joined = Counter[str]()
            for _, _, row in sorted(fitting, key=lambda item: item[:2]):
                if joined[row.task] < allowance(sizes[row.task], most):
                    joined[row.task] += 1
                    row.state, row.reason, row.job_id, row.attempt = State.CLAIMED, "", job_id, attempt
            return sum(joined.values())

    def held(self, agent: str) -> list[HeldRows]:
        """What of an agent waits for a person, by task, reason and source."""
        with self.state.lock:
            found = Counter(
                (row.task, row.example.source_id, row.reason if row.reason in HELD_WORDS else REFUSED)
                for row in self.state.of(agent)
                if row.state is State.HELD
            )
        order = sorted(found.items(), key=lambda item: (item[0][0], -item[1], item[0][2], item[0][1]))
        return [HeldRows(task=task, source_id=source, reason=reason, rows=n) for (task, source, reason), n in order]
