"""The ingest API's work: records in, one result per record out, durable before it is acknowledged.

The same checks, scores and errors as the client (``perennial.client``), through the same door.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from perennial.client.feedback import correction_note, worth
from perennial.domain.example import Example
from perennial.domain.words import JSON, Source
from perennial.errors import InvalidExample, StoreError
from perennial.ingest.checks import json_of
from perennial.ingest.door import Door, uncertainty_of
from perennial.ingest.results import AddResult

logger = logging.getLogger(__name__)


class Status(StrEnum):
    """What became of one record. ``added``: stored under this id, now or by an earlier call that is repeated here."""

    ADDED = "added"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    REJECTED = "rejected"
    NOT_KEPT = "not_kept"  # feedback on an answer that was sure and right


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """The result of one record; ``example_id`` of the row that holds it, or field and reason of its refusal."""

    status: Status
    example_id: UUID | None = None
    field: str | None = None
    reason: str | None = None

    def as_dict(self, index: int) -> dict[str, Any]:
        """Plain JSON."""
        found = {"index": index, "status": self.status.value, "field": self.field, "reason": self.reason}
        if self.example_id is not None:
            found["example_id"] = str(self.example_id)
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """All results in order, with the store's own counts."""

    items: tuple[Item, ...]
    counts: Mapping[str, int]

    @property
    def status_code(self) -> int:
        """200, 207 when some records were refused, 422 when all were."""
        rejected = sum(item.status is Status.REJECTED for item in self.items)
        if not rejected:
            return 200
        return 422 if rejected == len(self.items) else 207

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self.counts, "results": [item.as_dict(index) for index, item in enumerate(self.items)]}


class Buffer(Protocol):
    """The part of the buffer that is needed here."""

    def add_many(self, examples: Sequence[Example]) -> AddResult:
        """Store durably, in one transaction; StoreUnavailable when nothing was stored."""
        ...

    def count(self, agent: str, name: str, amount: int = 1) -> None:
        """Count what is not stored."""
        ...


class Intake:
    """Checks records at the door and stores the good ones in one transaction. One per process; safe between threads.

    Raises StoreUnavailable when the store is away: then nothing was acknowledged, and the call may be repeated; records
    that carry an ``example_id`` are not stored twice.
    """

    def __init__(self, buffer: Buffer, door: Door) -> None:
        self._buffer, self._door = buffer, door

    def examples(self, given: Sequence[JSON]) -> Taken:
        """Labelled or unlabelled examples, under any of the field names that files may use."""
        return self._take(given, self._door.check_record)

    def feedback(self, given: Sequence[JSON]) -> Taken:
        """Answers with what was right (``actual_output``, null: not known); what teaches nothing is checked and not
        kept."""
        return self._take(given, self._feedback)

    def corrections(self, given: Sequence[JSON]) -> Taken:
        """Wrong answers with the right ones; priority 2 and 3 start a training within seconds."""
        return self._take(given, self._correction)

    def _take(self, given: Sequence[JSON], check: Callable[[Mapping[str, Any]], Example | None]) -> Taken:
        items: dict[int, Item] = {}
        examples: dict[int, Example] = {}
        for index, one in enumerate(given):
            try:
                if not isinstance(one, dict):
                    raise InvalidExample("record", "is not an object", "send {...}")
                example = check(one)
            except InvalidExample as error:
                items[index] = Item(status=Status.REJECTED, field=error.field, reason=str(error))
                continue
            if example is None:
                items[index] = Item(status=Status.NOT_KEPT)
            else:
                examples[index] = example
        result = self._buffer.add_many(list(examples.values())) if examples else AddResult()
        rejected = sum(item.status is Status.REJECTED for item in items.values())
        if rejected:
            self._count(rejected)
        items.update(self._results(examples, result))
        counts = {
            "added": result.added, "duplicates": result.duplicates, "quarantined": result.quarantined,
            "rejected": rejected,
        }  # fmt: skip
        return Taken(items=tuple(items[index] for index in range(len(given))), counts=counts)

    def _count(self, rejected: int) -> None:
        try:
            self._buffer.count("", "rejected", rejected)
        except StoreError as error:
            # what was stored stays acknowledged; the metric of this process has the number too
            logger.warning("%s refused records are not in the store's counter: %s", rejected, error)

    def _results(self, examples: Mapping[int, Example], result: AddResult) -> dict[int, Item]:
        seen: set[UUID] = set()
        found: dict[int, Item] = {}
        for (index, example), stored in zip(examples.items(), result.ids, strict=True):
            repeated = stored != example.example_id or example.example_id in seen or not result.added
            seen.add(example.example_id)
            if repeated:
                status = Status.DUPLICATE
            elif self._door.limits(example.agent, example.task) is None:
                status = Status.QUARANTINED
            else:
                status = Status.ADDED
            reason = "task_type is not one of the agent's; a person must look" if status is Status.QUARANTINED else None
            found[index] = Item(status=status, example_id=stored, reason=reason)
        return found

    def _feedback(self, body: Mapping[str, Any]) -> Example | None:
        agent, task = body.get("agent_name", body.get("agent")), body.get("task_type", body.get("task"))
        kind, given = self._door.outputs(agent, task, body.get("predicted_output"), body.get("actual_output"))
        predicted, actual = json_of(given[0], "predicted_output"), json_of(given[1], "actual_output")
        confidence = body.get("confidence_score", body.get("confidence"))
        if confidence is None:
            raise InvalidExample("confidence_score", "is missing", "send the model's confidence")
        value = worth(kind, predicted, actual, uncertainty_of(confidence))
        checked = self._door.check(
            agent_name=agent, task_type=task, input_text=_text_of(body), expected_output=actual,
            uncertainty_score=value.uncertainty, importance_score=value.importance, predicted_output=predicted,
            source=Source.FEEDBACK, **_more(body),
        )  # fmt: skip
        return checked if value.kept else None

    def _correction(self, body: Mapping[str, Any]) -> Example:
        wrong = json_of(body.get("incorrect_output"), "incorrect_output")
        right = json_of(body.get("correct_output"), "correct_output")
        if right is None:
            raise InvalidExample("correct_output", "is missing", "send the right answer")
        explanation = body.get("explanation") or ""
        if not isinstance(explanation, str):
            raise InvalidExample("explanation", "is not a text", "send a string")
        return self._door.check(
            agent_name=body.get("agent_name", body.get("agent")), task_type=body.get("task_type", body.get("task")),
            input_text=_text_of(body), expected_output=right, uncertainty_score=1.0, importance_score=1.0,
            correction_priority=body.get("priority", body.get("correction_priority", 2)), predicted_output=wrong,
            user_feedback=correction_note(wrong, right, explanation), tag=body.get("source_tag", "manual"),
            source=Source.CORRECTION, **_more(body),
        )  # fmt: skip


def _text_of(body: Mapping[str, Any]) -> Any:
    return body.get("input_text", body.get("text"))


def _more(body: Mapping[str, Any]) -> dict[str, Any]:
    return {field: body[field] for field in ("timestamp", "example_id", "source_id", "source_url") if field in body}
