"""The files of one attempt of one job: redacted rows, components and reports, passed between its tasks.

A folder per attempt, so that a revived older attempt cannot touch a newer one's files. Every file appears whole (written
aside and renamed), so a task that is killed and run again finds either all of it or nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from perennial.domain.example import TrainingRow
from perennial.domain.job import BatchRef


def row_as_dict(row: TrainingRow) -> dict[str, Any]:
    """Plain JSON of one row."""
    return {
        "example_id": str(row.example_id), "task": row.task, "text": row.text, "label": row.label,
        "priority": row.priority, "correction": row.correction, "source_id": row.source_id,
        "created_at": row.created_at.isoformat() if row.created_at else None,
        "job_id": str(row.job_id) if row.job_id else None,
    }  # fmt: skip


def row_from_dict(value: dict[str, Any]) -> TrainingRow:
    """Inverse of ``row_as_dict``."""
    created = value["created_at"]
    return TrainingRow(
        example_id=UUID(value["example_id"]), task=value["task"], text=value["text"], label=value["label"],
        priority=value["priority"], correction=value["correction"], source_id=value["source_id"],
        created_at=datetime.fromisoformat(created) if created else None,
        job_id=UUID(value["job_id"]) if value.get("job_id") else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Workspace:
    """The folder of one attempt."""

    root: Path

    @classmethod
    def of(cls, work: Path, ref: BatchRef) -> Workspace:
        """The workspace of a claim, made when it is not there; readable by its owner alone."""
        root = work / str(ref.job_id) / str(ref.attempt)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(root)

    def write_json(self, name: str, value: Any) -> Path:
        """Write ``name`` whole."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid4().hex}")
        aside.write_text(json.dumps(value, ensure_ascii=False, sort_keys=True), encoding="utf-8")
        os.replace(aside, target)
        return target

    def read_json(self, name: str) -> Any:
        """Read what ``write_json`` wrote."""
        return json.loads((self.root / name).read_text(encoding="utf-8"))

    def has(self, name: str) -> bool:
        """Whether an earlier run of a task already left this."""
        return (self.root / name).exists()

    def write_rows(self, name: str, rows: Sequence[TrainingRow]) -> None:
        """Keep rows for the next task."""
        self.write_json(name, [row_as_dict(row) for row in rows])

    def read_rows(self, name: str) -> tuple[TrainingRow, ...]:
        """Rows that an earlier task kept."""
        return tuple(row_from_dict(value) for value in self.read_json(name))

    def aside(self, name: str) -> Path:
        """An empty folder to fill and then ``keep`` under ``name``."""
        folder = self.root / f".{Path(name).name}.{uuid4().hex}"
        folder.mkdir(parents=True)
        return folder

    def keep(self, folder: Path, name: str) -> Path:
        """Let a filled folder appear under its name; what a killed earlier run left there goes first."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.replace(folder, target)
        return target

    def remove(self) -> None:
        """Forget the texts of this job, all attempts."""
        shutil.rmtree(self.root.parent, ignore_errors=True)
