"""Finding trainers, and rebuilding one from a record."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from perennial.errors import TrainingError
from perennial.trainers import catalogue, trainer_for
from perennial.trainers.ewc_text import EwcText

TRAINER_FILE = """
class Mine:
    key = "{key}"
TRAINER = Mine
"""


def test_the_folder_is_walked() -> None:
    found = catalogue()
    assert found["ewc_text.v1"] is EwcText
    assert all(key == trainer.key for key, trainer in found.items())


def test_two_claims_to_one_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_trainers"
    package.mkdir()
    for name, key in (("__init__", "zero"), ("_skipped", "same"), ("one", "same"), ("three", "other")):
        (package / f"{name}.py").write_text(TRAINER_FILE.format(key=key))
    (package / "helper.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sorted(catalogue(package, "some_trainers")) == ["other", "same"]
    (package / "two.py").write_text(TRAINER_FILE.format(key="same"))
    with pytest.raises(TrainingError, match=r"two\.py.*both claim.*'same'"):
        catalogue(package, "some_trainers")


def test_a_record_gives_the_trainer_back() -> None:
    trainer = EwcText(encoder_lr=2e-5, max_tokens=64)
    record = json.loads(json.dumps({"key": trainer.key, **asdict(trainer)}))
    assert trainer_for(record["key"], record) == trainer


def test_unknown_keys_and_settings_are_said_aloud() -> None:
    with pytest.raises(TrainingError, match=r"no trainer claims.*ewc_text\.v1"):
        trainer_for("ewc_text.v0", {})
    with pytest.raises(TrainingError, match="has no setting depth"):
        trainer_for("ewc_text.v1", {"depth": 3})


@pytest.mark.parametrize(
    "settings",
    [
        {"distil": 1.5},
        {"epochs": 0},
        {"encoder_lr": -1e-5},
        {"encoder_lr": float("nan")},
        {"encoder_penalty": float("inf")},
        {"margin": -0.1},
    ],
)
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="ewc_text"):
        EwcText(**settings)  # type: ignore[arg-type]


@pytest.mark.req("J44", "J45")
def test_the_documented_defaults() -> None:
    assert (EwcText().encoder_lr, EwcText().epochs) == (1e-5, 1)


@pytest.mark.req("D3")
def test_walking_costs_no_heavy_import() -> None:
    code = (
        "import sys; from perennial.trainers import catalogue; import perennial.selection; catalogue();"
        "print([name for name in ('torch', 'transformers', 'sklearn', 'pandas', 'safetensors') if name in sys.modules])"
    )
    include = Path(__file__).resolve().parents[3] / "include"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(include)}, check=True
    )
    assert done.stdout.strip() == "[]"
