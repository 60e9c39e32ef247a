"""Small real releases: components as trainers write them, a manifest, a gate report and a pair of keys."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from perennial.registry.bundle import assemble, bundle_digest, content_digest
from perennial.registry.files import copy_file
from perennial.registry.keys import make_key_pair
from perennial.registry.manifest import Manifest
from perennial.registry.recipe import Recipe, Rows, TaskRecipe, rows_digest
from perennial.registry.rows import Release
from perennial.registry.signing import sign

PASSWORD = "correct horse"
REPORT = {"action": "pass", "summary": "passes every gate", "verdicts": []}


@dataclass(frozen=True)
class Keys:
    """One signer."""

    private: Path
    public: Path

    @classmethod
    def make(cls, folder: Path) -> Keys:
        keys = cls(folder / "key.pem", folder / "key.pub")
        assert make_key_pair(keys.private, keys.public, PASSWORD)
        return keys


def components(folder: Path, tasks: tuple[str, ...] = ("news", "quality"), *, size: int = 2000) -> Path:
    """A ``candidate`` folder with one component per task; random weights, so every call makes other bytes."""
    for task in tasks:
        place = folder / "tasks" / task
        place.mkdir(parents=True)
        record = {
            "labels": [] if task == "quality" else ["sports", "world"],
            "trainer": {"key": "ewc_text.v1", "settings": {"epochs": 1}}, "encoder": {"name": "mini", "digest": "e" * 64},
        }  # fmt: skip
        (place / "component.json").write_text(json.dumps(record))
        (place / "head.safetensors").write_bytes(os.urandom(size))
        (place / "fisher.safetensors").write_bytes(os.urandom(size))
    return folder


def recipe(rows: Rows) -> dict[str, Any]:
    """How to make a release of these rows again; tasks without rows were carried."""
    trained = {
        task: TaskRecipe(kind="classification", labels=("sports", "world"), base=None, seed=7, threads=2, device="cpu")
        for task in rows
    }
    carried = {task: "1.0.0" for task in ("news", "quality") if task not in rows}
    return Recipe(rows_digest=rows_digest(rows), tasks=trained, carried=carried).as_dict()


def manifest(candidate: Path, **changes: Any) -> Manifest:
    """A complete manifest of these components."""
    known: dict[str, Any] = {
        "agent": "scout", "version": "1.0.0", "base_version": None, "order": 1, "job_id": str(uuid4()),
        "reason": "threshold", "mode": "batch", "seed": 7, "settings": {"trainer": "ewc_text.v1", "epochs": 1},
        "fleet_file_digest": "f" * 64, "code_digest": "c" * 64, "metrics": {"news.candidate": 0.9},
        "environment": {"torch": "2.13.0", "image": "", "dag_bundle_version": ""}, "gate_action": "pass",
        "content_digest": content_digest(candidate), "components": candidate / "tasks",
        "examples": ["b", "a", "c"], "replayed": ["d"], "holdout": ["x", "y"], "recipe": recipe({}),
    }  # fmt: skip
    return Manifest.build(**{**known, **changes})


@dataclass(frozen=True)
class Made:
    """An assembled, signed release and the ledger row that it should have."""

    folder: Path
    signature: Path
    manifest: Manifest
    row: Release

    @property
    def digest(self) -> str:
        return self.row.digest


def release(room: Path, keys: Keys, **changes: Any) -> Made:
    """Assemble and sign one release in a folder of its own."""
    place = room / uuid4().hex
    candidate = components(place / "candidate")
    folder = assemble(candidate / "tasks", manifest(candidate, **changes), REPORT, place / "release")
    made = Manifest.read(folder)
    return Made(folder, sign(folder, keys.private, PASSWORD), made, row_of(made, bundle_digest(folder)))


def row_of(made: Manifest, digest: str) -> Release:
    """The ledger row of a manifest, without a ledger."""
    from datetime import UTC, datetime
    from uuid import UUID

    return Release(
        agent=made.agent, version=made.version, digest=digest, order=made.order, base_version=made.base_version,
        job_id=UUID(made.job_id), uri="", mlflow_run_id=None, manifest=made.as_dict(), created_at=datetime.now(UTC),
    )  # fmt: skip


class OneRow:
    """A ledger that knows some rows, for whoever only asks for one release."""

    def __init__(self, *rows: Release) -> None:
        self.rows: Mapping[tuple[str, str], Release] = {(row.agent, row.version): row for row in rows}

    def version(self, agent: str, version: str) -> Release | None:
        return self.rows.get((agent, version))


class Shelf:
    """A store that hands out one folder and counts how often it was asked; nothing is checked there."""

    def __init__(self, made: Made) -> None:
        self.folder, self.signature, self.asked = made.folder, made.signature, 0

    def fetch(self, agent: str, version: str, into: Path, *, digest: str | None = None) -> tuple[Path, Path]:
        self.asked += 1
        target = into / "bundle"
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                copy_file(path, target / path.relative_to(self.folder))
        copy_file(self.signature, into / "bundle.sig")
        return target, into / "bundle.sig"
