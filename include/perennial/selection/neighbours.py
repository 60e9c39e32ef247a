"""Near duplicates between training and holdout: a holdout text that was trained on, in other words, measures nothing."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perennial.domain.example import TrainingRow

_SHINGLE = 6  # bytes of normalised UTF-8: six fit into one 64-bit number, so shingles are exact and only MinHash hashes
_BANDS, _WIDTH = 24, 4  # a pair of similarity 0.8 is found with probability 1 - 3e-6, one of 0.7 with 0.999
_SEED = 20250801

Shingles = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Separation:
    """Training and holdout without near duplicates between them, and what was left out of each.

    ``training`` keeps every correction; a training row that is no correction and resembles a holdout row is
    ``dropped``. ``holdout`` are the rows to evaluate on; one that resembles a kept correction is ``excluded``, for
    champion and candidate alike.
    """

    training: tuple[TrainingRow, ...]
    dropped: tuple[TrainingRow, ...]
    holdout: tuple[TrainingRow, ...]
    excluded: tuple[TrainingRow, ...]


def separate(training: Sequence[TrainingRow], holdout: Sequence[TrainingRow], *, threshold: float = 0.8) -> Separation:
    """Take near duplicates apart; ``training`` includes the replay. Rows count as corrections when flagged so, or of
    priority 2 and above.

    >>> from uuid import UUID
    >>> def row(number, text, correction=False):
    ...     return TrainingRow(example_id=UUID(int=number), task="t", text=text, label="a", correction=correction)
    >>> held = [row(1, "The central bank raised its rate by half a point."), row(2, "A storm closed the harbour of Rotterdam today.")]
    >>> new = [row(3, "The central bank raised its rate by half a point!"), row(4, "a storm closed the harbour of rotterdam today", True)]
    >>> result = separate(new, held)
    >>> [r.example_id.int for r in result.dropped], [r.example_id.int for r in result.excluded]
    ([3], [2])
    """
    pairs = near_duplicates([row.text for row in training], [row.text for row in holdout], threshold=threshold)
    dropped, excluded = set(), set()
    for left, right in pairs:
        if training[left].correction or training[left].priority >= 2:
            excluded.add(right)
        else:
            dropped.add(left)
    return Separation(
        training=tuple(row for index, row in enumerate(training) if index not in dropped),
        dropped=tuple(row for index, row in enumerate(training) if index in dropped),
        holdout=tuple(row for index, row in enumerate(holdout) if index not in excluded),
        excluded=tuple(row for index, row in enumerate(holdout) if index in excluded),
    )


def near_duplicates(left: Sequence[str], right: Sequence[str], *, threshold: float = 0.8) -> list[tuple[int, int]]:
    """Pairs ``(index in left, index in right)`` whose shingle sets have a Jaccard similarity of ``threshold`` or
    more.

    Case, accents of width, punctuation and spacing do not count; in a text without letters and digits its signs do.
    Candidates come from MinHash in 24 bands of 4 (Broder, On the resemblance and containment of documents, 1997); each is
    then compared exactly, so no reported pair is false. Made for thresholds of 0.7 and above: below, MinHash may miss
    pairs.

    >>> near_duplicates(["Rain is expected on Monday in Oslo."], ["Sun in Rome", "RAIN is expected on  Monday in Oslo"])
    [(0, 1)]
    """
    one, two = [_shingles(text) for text in left], [_shingles(text) for text in right]
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index, keys in enumerate(_bands(two)):
        for key in keys:
            buckets[key].append(index)
    found = []
    for index, keys in enumerate(_bands(one)):
        for other in sorted({other for key in keys for other in buckets.get(key, ())}):
            if _jaccard(one[index], two[other]) >= threshold:
                found.append((index, other))
    return found


def families(texts: Sequence[str], *, threshold: float = 0.8) -> list[int]:
    """For each text the index of the first one that it is a near duplicate of; its own index when there is none.

    A text is compared with the first of each family only (leader clustering: Hartigan, Clustering Algorithms, 1975), so that a
    flood of one text costs one comparison each. Similarity and thresholds as in ``near_duplicates``.

    >>> families(["Rain is expected on Monday in Oslo.", "Sun in Rome", "RAIN is expected on  Monday in Oslo"])
    [0, 1, 0]
    """
    sets = [_shingles(text) for text in texts]
    leaders: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    found: list[int] = []
    for index, keys in enumerate(_bands(sets)):
        known = sorted({leader for key in keys for leader in leaders.get(key, ())})
        family = next((leader for leader in known if _jaccard(sets[index], sets[leader]) >= threshold), index)
        found.append(family)
        if family == index:
            for key in keys:
                leaders[key].append(index)
    return found


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(char if char.isalnum() else " " for char in folded).split()
    # a text of signs alone says what it says with them: a thumb up is not a thumb down
    return " ".join(words or folded.split())


def _shingles(text: str) -> Shingles:
    """The set of byte runs of a normalised text, as sorted numbers; a shorter text is one shingle, padded with zeros."""
    raw = np.frombuffer(_normal(text).encode("utf-8", "surrogatepass").ljust(_SHINGLE, b"\0"), dtype=np.uint8).astype(
        np.uint64
    )
    packed = np.zeros(len(raw) - _SHINGLE + 1, dtype=np.uint64)
    for place in range(_SHINGLE):
        packed |= raw[place : place + len(packed)] << np.uint64(8 * place)
    return np.unique(packed)


def _bands(sets: Sequence[Shingles]) -> list[list[tuple[int, bytes]]]:
    """Keys of each text: the number and content of every band of its MinHash signature (multiply-shift hashing)."""
    draw = np.random.default_rng(_SEED)
    count = _BANDS * _WIDTH
    factor = draw.integers(0, 2**63, count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offset = draw.integers(0, 2**63, count, dtype=np.uint64)
    keys = []
    for shingles in sets:
        mixed = shingles ^ (shingles >> np.uint64(23))
        hashed = (mixed[:, None] * factor[None, :] + offset[None, :]) >> np.uint64(32)
        signature = hashed.min(axis=0).reshape(_BANDS, _WIDTH)
        keys.append([(band, signature[band].tobytes()) for band in range(_BANDS)])
    return keys


def _jaccard(one: Shingles, two: Shingles) -> float:
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return shared / (len(one) + len(two) - shared)
