"""A release as one directory: components, manifest, gate report, and an ``MLmodel`` file for people of MLflow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from perennial.errors import RegistryError, UntrustedBundle, VersionExists
from perennial.registry.files import copy_file, digest_of_tree, listing, sync
from perennial.registry.manifest import EXAMPLES, NAME, Manifest
from perennial.registry.recipe import ROWS, rows_as_bytes

GATE_REPORT = "gate_report.json"
TASKS = "tasks"


def content_digest(folder: Path) -> str:
    """sha256, hex, over the files below ``folder/tasks``: what the gates judged and approvals are bound to.

    UntrustedBundle when there is no such folder or it holds anything that a bundle may not.
    """
    if not (folder / TASKS).is_dir():
        raise UntrustedBundle(f"{folder.name!r} has no {TASKS} folder, so there is nothing to release")
    return digest_of_tree(folder, [f"{TASKS}/{path}" for path in listing(folder / TASKS)])


def bundle_digest(folder: Path) -> str:
    """sha256, hex, over every file of an assembled bundle; the signature lies beside it and is not part of it."""
    return digest_of_tree(folder)


def signature_path(folder: Path) -> Path:
    """Where the signature of a bundle lies: beside it, since one inside would sign itself."""
    return folder.with_name(f"{folder.name}.sig")


def assemble(
    components: Path | Mapping[str, Path], manifest: Manifest, gate_report: Mapping[str, Any], out: Path
) -> Path:
    """Make the bundle at ``out``: all of it appears in one rename, or nothing does. Returns ``out``.

    ``components`` is the folder of task folders, or one folder per task. Raises IncompleteManifest when a field is
    missing, RegistryError when the components are not the bytes that the manifest names, VersionExists when ``out``
    holds another release. Repeated after a kill it returns the bundle that is there, whose own manifest
    (``Manifest.read``) counts then: order and time of the first try stay.
    """
    report = _json(gate_report)
    complete = replace(manifest, gate_report_digest=hashlib.sha256(report).hexdigest())
    complete.check_complete()
    if out.exists():
        return _same_release(out, complete)
    aside = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        for task, folder in _folders(components).items():
            for path in listing(folder):
                copy_file(folder / path, aside / TASKS / task / path)
        if content_digest(aside) != complete.content_digest:
            raise RegistryError("the components changed after they were judged; run evaluate and gate again")
        (aside / GATE_REPORT).write_bytes(report)
        (aside / EXAMPLES).write_bytes(_json(complete.ids))
        if complete.recipe:
            (aside / ROWS).write_bytes(rows_as_bytes(complete.rows))
        (aside / NAME).write_bytes(_json(complete.as_dict()))
        (aside / "MLmodel").write_text(_mlmodel(complete), encoding="utf-8")
        sync(aside)
        os.rename(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def check_bundle(folder: Path) -> Manifest:
    """The manifest of a bundle whose parts agree with it (content, gate report, ids); UntrustedBundle otherwise."""
    found = Manifest.read(folder)
    if content_digest(folder) != found.content_digest:
        raise UntrustedBundle(
            f"the components of {folder.name!r} are not those of its manifest; fetch the version again"
        )
    report = hashlib.sha256((folder / GATE_REPORT).read_bytes()).hexdigest()
    if report != found.gate_report_digest:
        raise UntrustedBundle(
            f"the gate report of {folder.name!r} is not that of its manifest; fetch the version again"
        )
    return found


def _same_release(out: Path, wanted: Manifest) -> Path:
    there = check_bundle(out)
    named = (there.agent, there.version, there.job_id, there.content_digest, there.gate_report_digest)
    if named != (wanted.agent, wanted.version, wanted.job_id, wanted.content_digest, wanted.gate_report_digest):
        raise VersionExists(
            f"{out.name!r} already holds {there.agent} {there.version}; give this release a folder of its own"
        )
    return out


def _folders(components: Path | Mapping[str, Path]) -> dict[str, Path]:
    if isinstance(components, Path):
        return {path.name: path for path in sorted(components.iterdir()) if path.is_dir()}
    return dict(components)


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
    return (text + "\n").encode()


def _mlmodel(manifest: Manifest) -> str:
    # YAML that MLflow's Model.load reads; JSON is YAML, and needs no other library
    return json.dumps(
        {
            "artifact_path": "bundle",
            "flavors": {
                "python_function": {
                    "loader_module": "perennial.registry.mlflow_loader",
                    "python_version": "3.11",
                    "env": {},
                }
            },
            "metadata": {"agent": manifest.agent, "version": manifest.version, "tasks": sorted(manifest.trainers)},
            "model_uuid": manifest.content_digest[:32],
            "utc_time_created": manifest.created_at.replace("T", " ").removesuffix("+00:00"),
        },
        indent=1,
    )  # fmt: skip
