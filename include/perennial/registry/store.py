"""Where released bundles are kept and found again: the seam that MLflow stands behind."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from perennial.errors import RegistryError
from perennial.registry.manifest import NAME, Manifest

_PREFIX = "perennial."


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """Where a release lies.

    The URI of its files, the run that shows its metrics, and the store's own version number.
    """

    uri: str
    run_id: str
    store_version: str


class ModelStore(Protocol):
    """Keeps bundles with their signatures; trusted by nobody, since whoever serves verifies against the ledger."""

    def publish(
        self, bundle: Path, signature: Path, manifest: Manifest, *, digest: str, metrics: Mapping[str, float],
        params: Mapping[str, Any], tags: Mapping[str, str], job_id: UUID | str,
    ) -> Published:  # fmt: skip
        """Store the bundle and its signature as a version of the agent's model, with lineage as tags.

        A repeat with the same digest finishes what a killed call left and makes nothing twice. Raises VersionExists
        when the version's name is taken by other bytes, RegistryError when the store is away or the manifest is not
        the bundle's own.
        """
        ...

    def record_refused(
        self, agent: str, *, job_id: UUID | str, summary: str, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> str:
        """Keep the numbers of a candidate that was not released, once per job; returns the run's id. It has no files here.

        Raises RegistryError when the store is away.
        """
        ...

    def withdraw(self, agent: str, version: str, digest: str) -> None:
        """Take back a publication that the ledger refused. The caller makes sure that it was never recorded."""
        ...

    def exists(self, agent: str, version: str) -> bool:
        """Whether the version can be fetched."""
        ...

    def fetch(self, agent: str, version: str, into: Path, *, digest: str | None = None) -> tuple[Path, Path]:
        """Copy a bundle and its signature into a folder, unverified; returns both paths. RegistryError when there is none.

        ``digest`` chooses among publications of one name, of which only one can be in the ledger.
        """
        ...

    def set_alias(self, agent: str, alias: str, version: str) -> None:
        """Point the store's own alias at a version, for people who look there; what serves is the ledger's to say."""
        ...

    def clear_alias(self, agent: str, alias: str) -> None:
        """Take the alias away, if it is there."""
        ...

    def aliases(self, agent: str) -> dict[str, str]:
        """Version by alias."""
        ...

    def align_aliases(self, agent: str, *, champion: str | None, candidate: str | None) -> bool:
        """Make both aliases agree with the ledger. False, and a warning, when the store is away: it can be repeated."""
        ...

    def remove(self, agent: str, version: str, digest: str) -> None:
        """Take a release's files, version and run away for good; what is gone already is no error.

        Runs in the task of the DAG ``retention``, after the ledger's side marked the release as removed. RegistryError when the
        store is away or forbids it.
        """
        ...

    def old_runs(self, agent: str, before: datetime) -> tuple[str, ...]:
        """Ids of the runs of candidates that were not released, or were withdrawn, from before that moment."""
        ...

    def forget_run(self, agent: str, run_id: str) -> None:
        """Take such a run away with its files."""
        ...

    def erase(self, agents: Sequence[str]) -> str:
        """Let the store's own memory of what was removed go; what it cannot do, in one sentence, empty when nothing is left."""
        ...

    def links(self, agent: str, version: str) -> dict[str, str]:
        """Addresses for people: ``run_url`` and ``version_url``; empty when the version is not there."""
        ...


def check_manifest(bundle: Path, manifest: Manifest) -> None:
    """Raise RegistryError unless the manifest handed over is the one inside the bundle (agent, version, order, job)."""
    inside = json.loads((bundle / NAME).read_text(encoding="utf-8"))
    names = ("agent", "version", "order", "job_id")
    if [inside.get(name) for name in names] != [getattr(manifest, name) for name in names]:
        raise RegistryError(
            "the manifest is not the bundle's own (an earlier try assembled it); go on with Manifest.read(bundle)"
        )


def release_tags(
    manifest: Manifest, *, digest: str, signature: Path, job_id: UUID | str, more: Mapping[str, str]
) -> dict[str, str]:
    """Name, lineage and proofs of a release as flat text, with the prefix ``perennial.``; the caller's own tags too."""
    tags = {
        "agent": manifest.agent, "version": manifest.version, "base_version": manifest.base_version or "none",
        "order": str(manifest.order), "digest": digest, "content_digest": manifest.content_digest,
        "signature": hashlib.sha256(signature.read_bytes()).hexdigest(), "job_id": str(job_id),
        "trigger": manifest.reason, "mode": manifest.mode, "training_seed": str(manifest.seed),
        "config": _short(manifest.settings), "metrics": _short(manifest.metrics),
        "examples": str(manifest.examples.count), "examples_digest": manifest.examples.digest,
        "replay_digest": manifest.replayed.digest, "holdout": str(manifest.holdout.count),
        "holdout_digest": manifest.holdout.digest, "encoders": _short(manifest.encoders),
        "code_digest": manifest.code_digest, "fleet_file_digest": manifest.fleet_file_digest,
        "image": manifest.environment.get("image") or "none",
        "dag_bundle_version": manifest.environment.get("dag_bundle_version") or "none",
        "gate_action": manifest.gate_action, "gate_report_digest": manifest.gate_report_digest,
    }  # fmt: skip
    return {**prefixed(more), **prefixed(tags)}


def prefixed(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags under the prefix ``perennial.``, where they have none of their own; empty values as ``none``.

    >>> prefixed({"run_id": "r1", "mlflow.note.content": "held", "reason": ""})
    {'perennial.run_id': 'r1', 'mlflow.note.content': 'held', 'perennial.reason': 'none'}
    """
    return {key if "." in key else _PREFIX + key: str(value) or "none" for key, value in tags.items()}


def _short(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, default=str)[:4900]  # MLflow takes 5000 characters


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers.

    >>> finite({"a": 0.5, "b": float("nan")})
    {'a': 0.5}
    """
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
