"""Nobody teaches alone: how much of a batch one untrusted source may be, and all young ones together."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from perennial.domain.origin import allowance
from perennial.selection.sent import Sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """What was left out. ``over_source``: beyond its sender's share; ``over_young``: beyond the share of all young senders.

    ``source_rows`` and ``young_rows`` are the shares in rows; None when the batch was too small for shares.
    """

    over_source: tuple[UUID, ...] = ()
    over_young: tuple[UUID, ...] = ()
    source_rows: int | None = None
    young_rows: int | None = None


def too_small(rows: int, share: float) -> bool:
    """Whether a share of so few rows is less than one row, and so means nothing.

    >>> too_small(49, 0.02), too_small(50, 0.02)
    (True, False)
    """
    return allowance(rows, share) < 1


def cap_sources(sent: Sequence[Sent], *, total: int, share: float, young_share: float, seed: int) -> Caps:
    """Which rows of untrusted senders are too many.

    ``total`` rows were claimed; each untrusted sender keeps ``share`` of that, all young ones together ``young_share``. The
    count of poisoned rows decides what they do, not how many honest ones stand beside them (Souly et al., Poisoning Attacks on
    LLMs Require a Near-constant Number of Poison Samples, 2025), so a sender's rows are bounded; and many new accounts of one
    attacker (Douceur, The Sybil Attack, 2002) share one bound. Of a sender stay its most urgent rows, then those with the
    smallest sha256 of seed and id, whatever importance they claim; young senders take turns.

    >>> from perennial.domain.example import TrainingRow
    >>> from perennial.domain.words import Source
    >>> def row(number, alias, young):
    ...     return Sent(row=TrainingRow(example_id=UUID(int=number), task="t", text="", label="a"), kind=Source.EXAMPLE,
    ...                 alias=alias, trusted=alias == "desk", young=young)
    >>> batch = [row(i, "desk", False) for i in range(80)] + [row(80 + i, f"new{i % 10}", True) for i in range(20)]
    >>> caps = cap_sources(batch, total=100, share=0.02, young_share=0.05, seed=1)
    >>> len(caps.over_source), len(caps.over_young), caps.source_rows, caps.young_rows
    (0, 15, 2, 5)
    """
    if too_small(total, share):
        return Caps()
    per_source, together = allowance(total, share), max(allowance(total, young_share), 1)
    queues: dict[str, list[Sent]] = defaultdict(list)
    for one in sent:
        if not one.trusted and not one.released:
            queues[one.alias].append(one)
    over_source: list[UUID] = []
    young: list[tuple[int, bytes, UUID]] = []
    for alias, queue in queues.items():
        queue.sort(key=lambda one: (-one.row.priority, _draw(seed, str(one.example_id))))
        over_source += [one.example_id for one in queue[per_source:]]
        turn = _draw(seed, alias)
        young += [(place, turn, one.example_id) for place, one in enumerate(queue[:per_source]) if one.young]
    young.sort(key=lambda item: item[:2])
    return Caps(
        over_source=tuple(over_source), over_young=tuple(identity for _, _, identity in young[together:]),
        source_rows=per_source, young_rows=together,
    )  # fmt: skip


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
