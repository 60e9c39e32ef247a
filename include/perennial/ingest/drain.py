"""Joins an event source to the buffer: each record once, its position in the transaction of its row."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from perennial.domain.example import Example
from perennial.domain.words import Source
from perennial.errors import InvalidExample
from perennial.events.source import Batch, EventSource, Position, RawRecord
from perennial.ingest.buffer import BufferStore
from perennial.ingest.door import Door
from perennial.ingest.plain_words import is_plain
from perennial.ingest.results import Offset, Rejection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrainResult:
    """What one drain brought in, as counts; ``parts`` counts files or partitions read to their end."""

    added: int = 0
    duplicates: int = 0
    quarantined: int = 0
    evicted: int = 0
    rejected: int = 0
    parts: int = 0

    def as_dict(self) -> dict[str, int]:
        """Plain JSON."""
        return asdict(self)


def record_id(source: str, part: str, position: int) -> UUID:
    """The id of a record that has none of its own: the same whenever it is read."""
    return uuid5(NAMESPACE_OID, f"{source}\x1f{part}\x1f{position}")


def drain(source: EventSource, buffer: BufferStore, *, door: Door | None = None, size: int = 1000) -> DrainResult:
    """Read everything that waits in a source into the buffer; safe to kill and to run twice at once.

    Records that cannot become examples are kept as rejections with their position and reason. Raises SourceError when a part
    was unreadable (after the others were read) and StoreUnavailable when the store went away: run it again.
    """
    door = door or Door(buffer)
    totals = {"added": 0, "duplicates": 0, "quarantined": 0, "evicted": 0, "rejected": 0, "parts": 0}

    def position_of(part: str) -> Position | None:
        known = buffer.offset(source.name, part)
        return Position(position=known.position, finished=known.finished) if known else None

    for batch in source.poll(position_of, size=size):
        examples, rejected = _sort(batch, door)
        offset = Offset(
            source=batch.source,
            part=batch.part,
            position=batch.position,
            digest=_shown(batch.name),
            finished=batch.finished,
        )
        result = buffer.add_many(examples, offsets=offset, rejected=rejected)
        source.settle(batch)
        if result.skipped:
            continue  # another reader stored this batch first
        for name in ("added", "duplicates", "quarantined", "evicted"):
            totals[name] += getattr(result, name)
        totals["rejected"] += len(rejected)
        totals["parts"] += batch.finished
        if rejected:
            first = rejected[0]
            logger.warning(
                "%s: %s of %s records rejected, the first at %s: %s %s",
                _shown(batch.name), len(rejected), len(batch.records), first.position, first.field, first.reason,
            )  # fmt: skip
    return DrainResult(**totals)


def _shown(name: str) -> str:
    """The name of a part, unless it may hold personal data: the part's digest stands beside it."""
    return name if is_plain(name) else "a part with a number or an address in its name"


def _sort(batch: Batch, door: Door) -> tuple[list[Example], list[Rejection]]:
    examples: list[Example] = []
    rejected: list[Rejection] = []
    for record in batch.records:
        try:
            examples.append(_example(batch, record, door))
        except InvalidExample as error:
            rejected.append(
                Rejection(
                    source=batch.source,
                    part=batch.part,
                    position=record.position,
                    field=error.field,
                    reason=f"{error.problem}; {error.remedy}",
                    raw=record.raw,
                )
            )
    return examples, rejected


def _example(batch: Batch, record: RawRecord, door: Door) -> Example:
    if record.data is None:
        problem, _, remedy = (record.problem or "is unreadable; send it again").partition("; ")
        raise InvalidExample("record", problem, remedy)
    given: Mapping[str, Any] = {
        "example_id": record_id(batch.source, batch.part, record.position), "source_id": f"{batch.source}:{batch.part[:12]}"
    }  # fmt: skip
    return door.check_record(record.data, source=Source.INBOX, defaults=given)
