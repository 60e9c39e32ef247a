"""Which old rows an update replays: spread over the labels, corrections first, the same for the same seed in any
order of input.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from perennial.domain.example import TrainingRow


def stratified_replay(
    rows: Iterable[TrainingRow], size: int, *, seed: int, floor: float = 0.5, corrections: float = 0.25
) -> tuple[TrainingRow, ...]:
    """At most ``size`` rows: up to a share ``corrections`` are corrections, the rest is spread over the labels.

    A share ``floor`` of the places goes to the labels in equal parts (a rare label keeps a voice), the others by
    frequency. Within a label the rows with the smallest sha256 of seed and id win: a reservoir sample in one pass,
    which does not depend on the order of ``rows`` (Vitter, Random Sampling with a Reservoir, 1985; bottom-k form).
    Scores count as five bands.

    >>> from uuid import UUID
    >>> rows = [TrainingRow(example_id=UUID(int=i), task="t", text=str(i), label="ab"[i < 90]) for i in range(100)]
    >>> chosen = stratified_replay(rows, 20, seed=1)
    >>> len(chosen), sum(row.label == "a" for row in chosen)
    (20, 6)
    """
    if size <= 0:
        return ()
    groups: dict[str, list[TrainingRow]] = defaultdict(list)
    urgent: list[TrainingRow] = []
    for row in rows:
        (urgent if row.correction else groups[_stratum(row.label)]).append(row)
    chosen = _smallest(urgent, min(len(urgent), int(size * corrections)), seed)
    taken = {row.example_id for row in chosen}
    for row in urgent:
        if row.example_id not in taken:
            groups[_stratum(row.label)].append(row)
    places = share_out({label: len(group) for label, group in groups.items()}, size - len(chosen), floor)
    for label in sorted(places):
        chosen += _smallest(groups[label], places[label], seed)
    return tuple(sorted(chosen, key=lambda row: _key(row, seed)))


def share_out(counts: Mapping[str, int], size: int, floor: float) -> dict[str, int]:
    """Places per label: first equal parts of ``floor * size``, then by frequency; never more than there are rows.

    >>> share_out({"a": 90, "b": 10}, 20, 0.5), share_out({"a": 90, "b": 2}, 20, 0.5), share_out({"a": 3, "b": 2}, 20, 0.5)
    ({'a': 14, 'b': 6}, {'a': 18, 'b': 2}, {'a': 3, 'b': 2})
    """
    size = min(size, sum(counts.values()))
    if not size:
        return dict.fromkeys(counts, 0)
    total = sum(counts.values())
    wish = {label: floor * size / len(counts) + (1.0 - floor) * size * count / total for label, count in counts.items()}
    places = {label: min(counts[label], int(part)) for label, part in wish.items()}
    while (free := size - sum(places.values())) > 0:
        open_labels = [label for label in counts if places[label] < counts[label]]
        # who is furthest below the wish comes first; the name settles ties
        for label in sorted(open_labels, key=lambda name: (places[name] - wish[name], name))[:free]:
            places[label] += 1
    return places


def _stratum(label: object) -> str:
    if isinstance(label, int | float) and not isinstance(label, bool):
        return f"band {min(4, int(5 * label))}"
    return str(label)


def _smallest(rows: Sequence[TrainingRow], count: int, seed: int) -> list[TrainingRow]:
    return sorted(rows, key=lambda row: _key(row, seed))[:count]


def _key(row: TrainingRow, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{row.example_id}".encode()).digest()
