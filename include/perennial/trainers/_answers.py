"""Between rows and numbers: targets of a batch, and predictions from probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perennial.domain.example import TrainingRow
from perennial.domain.model import EmbeddingCache, Prediction, TextEncoder
from perennial.domain.words import TaskKind
from perennial.trainers._component import Saved
from perennial.trainers._encoder import embed
from perennial.trainers._head import Floats, squash, with_ones

KNOTS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])  # predicted scores at which the spread of residuals is kept
_BANDWIDTH = 0.15
_PRIOR_ROWS = 5.0


def targets_of(rows: Sequence[TrainingRow], kind: TaskKind, labels: Sequence[str]) -> Floats:
    """One-hot targets [rows, labels], or scores [rows, 1]."""
    if kind is TaskKind.SCORE:
        return np.array([[float(row.label)] for row in rows], dtype=np.float64).reshape(len(rows), 1)
    place = {label: column for column, label in enumerate(labels)}
    hot = np.zeros((len(rows), len(labels)))
    for index, row in enumerate(rows):
        hot[index, place[row.label]] = 1.0
    return hot


def residual_spread(predicted: Floats, actual: Floats) -> tuple[tuple[float, float], ...]:
    """Mean squared residual and the weight of rows behind it, at each knot of the predicted score (a Gaussian window
    of 0.15).

    >>> spread = residual_spread(np.array([0.1, 0.9]), np.array([0.1, 0.5]))
    >>> [round(square, 3) for square, _ in spread]
    [0.067, 0.074, 0.08, 0.086, 0.093]
    """
    square = (predicted - actual) ** 2
    overall = float(square.mean()) if len(square) else 0.25
    window = np.exp(-0.5 * ((KNOTS[:, None] - predicted[None, :]) / _BANDWIDTH) ** 2)
    rows = window.sum(axis=1)
    local = (window @ square + _PRIOR_ROWS * overall) / (rows + _PRIOR_ROWS)
    return tuple((float(value), float(count)) for value, count in zip(local, rows, strict=True))


def merged_spread(
    old: Sequence[tuple[float, float]], new: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    """Old and new residuals weighed by their rows; the old ones count for 500 rows at most, so that they can be
    outgrown.
    """
    merged = []
    for (before, rows), (now, more) in zip(old, new, strict=True):
        kept = min(rows, 500.0) + _PRIOR_ROWS
        merged.append(((before * kept + now * more) / (kept + more), min(rows, 500.0) + more))
    return tuple(merged)


class HeadPredictor:
    """A loaded head on a shared encoder; holds no mutable state, so any number of threads may ask at once."""

    def __init__(self, saved: Saved, encoder: TextEncoder, cache: EmbeddingCache | None, max_tokens: int) -> None:
        self._record = saved.record
        self._theta = saved.theta
        self._local = saved.local
        self._encoder = encoder
        self._cache = cache
        self._max_tokens = max_tokens

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer each text, in order."""
        if not texts:
            return []
        x = with_ones(embed(texts, self._encoder, self._cache, max_tokens=self._max_tokens))
        p = squash((x @ self._theta + self._local.scores(x)) / self._record.temperature)
        if self._record.kind is TaskKind.SCORE:
            return self._scores(p[:, 0])
        labels = self._record.labels
        best = p.argmax(axis=1)
        return [
            Prediction(
                output=labels[column],
                confidence=float(row[column]),
                scores={label: float(v) for label, v in zip(labels, row, strict=True)},
            )
            for row, column in zip(p, best, strict=True)
        ]

    def _scores(self, p: Floats) -> list[Prediction]:
        spread = np.sqrt(np.interp(p, KNOTS, [square for square, _ in self._record.spread]))
        sure = np.clip(1.0 - 2.0 * spread, 0.0, 1.0)
        return [Prediction(output=float(value), confidence=float(c)) for value, c in zip(p, sure, strict=True)]
