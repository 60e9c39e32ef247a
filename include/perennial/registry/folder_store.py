"""Released bundles in a plain folder: the twin of MLflow in tests, and enough for a deployment that wants no MLflow."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from perennial.errors import RegistryError, VersionExists
from perennial.registry.bundle import signature_path
from perennial.registry.files import copy_file, listing, sync
from perennial.registry.manifest import Manifest
from perennial.registry.store import Published, check_manifest, finite, prefixed, release_tags

_FOLDER = "bundle"


class FolderStore:
    """A ``ModelStore`` as ``<root>/<agent>/<version>/`` with ``bundle/``, ``bundle.sig`` and ``published.json``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(
        self, bundle: Path, signature: Path, manifest: Manifest, *, digest: str, metrics: Mapping[str, float],
        params: Mapping[str, Any], tags: Mapping[str, str], job_id: UUID | str,
    ) -> Published:  # fmt: skip
        """See ``ModelStore``. The version appears in one rename."""
        check_manifest(bundle, manifest)
        place = self._place(manifest.agent, manifest.version)
        if not place.exists():
            aside = place.with_name(f".{place.name}.{uuid4().hex}")
            for path in listing(bundle):
                copy_file(bundle / path, aside / _FOLDER / path)
            copy_file(signature, signature_path(aside / _FOLDER))
            record: dict[str, Any] = {
                "digest": digest, "run_id": uuid4().hex, "metrics": finite(metrics),
                "params": {name: str(value) for name, value in params.items()},
                "tags": release_tags(manifest, digest=digest, signature=signature, job_id=job_id, more=tags),
            }  # fmt: skip
            (aside / "published.json").write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
            sync(aside)
            try:
                os.rename(aside, place)
            except OSError:  # another publisher was first; what it left is judged below
                shutil.rmtree(aside, ignore_errors=True)
        record = self._record(manifest.agent, manifest.version)
        if record["digest"] != digest:
            raise VersionExists(
                f"{manifest.agent} {manifest.version} is published with other bytes; take the next version"
            )
        return Published(uri=(place / _FOLDER).as_uri(), run_id=record["run_id"], store_version=manifest.version)

    def record_refused(
        self, agent: str, *, job_id: UUID | str, summary: str, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> str:
        """See ``ModelStore``: ``<root>/<agent>/refused/<job>.json``."""
        file = self._root / agent / "refused" / f"{job_id}.json"
        if not file.exists():
            _write_json(
                file,
                {"run_id": uuid4().hex, "summary": summary, "metrics": finite(metrics), "tags": prefixed(tags)},
            )
        return str(json.loads(file.read_text(encoding="utf-8"))["run_id"])

    def withdraw(self, agent: str, version: str, digest: str) -> None:
        """See ``ModelStore``."""
        if self.exists(agent, version) and self._record(agent, version)["digest"] == digest:
            shutil.rmtree(self._place(agent, version))

    def exists(self, agent: str, version: str) -> bool:
        """See ``ModelStore``."""
        return self._place(agent, version).is_dir()

    def fetch(self, agent: str, version: str, into: Path, *, digest: str | None = None) -> tuple[Path, Path]:
        """See ``ModelStore``."""
        place = self._place(agent, version)
        if not place.is_dir() or digest not in (None, self._record(agent, version)["digest"]):
            raise RegistryError(f"{self._root.name} has no {agent} {version} of these bytes; publish it again")
        folder = into / _FOLDER
        for path in listing(place / _FOLDER):
            copy_file(place / _FOLDER / path, folder / path)
        copy_file(signature_path(place / _FOLDER), signature_path(folder))
        return folder, signature_path(folder)

    def set_alias(self, agent: str, alias: str, version: str) -> None:
        """See ``ModelStore``."""
        if not self.exists(agent, version):
            raise RegistryError(f"{self._root.name} has no {agent} {version}")
        self._write_aliases(agent, {**self.aliases(agent), alias: version})

    def clear_alias(self, agent: str, alias: str) -> None:
        """See ``ModelStore``."""
        self._write_aliases(agent, {name: version for name, version in self.aliases(agent).items() if name != alias})

    def aliases(self, agent: str) -> dict[str, str]:
        """See ``ModelStore``."""
        file = self._root / agent / "aliases.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    def align_aliases(self, agent: str, *, champion: str | None, candidate: str | None) -> bool:
        """See ``ModelStore``."""
        wanted = {"champion": champion, "candidate": candidate}
        self._write_aliases(agent, {alias: version for alias, version in wanted.items() if version is not None})
        return True

    def remove(self, agent: str, version: str, digest: str) -> None:
        """See ``ModelStore``."""
        place = self._place(agent, version)
        aside = place.with_name(f".{place.name}.removed")
        if self.exists(agent, version) and self._record(agent, version)["digest"] == digest:
            self._write_aliases(agent, {name: named for name, named in self.aliases(agent).items() if named != version})
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(place, aside)  # nobody finds half a release
        if aside.exists():
            shutil.rmtree(aside)

    def old_runs(self, agent: str, before: datetime) -> tuple[str, ...]:
        """See ``ModelStore``."""
        files = sorted((self._root / agent / "refused").glob("*.json"))
        return tuple(
            json.loads(file.read_text(encoding="utf-8"))["run_id"]
            for file in files
            if file.stat().st_mtime < before.timestamp()
        )

    def forget_run(self, agent: str, run_id: str) -> None:
        """See ``ModelStore``."""
        for file in sorted((self._root / agent / "refused").glob("*.json")):
            if json.loads(file.read_text(encoding="utf-8"))["run_id"] == run_id:
                file.unlink()

    def erase(self, agents: Sequence[str]) -> str:
        """See ``ModelStore``; a folder remembers nothing."""
        return ""

    def links(self, agent: str, version: str) -> dict[str, str]:
        """See ``ModelStore``."""
        place = self._place(agent, version)
        return {"run_url": (place / "published.json").as_uri(), "version_url": place.as_uri()} if place.is_dir() else {}

    def _place(self, agent: str, version: str) -> Path:
        (self._root / agent).mkdir(parents=True, exist_ok=True)
        return (self._root / agent / version).absolute()

    def _record(self, agent: str, version: str) -> dict[str, Any]:
        return dict(json.loads((self._place(agent, version) / "published.json").read_text(encoding="utf-8")))

    def _write_aliases(self, agent: str, aliases: Mapping[str, str]) -> None:
        _write_json(self._root / agent / "aliases.json", aliases)


def _write_json(file: Path, record: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.stem}.{uuid4().hex}")
    aside.write_text(json.dumps(dict(record), indent=1, sort_keys=True), encoding="utf-8")
    os.replace(aside, file)
