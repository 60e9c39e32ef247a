"""Lets people of MLflow load a release as they are used to: ``mlflow.pyfunc.load_model("models:/scout@champion")``.

The gateway never comes here: MLflow's loading runs whatever loader a file names. This loader verifies the signature
and the bundle's own agreement; without the ledger it cannot know whether an older signed release was put in the place
of a newer one.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perennial.domain.model import ModelRef, Predictor, Workbench
from perennial.errors import NotConfigured, UntrustedBundle
from perennial.registry.bundle import TASKS, bundle_digest, signature_path
from perennial.registry.files import copy_file, private_copy
from perennial.registry.manifest import Manifest
from perennial.registry.mlflow_store import MlflowStore
from perennial.registry.signing import check_copy
from perennial.settings import Settings, load_settings

_ADDED_BY_MLFLOW = frozenset({"registered_model_meta"})


class VerifiedRelease:
    """All tasks of one verified release."""

    def __init__(self, manifest: Manifest, predictors: dict[str, Predictor]) -> None:
        self.manifest = manifest
        self._predictors = predictors

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Answer each text (a list, or a data frame's ``text`` column): ``output`` and ``confidence`` by task.

        ``params`` are MLflow's and not used.
        """
        texts = [str(text) for text in (model_input["text"] if hasattr(model_input, "columns") else model_input)]
        answers: list[dict[str, Any]] = [{} for _ in texts]
        for task, predictor in self._predictors.items():
            for answer, found in zip(answers, predictor.predict(texts), strict=True):
                answer[task] = {"output": found.output, "confidence": found.confidence}
        return answers


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> VerifiedRelease:
    """MLflow's entry point: verify a private copy of the downloaded bundle, then load its tasks from that copy."""
    settings = load_settings()
    if settings.verify_key_file is None:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", "set it to the public key of whoever signs the releases")
    with tempfile.TemporaryDirectory() as room:
        copy = private_copy(Path(path), Path(room), leave_out=_ADDED_BY_MLFLOW)
        manifest = Manifest.read(copy)
        copy_file(_signature(Path(path), manifest, settings, Path(room)), signature_path(copy))
        itself = ModelRef(agent=manifest.agent, version=manifest.version, digest=bundle_digest(copy))
        check_copy(copy, settings.verify_key_file, itself)
        return VerifiedRelease(manifest, _predictors(copy, settings))


def _signature(path: Path, manifest: Manifest, settings: Settings, room: Path) -> Path:
    beside = signature_path(path)
    if beside.is_file():
        return beside
    # a download of the model brings the bundle alone; its signature lies beside it in the run
    return MlflowStore(settings.mlflow_url).fetch(manifest.agent, manifest.version, room / "fetched")[1]


def _predictors(folder: Path, settings: Settings) -> dict[str, Predictor]:
    # by name, since trainers lie above this room
    catalogue = importlib.import_module("perennial.trainers.catalogue")
    bases = importlib.import_module("perennial.trainers.bases")
    bench = Workbench(
        bases=bases.LocalBaseStore(folder=settings.home / "bases"), allow_hub=settings.allow_hub,
        run_scripts=settings.run_scripts,
    )  # fmt: skip
    found: dict[str, Predictor] = {}
    for path in _task_folders(folder):
        record = json.loads((path / "component.json").read_text(encoding="utf-8"))
        _bring_encoder(record["encoder"], bench)
        found[path.name] = catalogue.load_component(path, bench)
    return found


def _bring_encoder(encoder: Mapping[str, Any], bench: Workbench) -> None:
    """On a machine that never trained: an encoder as it was published is taken from its package; the digest is checked at loading."""
    try:
        bench.bases.path(str(encoder["digest"]))
    except UntrustedBundle:
        if encoder.get("tuned") is False and encoder.get("dimension"):
            importlib.import_module("perennial.trainers._encoder").put_base(str(encoder["name"]), bench)


def _task_folders(folder: Path) -> Sequence[Path]:
    return sorted(path for path in (folder / TASKS).iterdir() if path.is_dir())
