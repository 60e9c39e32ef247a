"""Finds the trainers: every file of this folder that says ``TRAINER = Class`` is one, and nobody edits a list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from perennial.domain.model import Predictor, Trainer, Workbench
from perennial.errors import TrainingError


def catalogue(folder: Path | None = None, package: str = "perennial.trainers") -> dict[str, type[Trainer]]:
    """Trainer classes by their key, from the files of ``folder`` (this one by default) whose names do not begin with
    ``_``.

    Two files that claim one key are a TrainingError that names both: a manifest must always mean one class. Importing
    the files is cheap, since trainers import torch and the like inside their verbs.

    >>> [key for key in catalogue() if key.startswith("ewc_text")]
    ['ewc_text.v1']
    """
    found: dict[str, type[Trainer]] = {}
    for path in sorted((folder or Path(__file__).parent).glob("[!_]*.py")):
        if path == Path(__file__):
            continue
        trainer = getattr(import_module(f"{package}.{path.stem}"), "TRAINER", None)
        if trainer is None:
            continue
        key = str(trainer.key)
        if key in found:
            raise TrainingError(
                f"{path.name} and {found[key].__module__} both claim the trainer key {key!r}; give the newer one a new key"
            )
        found[key] = trainer
    return found


def trainer_for(key: str, settings: Mapping[str, Any]) -> Trainer:
    """The trainer that a manifest or an audit record names, with the settings recorded there (plain JSON).

    Unknown keys and unknown settings are a TrainingError: a record is replayed exactly or not at all.

    >>> trainer_for("ewc_text.v1", {"epochs": 2}).epochs
    2
    """
    known = catalogue()
    if key not in known:
        raise TrainingError(
            f"no trainer claims the key {key!r} (known: {', '.join(sorted(known))}); restore its file in trainers/ to load its models"
        )
    names = {item.name for item in fields(known[key])}  # type: ignore[arg-type]  # trainers are dataclasses by contract
    given = {name: value for name, value in settings.items() if name != "key"}
    if unknown := sorted(given.keys() - names):
        raise TrainingError(
            f"trainer {key!r} has no setting {', '.join(unknown)}; load the record with the release that wrote it, or correct it"
        )
    return known[key](**given)


def load_component(path: Path, bench: Workbench) -> Predictor:
    """The predictor of a component's folder, by the trainer and the settings that its own record names."""
    made_by = json.loads((path / "component.json").read_text(encoding="utf-8"))["trainer"]
    return trainer_for(made_by["key"], made_by["settings"]).load(path, bench)


def same_method(path: Path, trainer: Trainer) -> bool:
    """Whether a component was made by this trainer, in whatever revision; only then can it go on from there."""
    record = json.loads((path / "component.json").read_text(encoding="utf-8"))
    return str(record["trainer"]["key"]).partition(".v")[0] == trainer.key.partition(".v")[0]
