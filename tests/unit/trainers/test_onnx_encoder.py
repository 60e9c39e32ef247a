"""Serving's encoder gives torch's vectors, in less time, or leaves it to torch and says so."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from perennial.domain.model import Workbench
from perennial.errors import TrainingError
from perennial.serving.batching import BatchLimits
from perennial.serving.encoders import ServingEncoders
from perennial.trainers import _onnx_encoder
from perennial.trainers._encoder import BUNDLED, Encoder, encoder_of, put_base
from perennial.trainers._onnx_encoder import TOLERANCE, OnnxEncoder, farthest, fastest

TEXTS = ["goal match", "the bank and the market", "", "vote", "chip robot software orbit probe laser " * 9]


@pytest.fixture
def encoder(tiny_encoder: Path, bench: Workbench) -> Encoder:
    return encoder_of(put_base(str(tiny_encoder), bench), bench)


@pytest.mark.req("K39")
def test_the_vectors_are_torchs(encoder: Encoder) -> None:
    fast = fastest(encoder)
    assert isinstance(fast, OnnxEncoder)
    assert farthest(fast, encoder) < TOLERANCE
    for cut in (4, 32):
        assert np.abs(fast.vectors(TEXTS, cut) - encoder.vectors(TEXTS, cut)).max() < TOLERANCE
    alone = np.concatenate([fast.vectors([text], 32) for text in TEXTS])
    assert np.abs(fast.vectors(TEXTS, 32) - alone).max() < TOLERANCE


def test_the_bundled_encoder_is_served_fast(bench: Workbench) -> None:
    assert isinstance(fastest(encoder_of(put_base(BUNDLED, bench), bench)), OnnxEncoder)


def test_an_encoder_of_another_shape_stays_with_torch_and_the_log_says_so(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoder.model.config, "hidden_act", "relu")
    with pytest.raises(TrainingError, match="relu"):
        OnnxEncoder(encoder)
    with caplog.at_level(logging.WARNING):
        assert fastest(encoder) is encoder
    assert "served by torch" in caplog.text


def test_vectors_that_differ_are_not_served(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = _onnx_encoder.bert_graph
    spoilt = "encoder.layer.0.output.dense.weight"
    monkeypatch.setattr(
        _onnx_encoder, "bert_graph", lambda config, weights: real(config, {**weights, spoilt: weights[spoilt] * 1.01})
    )  # fmt: skip
    assert fastest(encoder) is encoder
    assert "off by" in caplog.text


def test_agents_share_an_encoder_and_not_its_line(
    encoder: Encoder, tiny_encoder: Path, tmp_path: Path, bench: Workbench
) -> None:
    encoders = ServingEncoders(BatchLimits())
    scout, analyst = encoders("scout", encoder.digest, bench), encoders("analyst", encoder.digest, bench)
    assert encoders("scout", encoder.digest, bench) is scout  # all tasks and versions of one agent
    assert scout is not analyst
    assert scout._encoder is analyst._encoder  # type: ignore[attr-defined]
    assert np.abs(scout.vectors(TEXTS, 32) - encoder.vectors(TEXTS, 32)).max() < TOLERANCE
    # a version that brings an encoder of its own gets that one
    own = tmp_path / "own"
    own.mkdir()
    for path in tiny_encoder.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    _shift(own / "model.safetensors")
    tuned = encoder_of(put_base(str(own), bench), bench)
    served = encoders("scout", tuned.digest, bench)
    assert served is not scout
    assert np.abs(served.vectors(TEXTS, 32) - tuned.vectors(TEXTS, 32)).max() < TOLERANCE
    assert np.abs(served.vectors(TEXTS, 32) - scout.vectors(TEXTS, 32)).max() > 100 * TOLERANCE


def _shift(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
    save_file({**tensors, name: tensors[name] * -1.5}, path, metadata={"format": "pt"})
