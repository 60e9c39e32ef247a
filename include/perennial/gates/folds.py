"""Which rows stand together when k trainings take turns in leaving some out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from perennial.domain.example import TrainingRow


def folds(rows: Sequence[TrainingRow], k: int) -> list[list[TrainingRow]]:
    """``k`` parts of nearly equal size with the labels spread evenly, ordered by digests of the ids: no chance in it.

    R. Kohavi, "A study of cross-validation and bootstrap for accuracy estimation and model selection", IJCAI 1995.
    ValueError with fewer than two rows per part.

    >>> from uuid import UUID
    >>> rows = [TrainingRow(example_id=UUID(int=n), task="t", text="x", label="ab"[n % 2]) for n in range(10)]
    >>> [sorted(row.label for row in part) for part in folds(rows, 5)]
    [['a', 'b'], ['a', 'b'], ['a', 'b'], ['a', 'b'], ['a', 'b']]
    """
    if len(rows) < 2 * k:
        raise ValueError(f"{len(rows)} rows are too few for {k} folds")
    by_label: dict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        by_label[str(row.label) if isinstance(row.label, str) else ""].append(row)
    ordered = [
        row
        for label in sorted(by_label)
        for row in sorted(by_label[label], key=lambda row: hashlib.sha256(row.example_id.bytes).digest())
    ]
    return [ordered[start::k] for start in range(k)]
