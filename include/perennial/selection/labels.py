"""Which labels a training may use: the champion's, in its order, and new ones with enough rows behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perennial.domain.example import TrainingRow


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelChoice:
    """``labels`` for the batch (the champion's first), which of them are ``new``, the ``rows`` to train on and those
    ``set_aside``.

    A non-empty ``new`` makes a major version. Rows set aside go back to the buffer and wait for company.
    """

    labels: tuple[str, ...]
    new: tuple[str, ...]
    rows: tuple[TrainingRow, ...]
    set_aside: tuple[TrainingRow, ...]


def choose_labels(
    rows: Sequence[TrainingRow], champion: Sequence[str], *, new_label_rows: int, closed: Sequence[str] | None = None
) -> LabelChoice:
    """Labels and rows of one classification batch.

    A closed label set (``Task.labels``) takes part as a whole from the start, and nothing else ever does. Otherwise a
    label that the champion does not know joins once ``new_label_rows`` of ``rows`` carry it; new labels follow the
    champion's, the most frequent first, then by name. Rows whose label is no text, or not among the chosen, are set
    aside; the order of ``rows`` is kept.

    >>> from uuid import UUID
    >>> rows = [TrainingRow(example_id=UUID(int=i), task="t", text="x", label=label) for i, label in enumerate("aabccc")]
    >>> choice = choose_labels(rows, ["z", "a"], new_label_rows=3)
    >>> choice.labels, choice.new, [row.label for row in choice.set_aside]
    (('z', 'a', 'c'), ('c',), ['b'])
    """
    known = tuple(champion)
    if closed is not None:
        joining = tuple(label for label in closed if label not in known)
    else:
        counts = Counter(row.label for row in rows if isinstance(row.label, str) and row.label not in known)
        often = [label for label, count in counts.items() if count >= new_label_rows]
        joining = tuple(sorted(often, key=lambda label: (-counts[label], label)))
    labels = known + joining
    permitted = set(labels)
    fits = [isinstance(row.label, str) and row.label in permitted for row in rows]
    return LabelChoice(
        labels=labels,
        new=joining,
        rows=tuple(row for row, fit in zip(rows, fits, strict=True) if fit),
        set_aside=tuple(row for row, fit in zip(rows, fits, strict=True) if not fit),
    )
