"""Whether a model serves every group alike: the gap between the best and the worst group of each field, from a stored gate report.

A report and no gate: the slices gate already holds what fell. The gap of accuracies is the simplest of the usual group measures
(overall accuracy equality; Verma and Rubin, "Fairness Definitions Explained", FairWare 2018); it needs no notion of a good label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FIELDS: Mapping[str, str] = {
    "label": "right answer", "source": "sender", "time": "time it was made", "stress": "kind of disturbed text"
}  # fmt: skip
PEOPLE = "groups of people"
NO_PEOPLE = "records carry no field that says which group of people a text is about or from"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """One field of one task. Shares lie between 0 and 1; ``why`` says what is missing where there is no gap, and is empty else.

    ``small`` groups had too few rows. ``champion`` is the champion's gap on the same groups, None without one.
    """

    task: str
    field: str
    groups: int = 0
    small: int = 0
    best: str = ""
    best_share: float | None = None
    worst: str = ""
    worst_share: float | None = None
    gap: float | None = None
    champion: float | None = None
    why: str = ""


def fairness(report: Mapping[str, Any]) -> tuple[Gap, ...]:
    """One line per task and field, in the order of the report; what is not there is said to be not measured.

    >>> lines = [{"kind": "label", "name": name, "rows": 40, "measured": True, "candidate": share, "champion": 0.8}
    ...          for name, share in (("sports", 0.9), ("world", 0.7))]
    >>> found = fairness({"tables": [{"task": "topic", "slices": lines}]})
    >>> found[0].worst, round(found[0].gap, 2), found[0].champion, [one.why[:7] for one in found[1:]]
    ('world', 0.2, 0.0, ['no grou', 'no grou', 'no grou', 'records'])
    """
    found: list[Gap] = []
    for table in report.get("tables") or ():
        task, slices = str(table.get("task", "")), table.get("slices") or ()
        found += [_gap(task, FIELDS[kind], [line for line in slices if line.get("kind") == kind]) for kind in FIELDS]
        found.append(Gap(task=task, field=PEOPLE, why=NO_PEOPLE))
    return tuple(found)


def _gap(task: str, field: str, lines: Sequence[Mapping[str, Any]]) -> Gap:
    measured = [line for line in lines if line.get("measured") and line.get("candidate") is not None]
    small = len(lines) - len(measured)
    if len(measured) < 2:
        few = "one group alone has" if measured else "no group has"
        told = f"{few} enough rows" if lines else "no group was told apart"
        return Gap(task=task, field=field, groups=len(measured), small=small, why=told)
    best = max(measured, key=lambda line: line["candidate"])
    worst = min(measured, key=lambda line: line["candidate"])
    before = [line["champion"] for line in measured if line.get("champion") is not None]
    return Gap(
        task=task, field=field, groups=len(measured), small=small, best=str(best["name"]), best_share=best["candidate"],
        worst=str(worst["name"]), worst_share=worst["candidate"], gap=best["candidate"] - worst["candidate"],
        champion=max(before) - min(before) if len(before) == len(measured) else None,
    )  # fmt: skip
