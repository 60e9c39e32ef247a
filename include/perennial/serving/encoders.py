"""The gateway's encoders: the fastest way to the same vectors, and one line per agent in front of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from perennial.domain.model import TextEncoder, Workbench
from perennial.serving.batching import Batcher, BatchLimits


class BatchedEncoder:
    """A ``TextEncoder`` whose calls are gathered: all tasks and versions of one agent that read with one encoder."""

    def __init__(self, encoder: TextEncoder, limits: BatchLimits) -> None:
        self.digest, self.dimension = encoder.digest, encoder.dimension
        self._encoder, self._limits = encoder, limits
        self._batchers: dict[int, Batcher[Any]] = {}  # by where texts are cut; hardly ever more than one

    def vectors(self, texts: Sequence[str], max_tokens: int) -> Any:
        """See ``TextEncoder.vectors``; Overloaded when too many wait."""
        batcher = self._batchers.get(max_tokens)
        if batcher is None:
            work = partial(self._encoder.vectors, max_tokens=max_tokens)
            batcher = self._batchers.setdefault(max_tokens, Batcher(work, self._limits))
        return batcher.ask(texts)


class ServingEncoders:
    """An ``EncoderSource``: agents share an encoder's weights, but not its line. Called while a version is loaded."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._guard = threading.Lock()
        self._fast: WeakValueDictionary[str, TextEncoder] = WeakValueDictionary()
        self._lines: WeakValueDictionary[tuple[str, str], BatchedEncoder] = WeakValueDictionary()

    def __call__(self, agent: str, digest: str, bench: Workbench) -> TextEncoder:
        """The encoder of a digest for one agent; both live as long as a loaded version holds them."""
        from perennial.trainers._encoder import encoder_of
        from perennial.trainers._onnx_encoder import fastest

        with self._guard:
            line = self._lines.get((agent, digest))
            if line is None:
                fast = self._fast.get(digest)
                if fast is None:
                    fast = fastest(encoder_of(digest, bench))
                    self._fast[digest] = fast
                line = BatchedEncoder(fast, self._limits)
                self._lines[agent, digest] = line
            return line
