"""The same holdout texts, disturbed in ways that leave the right answer as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from random import Random

from perennial.domain.example import TrainingRow

_LONG = 3  # a padded text is so many times as long


def sample(rows: Sequence[TrainingRow], count: int) -> tuple[TrainingRow, ...]:
    """At most ``count`` rows, drawn by a digest of their ids: the same rows for as long as they are in the holdout.

    Their disturbed texts stay the same too, so their embeddings are computed once.
    """
    return tuple(sorted(rows, key=lambda row: hashlib.sha256(row.example_id.bytes).digest())[:count])


def disturbed(kind: str, row: TrainingRow) -> str:
    """The row's text after one kind of disturbance, always the same for the same row.

    Kinds: ``typos`` (one word in eight loses, doubles or swaps a letter), ``case`` (all upper or all lower),
    ``negation`` (a double negation around the text, which leaves its meaning) and ``length`` (the first half of the
    words, or the text three times over). After the behavioural tests of M. Ribeiro and others, "Beyond accuracy:
    behavioral testing of NLP models with CheckList", ACL 2020.

    >>> from uuid import UUID
    >>> row = TrainingRow(example_id=UUID(int=3), task="t", text="The striker scored twice", label="sport")
    >>> disturbed("negation", row)
    'It is not true that this is false: The striker scored twice'
    """
    return KINDS[kind](row.text, Random(f"{kind}:{row.example_id}"))


def _typos(text: str, draw: Random) -> str:
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) > 3]
    for index in draw.sample(long, min(len(long), max(1, len(long) // 8))):
        word, at, way = words[index], draw.randrange(1, len(words[index]) - 1), draw.randrange(3)
        swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        words[index] = (word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:], swapped)[way]
    return " ".join(words)


def _case(text: str, draw: Random) -> str:
    return text.upper() if draw.random() < 0.5 else text.lower()


def _negation(text: str, draw: Random) -> str:
    return f"It is not true that this is false: {text}"


def _length(text: str, draw: Random) -> str:
    words = text.split(" ")
    if draw.random() < 0.5 and len(words) > 7:
        return " ".join(words[: (len(words) + 1) // 2])
    return " ".join([text] * _LONG)


KINDS: dict[str, Callable[[str, Random], str]] = {
    "typos": _typos, "case": _case, "negation": _negation, "length": _length,
}  # fmt: skip
