"""What a trainer leaves in a component's folder: component.json, head.safetensors, fisher.safetensors; and how it is
read back.

No times and no paths go into these files, so equal training gives equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from perennial.domain.words import TaskKind
from perennial.errors import UntrustedBundle
from perennial.trainers._head import Floats
from perennial.trainers._neighbourhood import Neighbourhood

FORMAT = 2  # 2: corrections may have values of their own; 1 is read too


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """The record of one trained task. ``seen`` counts all rows that it ever learned from; ``spread`` belongs to score
    tasks.
    """

    trainer: Mapping[str, Any]  # {"key": ..., "settings": {...}}
    agent: str
    task: str
    kind: TaskKind
    labels: tuple[str, ...]
    encoder: Mapping[str, Any]  # {"name": ..., "digest": ..., "tuned": bool, "dimension": int}
    mode: str
    seed: int
    seen: int
    rows: Mapping[str, int]
    label_rows: tuple[int, ...]  # rows ever seen by label
    temperature: float = 1.0
    spread: tuple[tuple[float, float], ...] = ()  # (mean squared residual, rows behind it) at each knot
    started_from: str = ""  # digest of the champion's head file; empty for a first training
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """A component as read: its record, ``theta`` and diagonal Fisher (both [dimension + 1, outputs]), what its
    corrections add, and the head file's digest.
    """

    record: Component
    theta: Floats
    fisher: Floats
    local: Neighbourhood
    digest: str


def write(folder: Path, record: Component, theta: Floats, fisher: Floats, local: Neighbourhood) -> None:
    """Write the three files into an empty folder."""
    (folder / "component.json").write_text(
        json.dumps(asdict(record), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    save_file({**_tensors(theta), **_local_tensors(local)}, folder / "head.safetensors")
    save_file(_tensors(fisher), folder / "fisher.safetensors")


def read(folder: Path) -> Saved:
    """Read and check what ``write`` wrote; UntrustedBundle when the files do not hold together."""
    try:
        raw = json.loads((folder / "component.json").read_text(encoding="utf-8"))
        record = _record(raw)
        theta, fisher = _matrix(folder / "head.safetensors"), _matrix(folder / "fisher.safetensors")
        digest = _digest(folder / "head.safetensors")
        local = _local(folder / "head.safetensors", theta)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UntrustedBundle(
            f"the component in {folder.name[:64]!r} is not readable ({type(error).__name__}); fetch the version again or roll back"
        ) from error
    outputs = len(record.labels) if record.kind is TaskKind.CLASSIFICATION else 1
    shape = (int(record.encoder["dimension"]) + 1, outputs)
    if (
        len(record.label_rows) != outputs
        or theta.shape != shape
        or fisher.shape != shape
        or local.keys.shape != (len(local.values), shape[0] - 1)
        or local.values.shape[1] != outputs
        or not local.far < local.near
        or not all(np.isfinite(part).all() for part in (theta, fisher, local.keys, local.values))
    ):
        raise UntrustedBundle(
            f"the head in {folder.name[:64]!r} does not fit its own record; fetch the version again or roll back"
        )
    return Saved(record=record, theta=theta, fisher=fisher, local=local, digest=digest)


def _record(raw: dict[str, Any]) -> Component:
    if raw.get("format") not in (1, FORMAT):
        raise ValueError(f"format {raw.get('format')!r}")
    raw = {**raw, "kind": TaskKind(raw["kind"]), "labels": tuple(raw["labels"])}
    raw["label_rows"] = tuple(int(count) for count in raw["label_rows"])
    raw["spread"] = tuple((float(square), float(rows)) for square, rows in raw["spread"])
    return Component(**raw)


def _tensors(matrix: Floats) -> dict[str, Any]:
    return {
        "weight": np.ascontiguousarray(matrix[:-1], dtype=np.float32),  # [dimension, outputs]
        "bias": np.ascontiguousarray(matrix[-1], dtype=np.float32),  # [outputs]
    }


def _local_tensors(local: Neighbourhood) -> dict[str, Any]:
    if not len(local.keys):
        return {}
    return {
        "correction_keys": np.ascontiguousarray(local.keys, dtype=np.float32),  # [corrections, dimension]
        "correction_values": np.ascontiguousarray(local.values, dtype=np.float32),  # [corrections, outputs]
        "correction_reach": np.array([local.far, local.near], dtype=np.float32),
    }


def _local(path: Path, theta: Floats) -> Neighbourhood:
    tensors = load_file(path)
    if "correction_keys" not in tensors:
        return Neighbourhood.empty(theta.shape[0] - 1, theta.shape[1])
    far, near = (float(end) for end in tensors["correction_reach"])
    return Neighbourhood(
        keys=tensors["correction_keys"].astype(np.float64), values=tensors["correction_values"].astype(np.float64),
        far=far, near=near,
    )  # fmt: skip


def _matrix(path: Path) -> Floats:
    tensors = load_file(path)
    return np.vstack([tensors["weight"], tensors["bias"][None]]).astype(np.float64)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
