"""What feedback on a prediction is worth, and the words of a correction: pure rules."""

from __future__ import annotations

from dataclasses import dataclass

from perennial.domain.words import JSON, TaskKind
from perennial.ingest.plain_words import is_plain
from perennial.rollout.agreement import agrees, correctness

UNSURE = 0.6  # an answer with more uncertainty than this is kept
IMPORTANT = 0.7
WRONG, RIGHT = 1.0, 0.3  # importance of a classification that was wrong, and of one that was right


@dataclass(frozen=True, kw_only=True, slots=True)
class Worth:
    """Scores of one piece of feedback, and whether it is kept."""

    uncertainty: float
    importance: float
    kept: bool


def worth(kind: TaskKind, predicted: JSON, actual: JSON, uncertainty: float) -> Worth:
    """How much an answer teaches.

    A wrong answer of any classification task is important, a right one is not; a score is as important as it is wrong or
    unsure. Without the truth an answer is kept, unlabelled, when it was unsure.

    >>> worth(TaskKind.CLASSIFICATION, "sports", "world", 0.05)
    Worth(uncertainty=0.05, importance=1.0, kept=True)
    >>> worth(TaskKind.CLASSIFICATION, {"label": "Sports"}, {"label": " sports "}, 0.6).kept
    False
    >>> worth(TaskKind.CLASSIFICATION, "sports", None, 0.61).kept
    True
    """
    if actual is None:
        return Worth(uncertainty=uncertainty, importance=min(uncertainty, IMPORTANT), kept=uncertainty > UNSURE)
    if kind is TaskKind.SCORE:
        importance = round(max(uncertainty, 1.0 - correctness(kind, predicted, actual)), 9)
    else:
        importance = RIGHT if agrees(predicted, actual) else WRONG
    return Worth(uncertainty=uncertainty, importance=importance, kept=uncertainty > UNSURE or importance > IMPORTANT)


def _shown(value: JSON) -> str:
    """An answer within a note, where a detector has no context to know a bare number or address by."""
    text = str(value)[:2000]
    return text if is_plain(text) else "(left out)"


def correction_note(incorrect: JSON, correct: JSON, explanation: str = "") -> str:
    """The feedback text of a correction, as the predecessor wrote it, with the explanation behind.

    >>> correction_note("sports", "world", "It is about an election.")
    "Corrected from 'sports' to 'world'. It is about an election."
    """
    note = f"Corrected from '{_shown(incorrect)}' to '{_shown(correct)}'"
    return f"{note}. {explanation}" if explanation else note
