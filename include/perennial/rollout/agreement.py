"""Whether an answer is what turned out to be right: the comparison behind outcomes, shadow and feedback."""

from __future__ import annotations

from math import isfinite
from typing import Any

from perennial.domain.words import JSON, TaskKind

SCORE_TOLERANCE = 0.05  # two scores this close say the same


def normal(value: JSON) -> JSON:
    """The value without what does not matter: case and runs of spaces in texts, the order of keys.

    >>> normal({"Label": "  Breaking   NEWS "}) == normal({"label": "breaking news"})
    True
    """
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, dict):
        return {normal(str(key)): normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    return value


def agrees(first: JSON, second: JSON) -> bool:
    """Whether two answers are the same: normalised, numbers within 0.05.

    >>> agrees("Sports", "sports "), agrees("sports", "politics"), agrees(0.51, 0.52), agrees(True, 1)
    (True, False, True, False)
    """
    if _number(first) and _number(second):
        return abs(float(first) - float(second)) <= SCORE_TOLERANCE
    left, right = normal(first), normal(second)
    return type(left) is type(right) and bool(left == right)


def correctness(kind: TaskKind, output: JSON, actual: JSON) -> float:
    """How right an answer was: 1 or 0, for scores 1 - |error|; 0 when the two cannot be compared.

    >>> correctness(TaskKind.CLASSIFICATION, "Sports", "sports"), correctness(TaskKind.SCORE, 0.75, 0.25)
    (1.0, 0.5)
    """
    if kind is TaskKind.SCORE:
        if not _number(output) or not _number(actual):
            return 0.0
        return max(0.0, 1.0 - abs(float(output) - float(actual)))
    return float(agrees(output, actual))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
