"""One text in many almost equal copies counts as often as a few of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from perennial.domain.words import JSON
from perennial.selection.sent import Sent


def floods(sent: Sequence[Sent], families: Sequence[int], *, most: int) -> tuple[UUID, ...]:
    """Ids of the rows beyond ``most`` of one family of near duplicates with one label; 0 switches it off.

    ``families`` names each row's family (``neighbours.families``). Whoever sent them: a flood is a matter of texts, and repeats
    weigh a text as no single row may. Urgent corrections stay first, then the order of ``sent``; scores count in tenths; rows
    that a person released are not counted.

    >>> from perennial.domain.example import TrainingRow
    >>> from perennial.domain.words import Source
    >>> def row(number, label):
    ...     return Sent(row=TrainingRow(example_id=UUID(int=number), task="t", text="", label=label), kind=Source.EXAMPLE,
    ...                 alias="x", trusted=True, young=False)
    >>> [identity.int for identity in floods([row(1, "a"), row(2, "a"), row(3, "b"), row(4, "a")], [0, 0, 0, 0], most=2)]
    [4]
    """
    if most <= 0:
        return ()
    counted: Counter[tuple[int, str]] = Counter()
    surplus: list[UUID] = []
    places = sorted(range(len(sent)), key=lambda place: (not sent[place].urgent, place))
    for place in places:
        one = sent[place]
        if one.released:
            continue
        key = (families[place], _label(one.row.label))
        counted[key] += 1
        if counted[key] > most:
            surplus.append(one.example_id)
    return tuple(surplus)


def _label(label: JSON) -> str:
    number = isinstance(label, int | float) and not isinstance(label, bool)
    return f"{round(label, 1):.1f}" if number else str(label)
