"""Encoders in ONNX Runtime: the same vectors as torch's in about half the time on a CPU. For serving alone.

Trainings, gates and ``reproduce`` stay on torch. Runs in the gateway, when a version is loaded and for every answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from perennial.domain.model import TextEncoder
from perennial.errors import TrainingError
from perennial.trainers._encoder import Encoder, Vectors, batches_by_width
from perennial.trainers._onnx_bert import bert_graph

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of each number of a vector of length 1
_BATCH = 8  # texts of one run; more gain nothing on a CPU, as one text alone fills its matrix units
_PROBES = (
    "", "a", "A short text.", "Shares rose 3.5 % after the bank's forecast; analysts doubt it.", "猫は眠る ?! é",
    "The committee met again and put off its vote. " * 6, "word " * 600,
)  # fmt: skip


class OnnxEncoder:
    """``Encoder.vectors`` by ONNX Runtime, one core per call; any number of threads may ask at once.

    TrainingError when the encoder has another shape than BERT's, ImportError without onnxruntime.
    """

    def __init__(self, encoder: Encoder) -> None:
        import onnxruntime

        self.digest, self.dimension = encoder.digest, encoder.dimension
        self._encoder = encoder  # its tokenizer
        options = onnxruntime.SessionOptions()
        # callers bring the parallelism: threads inside one product would fight them for the cores
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        weights = {name: tensor.cpu().numpy() for name, tensor in encoder.model.state_dict().items()}
        graph = bert_graph(encoder.model.config, weights)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def vectors(self, texts: Sequence[str], max_tokens: int) -> Vectors:
        """Embeddings of the texts, in order: [texts, dimension], each of length 1."""
        tokens = self._encoder.tokens(texts, max_tokens)
        out = np.empty((len(tokens), self.dimension), dtype=np.float32)
        for _, rows in batches_by_width(tokens, _BATCH, max_tokens):
            out[rows] = self._pooled([tokens[row] for row in rows])
        if not np.isfinite(out).all():
            raise TrainingError("the encoder answered with numbers that are not finite; take another base model")
        return out

    def _pooled(self, batch: Sequence[Sequence[int]]) -> Vectors:
        width = max(1, max(map(len, batch)))
        ids = np.zeros((len(batch), width), dtype=np.int32)
        mask = np.zeros((len(batch), width), dtype=np.int32)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        hidden = self._session.run(["hidden"], {"ids": ids, "mask": mask})[0]  # [rows, width, dimension]
        mean = np.einsum("rwd,rw->rd", hidden, mask.astype(np.float32)) / np.maximum(mask.sum(1, keepdims=True), 1e-9)
        unit: Vectors = (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit


def fastest(encoder: Encoder) -> TextEncoder:
    """The encoder in ONNX Runtime if that gives torch's vectors on probe texts, else torch's own, and the log says why.

    A GPU keeps torch. Never raises for what ONNX Runtime cannot do: a slower answer is better than none.
    """
    if encoder.device.type != "cpu":
        return encoder
    try:
        fast = OnnxEncoder(encoder)
        apart = farthest(fast, encoder)
    except Exception as error:  # noqa: BLE001 - whatever it is, torch answers, and the log says so
        logger.warning(
            "encoder %s is served by torch, at about half the speed: %s: %s",
            encoder.digest[:12], type(error).__name__, str(error)[:200],
        )  # fmt: skip
        return encoder
    if not apart < TOLERANCE:
        logger.error(
            "encoder %s is served by torch: ONNX Runtime's vectors are off by %.1e, more than %.0e",
            encoder.digest[:12], apart, TOLERANCE,
        )  # fmt: skip
        return encoder
    return fast


def farthest(one: TextEncoder, other: TextEncoder) -> float:
    """The largest difference of any number of two encoders' vectors of the probe texts."""
    return float(np.abs(one.vectors(_PROBES, 128) - other.vectors(_PROBES, 128)).max())
