"""Loaded versions, and how a verified bundle becomes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perennial.domain.model import Prediction, Predictor
from perennial.errors import InvalidExample, PerennialError, RegistryError, StoreError
from perennial.ingest.checks import json_of, unit_of
from perennial.serving.errors import ModelFailed, Overloaded

_PROBE = "A short text that is asked once before any caller is."


class BundleSource(Protocol):
    """Gives verified bundles."""

    def fetch(self, agent: str, version: str) -> Path:
        """A private folder whose bytes agree with signature and ledger; UntrustedBundle otherwise. Never returns
        unverified files."""
        ...


class ComponentLoader(Protocol):
    """Loads one task's component."""

    def load(self, folder: Path) -> Predictor:
        """The predictor of ``tasks/<task>`` of a bundle; runs no code from the folder."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """One version of one agent in memory: a predictor per task. Predictors are called from several threads at once."""

    agent: str
    version: str
    predictors: Mapping[str, Predictor]

    def answer(self, task: str, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text; ModelFailed when the model raises, miscounts, or answers with what is no number."""
        try:
            found = [_plain(item) for item in self.predictors[task].predict(texts)]
        except Overloaded:
            raise
        except Exception as error:
            raise ModelFailed(f"{self.agent} {self.version} failed on {task} ({type(error).__name__})") from error
        if len(found) != len(texts):
            raise ModelFailed(f"{self.agent} {self.version} gave {len(found)} answers to {len(texts)} texts")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadFailure:
    """Why a version is not loaded. ``final``: the bundle is refused, and more tries only find out whether it was
    repaired."""

    version: str
    reason: str
    final: bool


def load_model(source: BundleSource, loader: ComponentLoader, agent: str, version: str) -> LoadedModel:
    """Fetch, verify, load and ask once, in a background thread of the gateway: a model that cannot answer never meets
    a caller.

    Raises UntrustedBundle for bytes that do not agree with the ledger, ModelFailed when it cannot answer the probe.
    """
    folder = source.fetch(agent, version)
    parts = sorted(path for path in (folder / "tasks").iterdir() if path.is_dir())
    model = LoadedModel(agent=agent, version=version, predictors={path.name: loader.load(path) for path in parts})
    for task in model.predictors:
        model.answer(task, [_PROBE])
    return model


def failure_of(version: str, error: BaseException) -> LoadFailure:
    """What a failed load means: a store that is away, a full disk or a long line passes, everything else is the bundle's own
    fault, also what is no Exception, such as the panic of a library in Rust."""
    final = not isinstance(error, StoreError | RegistryError | OSError | Overloaded)
    reason = str(error) if isinstance(error, PerennialError) else type(error).__name__
    return LoadFailure(version=version, reason=" ".join(reason.split()), final=final)


def _plain(prediction: Prediction) -> Prediction:
    """The prediction with plain JSON in it; InvalidExample when it holds what is none, such as NaN."""
    output = json_of(prediction.output, "output")
    if output is None:
        raise InvalidExample("output", "is missing", "retrain: the model must answer every text")
    confidence = unit_of(prediction.confidence, "confidence", "retrain: it must lie between 0 and 1")
    return Prediction(output=output, confidence=confidence, scores=prediction.scores)
