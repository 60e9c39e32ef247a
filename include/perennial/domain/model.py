"""Models: versions, references, predictions and what a trainer hands over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from perennial.domain.example import TrainingRow
from perennial.domain.words import JSON, Mode, TaskKind

_SEMVER = re.compile(r"^(\d+)\.(\d+)\.(\d+)$")


@dataclass(frozen=True, order=True, slots=True)
class SemanticVersion:
    """``major.minor.patch``: patch for an online update, minor for a batch, major for new labels or a new base.

    >>> str(SemanticVersion.parse("1.4.2").bump("minor"))
    '1.5.0'
    """

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> SemanticVersion:
        """Read ``1.2.3``; anything else is a ValueError."""
        found = _SEMVER.match(text)
        if not found:
            raise ValueError(f"{text!r} is not a version like 1.2.3")
        return cls(*(int(part) for part in found.groups()))

    def bump(self, part: str) -> SemanticVersion:
        """The next version after a change of the given part (major, minor or patch)."""
        if part == "major":
            return SemanticVersion(self.major + 1, 0, 0)
        if part == "minor":
            return SemanticVersion(self.major, self.minor + 1, 0)
        if part == "patch":
            return SemanticVersion(self.major, self.minor, self.patch + 1)
        raise ValueError(f"{part!r} is not one of major, minor, patch")

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """One released version of one agent: the name, and the digest that pins its bytes (sha256 hex)."""

    agent: str
    version: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One answer. ``confidence`` lies in [0, 1]; ``scores`` holds each label's probability."""

    output: JSON
    confidence: float
    scores: Mapping[str, float] = field(default_factory=dict)


class Predictor(Protocol):
    """A loaded model of one task."""

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer each text, in order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskBatch:
    """What one trainer sees of one task: new rows, a replay of old ones, and how deep to go.

    ``labels`` are the champion's labels in its order, with the permitted new ones behind; empty for score tasks.
    """

    agent: str
    task: str
    kind: TaskKind
    labels: tuple[str, ...]
    new: tuple[TrainingRow, ...]
    replay: tuple[TrainingRow, ...]
    mode: Mode


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """What ``fit`` made: a folder of files that run no code, and what happened meanwhile."""

    path: Path
    task: str
    labels: tuple[str, ...]
    metrics: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)


class BaseStore(Protocol):
    """Keeps encoders once, by the digest of their files."""

    def put(self, folder: Path) -> str:
        """Store a folder (idempotent) and return its digest."""
        ...

    def path(self, digest: str) -> Path:
        """Local, checked folder of a digest; UntrustedBundle when its bytes do not match."""
        ...


class EmbeddingCache(Protocol):
    """Remembers embeddings by encoder digest and text digest (sha256 hex); values are float32 bytes."""

    def get(self, encoder: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of ``keys`` that are known."""
        ...

    def put(self, encoder: str, values: Mapping[str, bytes]) -> None:
        """Remember; never fails the caller's work when it cannot."""
        ...


class TextEncoder(Protocol):
    """Makes vectors of texts; ``digest`` names the encoder's files, ``dimension`` is the length of a vector."""

    digest: str

    @property
    def dimension(self) -> int:
        """Length of one vector."""
        ...

    def vectors(self, texts: Sequence[str], max_tokens: int) -> Any:
        """float32 [texts, dimension], in order, each of length 1; texts are cut after ``max_tokens``."""
        ...


class EncoderSource(Protocol):
    """Gives a loaded encoder by its digest, for one agent."""

    def __call__(self, agent: str, digest: str, bench: Workbench) -> TextEncoder:
        """UntrustedBundle when its files do not agree with the digest."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Workbench:
    """What a trainer may use beside its batch. No network unless ``allow_hub``, no program of the user's unless ``run_scripts``.

    ``encoders`` is how a gateway reads texts, with vectors equal to torch's up to rounding; None, as in every task, means torch itself.
    """

    bases: BaseStore
    embeddings: EmbeddingCache | None = None
    allow_hub: bool = False
    run_scripts: bool = False
    encoders: EncoderSource | None = None


class Trainer(Protocol):
    """A way to learn. Settings are the fields of a frozen dataclass; ``key`` names meaning and revision."""

    @property
    def key(self) -> str:
        """Such as ``ewc_text.v1``; a change of meaning takes a new key."""
        ...

    def fit(self, batch: TaskBatch, start: Path | None, out: Path, *, seed: int, bench: Workbench) -> Artefact:
        """Train from ``start`` (the champion's folder of this task, or None) into the empty folder ``out``."""
        ...

    def load(self, path: Path, bench: Workbench) -> Predictor:
        """Load what ``fit`` wrote; runs no code from the folder, unless the bench allows scripts and the trainer is one."""
        ...
