"""How a release can be made again: its rows in training order with their digests, and what else its weights depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from perennial.domain.example import TrainingRow

ROWS = "rows.json"
Rows = Mapping[str, Mapping["Role", Sequence["RowMark"]]]  # task -> role -> rows in training order


class Role(StrEnum):
    """What a version used an example for."""

    NEW = "new"
    REPLAY = "replay"
    HOLDOUT = "holdout"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowMark:
    """One row as a training saw it: its id, a digest of text and label, and the flags that gave it its weight."""

    example_id: str
    digest: str
    priority: int = 0
    correction: bool = False

    @classmethod
    def of(cls, row: TrainingRow) -> RowMark:
        """The mark of a row."""
        return cls(
            example_id=str(row.example_id), digest=row_digest(row), priority=row.priority, correction=row.correction
        )


def row_digest(row: TrainingRow) -> str:
    """The first 128 bits (hex) of sha256 over id, text and label. The id is in it, so equal texts look unlike each other.

    >>> from uuid import UUID
    >>> row = TrainingRow(example_id=UUID(int=1), task="news", text="Rain.", label="weather")
    >>> row_digest(row)
    'fdb4d6512cb5e6023fc53c99461e9250'
    """
    value = json.dumps([str(row.example_id), row.text, row.label], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(value.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecipe:
    """What one trained task depends on beside its rows, the trainer's settings and the mode.

    ``base`` is the version whose component the training began from, None for a first one. ``threads`` and ``device`` are
    the trainer's, ``machine`` names processor and interpreter: sums of floating point numbers differ between them.
    """

    kind: str
    labels: tuple[str, ...]
    base: str | None
    seed: int
    threads: int | None = None
    device: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The field ``recipe`` of a manifest; ``rows_digest`` is the sha256 (hex) of the bundle's ``rows.json``.

    ``carried`` maps a task that was not trained to the version whose files it keeps.
    """

    rows_digest: str
    tasks: Mapping[str, TaskRecipe]
    carried: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "rows_digest": self.rows_digest, "carried": dict(self.carried),
            "tasks": {
                name: {**asdict(task), "labels": list(task.labels), "machine": dict(task.machine)}
                for name, task in self.tasks.items()
            },
        }  # fmt: skip

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Recipe:
        """Inverse of ``as_dict``; KeyError or TypeError when it is no such record."""
        tasks = {name: TaskRecipe(**{**task, "labels": tuple(task["labels"])}) for name, task in value["tasks"].items()}
        return cls(rows_digest=value["rows_digest"], tasks=tasks, carried=dict(value["carried"]))


def rows_as_bytes(rows: Rows) -> bytes:
    """The content of ``rows.json``: tasks and roles by name, rows in training order, equal rows as equal bytes."""
    plain = {
        task: {
            str(role): [[mark.example_id, mark.digest, mark.priority, mark.correction] for mark in marks]
            for role, marks in roles.items()
        }
        for task, roles in rows.items()
    }
    return (json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n").encode()


def rows_from_bytes(content: bytes) -> Rows:
    """Inverse of ``rows_as_bytes``; ValueError when it is no such file."""
    plain = json.loads(content)
    return {
        task: {
            Role(role): tuple(
                RowMark(example_id=identity, digest=digest, priority=int(priority), correction=bool(correction))
                for identity, digest, priority, correction in marks
            )
            for role, marks in roles.items()
        }
        for task, roles in plain.items()
    }


def rows_digest(rows: Rows) -> str:
    """sha256 (hex) of ``rows.json``."""
    return hashlib.sha256(rows_as_bytes(rows)).hexdigest()
