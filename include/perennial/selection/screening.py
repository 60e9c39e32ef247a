"""What of a batch may teach at once, what must wait, and why: the defences against poisoned data, in one place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.origin import LABEL_CONFLICT, NEAR_DUPLICATE_FLOOD, SELF_LABELLED_CAP, SOURCE_CAP
from perennial.selection.conflicts import against_trained, within
from perennial.selection.floods import floods
from perennial.selection.neighbours import families, near_duplicates
from perennial.selection.self_labels import cap_self_labelled
from perennial.selection.sent import Sent
from perennial.selection.source_caps import Caps, cap_sources

NO_CHAMPION = "first version: there is nothing to protect yet, every row may teach"
TOO_SMALL = "too few rows for a share per source to mean anything"
_NAMED = 20  # sources that a report names; the rest is one line


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How much one sender may teach; shares are of the claimed rows of a task, between 0 and 1."""

    source_share: float
    young_share: float
    near_duplicates: int
    self_labelled_share: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """``rows`` may teach now; ``aside`` holds the ids of the others by reason; ``report`` says it in counts, without texts or names."""

    rows: tuple[TrainingRow, ...]
    aside: Mapping[str, tuple[UUID, ...]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


def screen(sent: Sequence[Sent], trained: Sequence[Sent], rules: Rules, *, first_version: bool) -> Screening:
    """Judge the claimed rows of one task: floods, contradictions, self-made labels, then the shares of their senders.

    ``trained`` are recent rows of the champion's training. The first version learns from everything, and a batch of less than
    1 / ``source_share`` rows has no shares per sender; the report says both.

    >>> from perennial.domain.words import Source
    >>> rules = Rules(source_share=0.02, young_share=0.05, near_duplicates=5, self_labelled_share=0.1, seed=1)
    >>> batch = [Sent(row=TrainingRow(example_id=UUID(int=i), task="t", text=str(i) * 9, label="a"), kind=Source.EXAMPLE,
    ...               alias="eve" if i < 30 else "desk", trusted=i >= 30, young=False) for i in range(100)]
    >>> result = screen(batch, [], rules, first_version=False)
    >>> len(result.rows), {reason: len(ids) for reason, ids in result.aside.items()}
    (72, {'source_cap': 28})
    """
    if first_version:
        return Screening(
            rows=tuple(one.row for one in sent), report=_report(sent, (), {}, Caps(), rules, exempt=[NO_CHAMPION])
        )
    aside: dict[str, tuple[UUID, ...]] = {}
    kinds = families([one.row.text for one in sent])
    left = _without(sent, aside, NEAR_DUPLICATE_FLOOD, floods(sent, kinds, most=rules.near_duplicates))
    family_of = {one.example_id: family for one, family in zip(sent, kinds, strict=True)}
    contradicted = {*within(left, [family_of[one.example_id] for one in left]), *_against(left, trained)}
    left = _without(left, aside, LABEL_CONFLICT, contradicted)
    own = cap_self_labelled(left, total=len(sent), share=rules.self_labelled_share)
    left = _without(left, aside, SELF_LABELLED_CAP, own)
    caps = cap_sources(left, total=len(sent), share=rules.source_share, young_share=rules.young_share, seed=rules.seed)
    left = _without(left, aside, SOURCE_CAP, (*caps.over_source, *caps.over_young))
    exempt = [TOO_SMALL] if sent and caps.source_rows is None else []
    report = _report(sent, left, aside, caps, rules, exempt=exempt)
    return Screening(rows=tuple(one.row for one in left), aside=aside, report=report)


def _against(sent: Sequence[Sent], trained: Sequence[Sent]) -> tuple[UUID, ...]:
    """Contradictions with what was trained; corrections are free, so an urgent batch of nothing else costs no comparison."""
    asked = [one for one in sent if not one.urgent and not one.released]
    if not asked or not trained:
        return ()
    pairs = near_duplicates([one.row.text for one in asked], [one.row.text for one in trained])
    return against_trained(asked, trained, pairs)


def _without(
    sent: Sequence[Sent], aside: dict[str, tuple[UUID, ...]], reason: str, ids: Collection[UUID]
) -> tuple[Sent, ...]:
    gone = set(ids)
    if gone:
        aside[reason] = tuple(one.example_id for one in sent if one.example_id in gone)
    return tuple(one for one in sent if one.example_id not in gone)


def _report(
    sent: Sequence[Sent],
    left: Sequence[Sent],
    aside: Mapping[str, Sequence[UUID]],
    caps: Caps,
    rules: Rules,
    *,
    exempt: list[str],
) -> dict[str, Any]:
    kept = Counter(one.alias for one in (left if exempt != [NO_CHAMPION] else sent))
    given = Counter(one.alias for one in sent)
    first = {one.alias: one for one in reversed(sent)}
    often = sorted(given, key=lambda alias: (-given[alias], alias))
    sources = [
        {
            "source": alias, "rows": given[alias], "kept": kept[alias], "trusted": first[alias].trusted,
            "young": first[alias].young, "kind": first[alias].kind.value,
        }
        for alias in often[:_NAMED]
    ]  # fmt: skip
    return {
        "rows": len(sent), "kept": sum(kept.values()), "exempt": exempt,
        "held": {reason: len(ids) for reason, ids in aside.items()},
        "over_source": len(caps.over_source), "over_young": len(caps.over_young),
        "source_rows": caps.source_rows, "young_rows": caps.young_rows,
        "source_share": rules.source_share, "young_share": rules.young_share,
        "trusted": sum(one.trusted for one in sent), "released": sum(one.released for one in sent),
        "self_labelled": sum(one.self_labelled for one in sent),
        "sources": sources, "more_sources": max(len(given) - _NAMED, 0),
    }  # fmt: skip
