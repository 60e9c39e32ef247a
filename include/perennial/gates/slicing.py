"""Parts of the holdout that an overall accuracy hides, and one family of tests over all of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.domain.words import TaskKind
from perennial.gates.gate import GateSettings
from perennial.gates.intervals import paired_interval
from perennial.gates.mcnemar import holm, worse_p
from perennial.gates.paired_means import worse_mean_p
from perennial.gates.scores import Evaluation, TaskScores, column_problems, label_slices, mean, problems

FALSE_ALARMS = 0.02  # of one evaluation, all slices of all tasks together; the whole holdout has the rest of 5 %
LABELS_SHARE = 0.5  # of that budget goes to the labels, at which attacks aim; all other kinds share the rest
NAMED_GROUPS = ("recent", "stress", "old")  # each reported by itself, with rows or with the reason why not
_MONTHS = 6  # the newest calendar months that have enough rows are slices of their own


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """One part of a task's holdout with both models' scores. ``kind``: label, time, batch, source, forgetting, stress."""

    kind: str
    name: str
    candidate: tuple[float, ...]
    champion: tuple[float, ...] | None

    @property
    def title(self) -> str:
        """As people read it.

        >>> Slice(kind="label", name="sports", candidate=(), champion=None).title
        "label 'sports'"
        """
        return f"{self.kind} {self.name!r}"


def slices_of(scores: TaskScores, settings: GateSettings) -> list[Slice]:
    """Every slice of one task, whatever its size; the rules are those of docs/trust.md.

    label: the rows of each label. batch: rows that an earlier training counted already, whole and for each label that
    new rows joined. time: ``recent`` (the newest third, ``performance_window`` rows at most), ``old`` (the oldest
    third), and calendar months. source: each sender with ``slice_rows`` rows. forgetting: labels without a row in this
    batch. stress: each kind of disturbed text. Slices that would be the whole holdout are left out.
    """
    found = [_rows(scores, "label", label, rows) for label, rows in sorted(scores.slices.items())]
    found += _batch(scores, settings) + _time(scores, settings) + _source(scores, settings) + _forgetting(scores)
    for kind, given in sorted((scores.stress or {}).items()):
        found.append(Slice(kind="stress", name=kind, candidate=given.candidate or (), champion=given.champion))
    return found


def _rows(scores: TaskScores, kind: str, name: str, rows: Sequence[int]) -> Slice:
    candidate = scores.candidate or ()
    return Slice(
        kind=kind, name=name, candidate=tuple(candidate[row] for row in rows),
        champion=None if scores.champion is None else tuple(scores.champion[row] for row in rows),
    )  # fmt: skip


def _batch(scores: TaskScores, settings: GateSettings) -> list[Slice]:
    before = {row for row, known in enumerate(scores.earlier) if known}
    if not before or len(before) == scores.rows:
        return []
    found = [_rows(scores, "batch", "before this batch", sorted(before))]
    for label, rows in label_slices(scores.labels).items():
        kept = [row for row in rows if row in before]
        if settings.slice_rows <= len(kept) < len(rows):
            found.append(_rows(scores, "batch", f"label {label} before this batch", kept))
    return found


def time_problem(scores: TaskScores) -> str | None:
    """Why old and recent rows cannot be told apart; None when they can."""
    known = [time for time in scores.times if time is not None]
    if len(known) < 3 or len(known) != scores.rows:
        return "not every row says when it was made"
    newest = sorted(known)
    third = len(newest) // 3
    return None if newest[third - 1] < newest[-third] else "the rows were all made at about the same time"


def _time(scores: TaskScores, settings: GateSettings) -> list[Slice]:
    if time_problem(scores):
        return []
    moments = [time.timestamp() for time in scores.times if time is not None]
    order = sorted(range(scores.rows), key=lambda row: (moments[row], scores.ids[row]))
    third = scores.rows // 3
    newest = min(third, settings.performance_window)
    found = [_rows(scores, "time", "recent", order[-newest:]), _rows(scores, "time", "old", order[:third])]
    months: dict[str, list[int]] = defaultdict(list)
    for row, time in enumerate(scores.times):
        months[f"{time:%Y-%m}"].append(row)
    for month in sorted(months)[-_MONTHS:]:
        if settings.slice_rows <= len(months[month]) < scores.rows:
            found.append(_rows(scores, "time", month, months[month]))
    return found


def _source(scores: TaskScores, settings: GateSettings) -> list[Slice]:
    by_source: dict[str, list[int]] = defaultdict(list)
    for row, source in enumerate(scores.sources):
        by_source[source].append(row)
    large = {source: rows for source, rows in by_source.items() if len(rows) >= settings.slice_rows}
    found = [_rows(scores, "source", source, rows) for source, rows in sorted(large.items()) if len(rows) < scores.rows]
    rest = sorted(row for source, rows in by_source.items() if source not in large for row in rows)
    return found + ([_rows(scores, "source", "the small ones together", rest)] if large and rest else [])


def _forgetting(scores: TaskScores) -> list[Slice]:
    if scores.kind is TaskKind.SCORE or not scores.batch_labels:
        return []
    rows = [row for row, label in enumerate(scores.labels) if label not in scores.batch_labels]
    return [_rows(scores, "forgetting", "labels not in this batch", rows)] if 0 < len(rows) < scores.rows else []


def slice_problem(scores: TaskScores) -> str | None:
    """Why a task's slices cannot be judged: one is missing, or does not hold what its name says."""
    task = scores.task
    expected = label_slices(scores.labels) if scores.kind is TaskKind.CLASSIFICATION else {}
    missing = [label for label in expected if label not in scores.slices]
    if missing or (scores.kind is TaskKind.CLASSIFICATION and not expected):
        return f"{task}: no slice for label(s) {', '.join(missing) or '(no row has a label)'}"
    for label, rows in scores.slices.items():
        if any(not 0 <= row < scores.rows for row in rows):
            return f"{task}: the slice {label!r} names rows that the holdout does not have"
        if label in expected and set(rows) != set(expected[label]):  # other names are slices of another kind
            return f"{task}: the slice {label!r} does not hold exactly the rows of its label"
    if scores.stress is None:
        return f"{task}: the answers to disturbed texts were not measured"
    for kind, given in scores.stress.items():
        wrong = column_problems(task, f"candidate on {kind}", scores.kind, given.candidate, len(given.ids))
        if scores.champion is not None:
            wrong += column_problems(task, f"champion on {kind}", scores.kind, given.champion, len(given.ids))
        if wrong:
            return wrong[0]
    return None


def family(evaluation: Evaluation, settings: GateSettings) -> dict[str, list[dict[str, Any]]]:
    """One line per slice and task: rows, both means, and for a measured slice the difference with its p values.

    ``p``: one-sided, of so large a drop in this slice if the candidate were as good as the champion there (McNemar's
    mid-p test for labels, ``worse_mean_p`` for numbers). ``p_family``: the same, adjusted by Holm's method over every
    measured slice of every task, so that many slices do not make noise look like harm; labels have half of the budget.
    ``low`` and ``high`` bound the
    difference with Bonferroni's simultaneous confidence.
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    open_lines: list[tuple[dict[str, Any], TaskKind, Slice]] = []
    for scores in evaluation.tasks:
        if problems(scores) or slice_problem(scores):
            continue
        tables[scores.task] = lines = []
        for one in slices_of(scores, settings):
            wide = len(one.candidate) >= settings.slice_rows
            line: dict[str, Any] = {
                "kind": one.kind, "name": one.name, "title": one.title, "rows": len(one.candidate), "measured": wide,
                "candidate": _share(one.candidate), "champion": None if one.champion is None else _share(one.champion),
            }  # fmt: skip
            lines.append(line)
            if wide and one.champion is not None:
                open_lines.append((line, scores.kind, one))
    raw = [_worse_p(kind, one.champion or (), one.candidate) for _, kind, one in open_lines]
    confidence = 1.0 - FALSE_ALARMS / max(len(raw), 1)
    weights = _weights([one.kind == "label" for _, _, one in open_lines])
    for (line, kind, one), p, adjusted in zip(open_lines, raw, holm(raw, weights), strict=True):
        interval = paired_interval(kind, one.champion or (), one.candidate, confidence=confidence)
        line.update({**interval.as_dict(), "p": round(p, 6), "p_family": round(adjusted, 6), "family": len(raw)})
    return tables


def _weights(labels: Sequence[bool]) -> list[float]:
    count = sum(labels)
    if not 0 < count < len(labels):
        return [1.0] * len(labels)
    return [LABELS_SHARE / count if label else (1.0 - LABELS_SHARE) / (len(labels) - count) for label in labels]


def _worse_p(kind: TaskKind, champion: Sequence[float], candidate: Sequence[float]) -> float:
    if kind is TaskKind.SCORE:
        return worse_mean_p(champion, candidate)
    return worse_p(*gains_and_losses(champion, candidate))


def gains_and_losses(champion: Sequence[float], candidate: Sequence[float]) -> tuple[int, int]:
    """Rows that only the candidate, and rows that only the champion answers right.

    >>> gains_and_losses([1.0, 0.0, 1.0], [1.0, 1.0, 0.0])
    (1, 1)
    """
    pairs = list(zip(champion, candidate, strict=True))
    return sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)


def named_groups(scores: TaskScores, lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """``recent``, ``stress`` and ``old`` by themselves: rows and means, or ``missing`` with the reason.

    ``stress`` averages over its kinds of disturbance, each on the same number of rows.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in NAMED_GROUPS:
        parts = [line for line in lines if line["kind"] == "stress"] if name == "stress" else [
            line for line in lines if line["kind"] == "time" and line["name"] == name
        ]  # fmt: skip
        parts = [line for line in parts if line["rows"]]
        if not parts:
            why = "switched off (stress_rows 0), or no rows" if name == "stress" else time_problem(scores)
            found[name] = {"missing": why or "no rows"}
            continue
        found[name] = {"rows": sum(line["rows"] for line in parts)} | {
            who: _average([line[who] for line in parts]) for who in ("champion", "candidate")
        }
    return found


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return round(math.fsum(known) / len(known), 6) if len(known) == len(values) else None


def _share(values: Sequence[float]) -> float | None:
    return round(mean(values), 6) if values else None
