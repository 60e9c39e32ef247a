"""An encoder of BERT's shape as an ONNX graph, written node by node from its weights.

Written and not traced: the whole graph is below, it is made in milliseconds without the ``onnx`` package, and its nodes are
those that ONNX Runtime computes fastest, some of them its own (domain ``com.microsoft``). The layers are those of
Devlin et al., BERT, 2018: embeddings, then per layer self-attention and a feed-forward part, each added to its input
and normalised. Between attentions a batch is one matrix [rows * width, dimension]: products then add their bias as they go,
and the steps after them stay what they are. On [rows, width, dimension] ONNX Runtime joins addition and normalisation to a
``SkipLayerNormalization`` that takes five times as long as both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from perennial.errors import TrainingError
from perennial.trainers._protobuf import piece, single, varint, whole

Weights = Mapping[str, npt.NDArray[np.float32]]

_FLOAT, _INT32, _INT64 = 1, 6, 7  # onnx.TensorProto.DataType
_IR_VERSION, _OPSET = 8, 17
_FUSED = "com.microsoft"


def bert_graph(config: Any, weights: Weights) -> bytes:
    """The ONNX model: ``ids`` and ``mask`` (int32, [rows, width]) in, ``hidden`` (float32, [rows, width, dimension]) out.

    ``config`` is the model's, ``weights`` its tensors by name. TrainingError for an encoder of another shape: the
    caller goes on with torch. Runs in the gateway, when a version is loaded.
    """
    _check(config)
    graph = _Graph(weights, epsilon=float(config.layer_norm_eps))
    # every text is one segment, so its vector is a part of each place's
    places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    graph.tensor("places", places)
    graph.node(
        "EmbedLayerNormalization",
        ["ids", "", graph.weight("embeddings.word_embeddings.weight"), "places", "",
         graph.weight("embeddings.LayerNorm.weight"), graph.weight("embeddings.LayerNorm.bias")],
        ["layer0", "unused"], graph.epsilon,
    )  # fmt: skip
    graph.node("Shape", ["layer0"], ["batch"], domain="")
    graph.sizes("flat", [-1, int(config.hidden_size)])
    graph.shaped("layer0", "flat", "layer0.flat")
    for number in range(config.num_hidden_layers):
        _layer(graph, number, int(config.num_attention_heads))
    return graph.model(f"layer{config.num_hidden_layers}")


def _check(config: Any) -> None:
    kind = (config.model_type, config.hidden_act, getattr(config, "position_embedding_type", None) or "absolute")
    if kind != ("bert", "gelu", "absolute") or getattr(config, "is_decoder", False):
        raise TrainingError(f"an encoder of the kind {'/'.join(map(str, kind))} has no graph here; torch runs it")


def _layer(graph: _Graph, number: int, heads: int) -> None:
    """From ``layerN``, [rows, width, dimension], and ``layerN.flat``, the same as one matrix, to both of N + 1."""
    name, before, after = f"encoder.layer.{number}", f"layer{number}", f"layer{number + 1}"
    own = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    # one product for all three; torch keeps its matrices as [out, in]
    graph.tensor(f"{name}.qkv", np.concatenate([graph.weights[f"{part}.weight"].T for part in own], axis=1))
    graph.tensor(f"{name}.qkv.bias", np.concatenate([graph.weights[f"{part}.bias"] for part in own]))
    graph.node(
        "Attention", [before, f"{name}.qkv", f"{name}.qkv.bias", "mask"], [f"{name}.met"], _integer("num_heads", heads)
    )
    graph.shaped(f"{name}.met", "flat", f"{name}.met.flat")
    graph.joined(f"{name}.met.flat", f"{before}.flat", f"{name}.attention.output", f"{name}.middle")
    graph.linear(f"{name}.middle", f"{name}.intermediate.dense", f"{name}.wide")
    graph.node("Gelu", [f"{name}.wide"], [f"{name}.bent"])
    graph.joined(f"{name}.bent", f"{name}.middle", f"{name}.output", f"{after}.flat")
    graph.shaped(f"{after}.flat", "batch", after)


class _Graph:
    """Collects nodes and tensors as the fields of an ONNX GraphProto."""

    def __init__(self, weights: Weights, *, epsilon: float) -> None:
        self.weights = weights
        self.epsilon = piece(5, piece(1, "epsilon") + single(2, epsilon) + whole(20, 1))
        self._parts: list[bytes] = []
        self._known: set[str] = set()

    def tensor(self, name: str, values: npt.NDArray[np.float32]) -> None:
        """A constant of the graph."""
        dims = b"".join(whole(1, size) for size in values.shape)
        raw = np.ascontiguousarray(values, dtype="<f4").tobytes()
        self._parts.append(piece(5, dims + whole(2, _FLOAT) + piece(8, name) + piece(9, raw)))

    def sizes(self, name: str, values: list[int]) -> None:
        """A constant that ``shaped`` takes; -1 stands for what is left."""
        raw = np.array(values, dtype="<i8").tobytes()
        self._parts.append(piece(5, whole(1, len(values)) + whole(2, _INT64) + piece(8, name) + piece(9, raw)))

    def weight(self, name: str) -> str:
        """A tensor of the encoder as it is."""
        if name not in self._known:
            self._known.add(name)
            self.tensor(name, self.weights[name])
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], *attributes: bytes, domain: str = _FUSED) -> None:
        """One step of the computation; an input that is left out has an empty name."""
        fields = [piece(1, name) for name in inputs] + [piece(2, name) for name in outputs]
        self._parts.append(piece(1, b"".join([*fields, piece(4, kind), *attributes, piece(7, domain)])))

    def shaped(self, given: str, sizes: str, out: str) -> None:
        """The same numbers as a tensor of other sizes; costs nothing."""
        self.node("Reshape", [given, sizes], [out], domain="")

    def linear(self, given: str, layer: str, out: str) -> None:
        """A product with a layer's matrix, and its bias."""
        self.tensor(f"{layer}.matrix", self.weights[f"{layer}.weight"].T)
        self.node("Gemm", [given, f"{layer}.matrix", self.weight(f"{layer}.bias")], [out], domain="")

    def joined(self, given: str, kept: str, part: str, out: str) -> None:
        """A layer's product, added to what was there, normalised."""
        self.linear(given, f"{part}.dense", f"{part}.new")
        self.node("Add", [f"{part}.new", kept], [f"{part}.sum"], domain="")
        scale, shift = self.weight(f"{part}.LayerNorm.weight"), self.weight(f"{part}.LayerNorm.bias")
        self.node("LayerNormalization", [f"{part}.sum", scale, shift], [out], self.epsilon, domain="")

    def model(self, last: str) -> bytes:
        """The ONNX ModelProto around the graph; ``last`` becomes its output."""
        self.node("Identity", [last], ["hidden"], domain="")
        ends = [piece(11, _value("ids", _INT32, 2)), piece(11, _value("mask", _INT32, 2))]
        graph = b"".join([*self._parts, piece(2, "encoder"), *ends, piece(12, _value("hidden", _FLOAT, 3))])
        opsets = [piece(8, piece(1, domain) + whole(2, version)) for domain, version in (("", _OPSET), (_FUSED, 1))]
        return b"".join([whole(1, _IR_VERSION), piece(7, graph), *opsets])


def _integer(name: str, value: int) -> bytes:
    return piece(5, piece(1, name) + varint(3 << 3) + varint(value) + whole(20, 2))


def _value(name: str, kind: int, axes: int) -> bytes:
    shape = b"".join(piece(1, piece(2, f"axis{axis}")) for axis in range(axes))
    return piece(1, name) + piece(2, piece(1, whole(1, kind) + piece(2, shape)))
