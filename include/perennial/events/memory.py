"""An event source in memory, for tests and for trying a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perennial.events.source import Batch, PositionOf, RawRecord


class MemorySource:
    """Parts are lists of records; a record that is a string stands for a broken one and says what is wrong."""

    name = "memory"

    def __init__(self, parts: Mapping[str, Sequence[Mapping[str, Any] | str]], *, finite: bool = True) -> None:
        self.parts = {part: list(records) for part, records in parts.items()}
        self.settled: list[str] = []
        self._finite = finite

    def waiting(self) -> list[str]:
        """Parts that were not read to their end."""
        return [part for part in self.parts if part not in self.settled]

    def poll(self, position_of: PositionOf, *, size: int = 1000) -> Iterator[Batch]:
        """Batches of every part."""
        for part, records in self.parts.items():
            known = position_of(part)
            position = known.position if known else 0
            if not (known and known.finished):
                while position < len(records):
                    taken = records[position : position + size]
                    raw = tuple(_raw(position + number, record) for number, record in enumerate(taken, 1))
                    position += len(taken)
                    yield Batch(source=self.name, part=part, name=part, records=raw, position=position)
                if not self._finite:
                    continue
            yield Batch(source=self.name, part=part, name=part, records=(), position=position, finished=True)

    def settle(self, batch: Batch) -> None:
        """Remember which parts were read to their end."""
        if batch.finished and batch.part not in self.settled:
            self.settled.append(batch.part)


def _raw(position: int, record: Mapping[str, Any] | str) -> RawRecord:
    if isinstance(record, str):
        return RawRecord(position=position, data=None, raw=b"", problem=record)
    return RawRecord(position=position, data=record, raw=repr(record).encode())
