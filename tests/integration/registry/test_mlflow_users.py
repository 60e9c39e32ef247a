"""What people of MLflow load answers the same as the gateway's own way: real components, a real signature, a real MLflow server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.model import Predictor, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.registry.bundle import assemble, bundle_digest
from perennial.registry.manifest import Manifest
from perennial.registry.mlflow_store import MlflowStore
from perennial.registry.signing import sign, verify_bundle
from perennial.serving.models import load_model
from perennial.trainers import LocalBaseStore
from perennial.trainers.catalogue import load_component
from perennial.trainers.command import Command
from perennial.trainers.ewc_text import EwcText
from tests.integration.registry.conftest import MlflowServer
from tests.unit.registry.samples import PASSWORD, REPORT, Keys, Made, manifest, row_of

TEXTS = (
    "The striker scored twice.", "The sprinter broke the record.", "The coach praised the defence.", "She won the tennis title.",
    "The bank raised its rates.", "Shares fell after the forecast.", "The merger creates an insurer.", "Oil prices rose again.",
)  # fmt: skip
ASKED = [*TEXTS, "The goalkeeper saved a penalty.", "Inflation slowed.", "?!", "猫は眠る"]


def trained(candidate: Path, bench: Workbench) -> None:
    """One task by the shipped trainer, one score, and one by a script."""
    for task, trainer, kind in (
        ("topic", EwcText(), TaskKind.CLASSIFICATION),
        ("worth", EwcText(), TaskKind.SCORE),
        ("desk", Command(), TaskKind.CLASSIFICATION),
    ):
        labels = ("sport", "money") if kind is TaskKind.CLASSIFICATION else ()
        rows = tuple(
            TrainingRow(example_id=UUID(int=n), task=task, text=text, label=labels[n // 4] if labels else n / 8)
            for n, text in enumerate(TEXTS)
        )
        out = candidate / "tasks" / task
        out.mkdir(parents=True)
        batch = TaskBatch(agent="scout", task=task, kind=kind, labels=labels, new=rows, replay=(), mode=Mode.ONLINE)
        trainer.fit(batch, None, out, seed=1, bench=bench)


class Deployment:
    """The gateway's source and loader over one release."""

    def __init__(self, store: MlflowStore, made: Made, keys: Keys, room: Path, bench: Workbench) -> None:
        self.store, self.made, self.keys, self.room, self.bench = store, made, keys, room, bench

    def fetch(self, agent: str, version: str) -> Path:
        folder, signature = self.store.fetch(agent, version, self.room / "fetched", digest=self.made.digest)
        return verify_bundle(folder, signature, self.keys.public, self.made.row, into=self.room)

    def load(self, folder: Path) -> Predictor:
        return load_component(folder, self.bench)


def close(one: Sequence[float], two: Sequence[float]) -> bool:
    return one == pytest.approx(two, abs=1e-5)


@pytest.mark.req("K69", "K59")
def test_mlflow_and_the_gateway_answer_the_same(
    mlflow_server: MlflowServer, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    agent = f"scout_{uuid4().hex[:8]}"
    bench = Workbench(bases=LocalBaseStore(folder=tmp_path / "bases"), run_scripts=True)
    trained(tmp_path / "candidate", bench)
    folder = assemble(
        tmp_path / "candidate" / "tasks", manifest(tmp_path / "candidate", agent=agent), REPORT, tmp_path / "release"
    )  # fmt: skip
    told = Manifest.read(folder)
    made = Made(folder, sign(folder, keys.private, PASSWORD), told, row_of(told, bundle_digest(folder)))
    store = MlflowStore(mlflow_server.url)
    store.publish(
        made.folder, made.signature, told, digest=made.digest, metrics={}, params={}, tags={}, job_id=told.job_id
    )  # fmt: skip
    store.set_alias(agent, "champion", "1.0.0")
    deployment = Deployment(store, made, keys, tmp_path, bench)
    served = load_model(deployment, deployment, agent, "1.0.0")

    # another machine: the public key, the address, and the word that scripts may run; no encoder yet
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PERENNIAL_MLFLOW_URL", mlflow_server.url)
    monkeypatch.setenv("PERENNIAL_VERIFY_KEY_FILE", str(keys.public))
    monkeypatch.setenv("PERENNIAL_RUN_SCRIPTS", "true")
    mlflow.set_tracking_uri(mlflow_server.url)
    mlflow.set_registry_uri(mlflow_server.url)
    model = mlflow.pyfunc.load_model(f"models:/{agent}@champion")
    assert model.metadata.metadata["tasks"] == ["desk", "topic", "worth"]
    answers = model.predict(ASKED)
    for task in ("topic", "worth", "desk"):
        wanted, found = served.answer(task, ASKED), [answer[task] for answer in answers]
        assert close([answer["confidence"] for answer in found], [answer.confidence for answer in wanted])
        if task == "worth":
            assert close([answer["output"] for answer in found], [answer.output for answer in wanted])
        else:
            assert [answer["output"] for answer in found] == [answer.output for answer in wanted]
            assert {answer["output"] for answer in found} == {"sport", "money"}

    import pandas

    assert [one["topic"]["output"] for one in model.predict(pandas.DataFrame({"text": ASKED}))] == [
        one["topic"]["output"] for one in answers
    ]
