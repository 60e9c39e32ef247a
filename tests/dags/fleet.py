"""A trainer that trains nothing, for declaring agents in tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from perennial.domain.model import Artefact, Predictor, TaskBatch, Workbench


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """Declared, never called."""

    key: ClassVar[str] = "nothing.v1"

    def fit(self, batch: TaskBatch, start: Path | None, out: Path, *, seed: int, bench: Workbench) -> Artefact:
        raise NotImplementedError

    def load(self, path: Path, bench: Workbench) -> Predictor:
        raise NotImplementedError
