"""Score tables: how right champion and candidate are on each row of the same frozen holdout."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perennial.domain.words import JSON, Mode, Reason, TaskKind

SCORE_TOLERANCE = 0.1  # a number counts as right when it is this close to the wanted one


def row_score(kind: TaskKind, output: JSON, label: JSON) -> float:
    """How right one answer is, in [0, 1]: 1 or 0 for a label, 1 - |error| for a number.

    An answer that is no finite number scores NaN, which every gate holds. ValueError when the label itself is no
    number.

    >>> row_score(TaskKind.CLASSIFICATION, "sports", "sports"), round(row_score(TaskKind.SCORE, 0.4, 0.7), 6)
    (1.0, 0.7)
    """
    if kind is TaskKind.CLASSIFICATION:
        return 1.0 if str(output) == str(label) else 0.0
    wanted, given = _number(label), _number(output)
    if not math.isfinite(wanted):
        raise ValueError("the label of a score row is not a number; such a row belongs in quarantine")
    return max(0.0, 1.0 - abs(given - wanted)) if math.isfinite(given) else math.nan


def _number(value: JSON) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def is_right(kind: TaskKind, score: float) -> bool:
    """Whether a row counts as answered right: the very label, or a number within ``SCORE_TOLERANCE``.

    >>> is_right(TaskKind.SCORE, 0.92), is_right(TaskKind.SCORE, 0.85), is_right(TaskKind.CLASSIFICATION, 1.0)
    (True, False, True)
    """
    return score >= (1.0 if kind is TaskKind.CLASSIFICATION else 1.0 - SCORE_TOLERANCE)


def label_slices(labels: Sequence[str | None]) -> dict[str, tuple[int, ...]]:
    """Row indices by true label; rows without one (score tasks) are in no slice.

    >>> label_slices(["a", "b", "a", None])
    {'a': (0, 2), 'b': (1,)}
    """
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        if label is not None:
            found.setdefault(label, []).append(index)
    return {label: tuple(found[label]) for label in sorted(found)}


@dataclass(frozen=True, kw_only=True, slots=True)
class RowScores:
    """Scores of rows outside the holdout, in the order of ``ids``; None: not measured."""

    ids: tuple[str, ...] = ()
    candidate: tuple[float, ...] | None = ()
    champion: tuple[float, ...] | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> RowScores:
        """Read one of the evaluation's side tables; a missing table has no rows and no measurement."""
        if record is None:
            return cls(candidate=None)
        return cls(
            ids=tuple(record.get("ids", ())),
            candidate=_floats(record.get("candidate")), champion=_floats(record.get("champion")),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """The best of the recent versions, on the same holdout. ``scores`` None: it is the champion itself.

    ``problem``: why it could not be asked, in which case nothing is known.
    """

    version: str | None = None
    scores: tuple[float, ...] | None = None
    looked_at: int = 1  # versions of the window, the champion among them
    problem: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Reference | None:
        """Read the evaluation's JSON; None when nobody looked."""
        if record is None:
            return None
        return cls(
            version=record.get("version"), scores=_floats(record.get("scores")),
            looked_at=int(record.get("looked_at", 1)), problem=str(record.get("problem", "")),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class KFold:
    """What k trainings on k - 1 parts each say of the rows that they did not see; shares between 0 and 1."""

    folds: tuple[float, ...] = ()
    rows: int = 0
    problem: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> KFold | None:
        """Read the evaluation's JSON; None when it was not asked for."""
        if record is None:
            return None
        folds = _floats(record.get("folds")) or ()
        return cls(folds=folds, rows=int(record.get("rows", 0)), problem=str(record.get("problem", "")))

    @property
    def measured(self) -> bool:
        """Whether there is an estimate."""
        return len(self.folds) > 1 and not self.problem and all(math.isfinite(value) for value in self.folds)

    @property
    def mean(self) -> float:
        """Average over the folds."""
        return mean(self.folds)

    @property
    def sd(self) -> float:
        """Sample standard deviation over the folds.

        >>> round(KFold(folds=(0.8, 0.9, 1.0), rows=30).sd, 6)
        0.1
        """
        return statistics.stdev(self.folds)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScores:
    """Both models on the holdout of one task; ``ids``, ``labels``, ``candidate`` and ``champion`` run in step.

    ``champion`` None: there is none for this task (then ``baselines`` holds accuracies to beat). ``slices`` maps a
    label to the indices of its rows. ``corrections`` are those of this batch, ``regression`` the urgent ones of
    earlier batches. ``times``, ``sources`` and ``earlier`` run in step with ``ids`` where they are known: when a row
    was made, a pseudonym of who sent it, and whether it was counted by an earlier training (it did not come with this
    batch). ``stress`` holds answers to disturbed texts by kind of disturbance; None: not measured. ``metrics`` holds
    macro F1 and its sisters by model.
    """

    task: str
    kind: TaskKind
    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    candidate: tuple[float, ...] | None
    champion: tuple[float, ...] | None = None
    slices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    corrections: RowScores = RowScores()
    regression: RowScores = RowScores(champion=())
    baselines: Mapping[str, float] | None = None
    times: tuple[datetime | None, ...] = ()
    sources: tuple[str, ...] = ()
    earlier: tuple[bool, ...] = ()
    batch_labels: tuple[str, ...] = ()
    stress: Mapping[str, RowScores] | None = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    k_fold: KFold | None = None
    reference: Reference | None = Reference()

    @classmethod
    def from_record(cls, task: str, record: Mapping[str, Any]) -> TaskScores:
        """Read one task of the evaluation's JSON (keys as the fields.

        ``slices`` are made from the labels when absent).
        """
        labels = tuple(None if label is None else str(label) for label in record.get("labels", ()))
        given = record.get("slices")
        slices = label_slices(labels) if given is None else {name: tuple(rows) for name, rows in given.items()}
        baselines = record.get("baselines")
        return cls(
            task=task, kind=TaskKind(record["kind"]), ids=tuple(record.get("ids", ())), labels=labels,
            candidate=_floats(record.get("candidate")), champion=_floats(record.get("champion")), slices=slices,
            corrections=RowScores.from_record(record.get("corrections")),
            regression=RowScores.from_record(record.get("regression")),
            baselines=None if baselines is None else dict(baselines),
            times=tuple(datetime.fromisoformat(time) if time else None for time in record.get("times", ())),
            sources=tuple(record.get("sources", ())), earlier=tuple(record.get("earlier", ())),
            batch_labels=tuple(record.get("batch_labels", ())), stress=_stress(record.get("stress")),
            metrics=dict(record.get("metrics") or {}), k_fold=KFold.from_record(record.get("k_fold")),
            reference=Reference.from_record(record.get("reference")),
        )  # fmt: skip

    @property
    def rows(self) -> int:
        """Rows of the holdout."""
        return len(self.ids)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All that the gates may look at. ``champion`` None: the agent has no serving version.

    ``unchanged`` tasks were not trained: the candidate carries the champion's own files, so there is nothing to
    compare. ``earlier_versions``: some version was champion before, so this cannot be the first. ``mode`` None: it
    was not recorded. ``reason``: why the training started; ``why``: what a person who asked for it said.
    """

    tasks: tuple[TaskScores, ...]
    champion: str | None
    unchanged: tuple[str, ...] = ()
    earlier_versions: bool = False
    mode: Mode | None = Mode.ONLINE
    reason: Reason | None = None
    why: str = ""
    new_labels: tuple[str, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, earlier_versions: bool) -> Evaluation:
        """Read the evaluation's JSON (``champion``, ``tasks``, ``unchanged``, ``mode``, ``reason``, ``why``)."""
        mode, reason = record.get("mode"), record.get("reason")
        return cls(
            tasks=tuple(TaskScores.from_record(name, scores) for name, scores in sorted(record["tasks"].items())),
            champion=record["champion"], unchanged=tuple(record.get("unchanged", ())),
            earlier_versions=earlier_versions, mode=Mode(mode) if mode else None,
            reason=Reason(reason) if reason else None, why=str(record.get("why", "")),
            new_labels=tuple(record.get("new_labels", ())),
        )  # fmt: skip


def problems(scores: TaskScores) -> list[str]:
    """What is missing or malformed in the holdout table of one task; empty when it can be judged.

    >>> problems(TaskScores(task="t", kind=TaskKind.CLASSIFICATION, ids=("1",), labels=("a",), candidate=None))
    ['t: the candidate was not measured']
    """
    found: list[str] = []
    if scores.rows == 0:
        found.append(f"{scores.task}: the holdout has no rows")
    if len(set(scores.ids)) != len(scores.ids) or len(scores.labels) != len(scores.ids):
        found.append(f"{scores.task}: ids and labels of the holdout do not belong together")
    for name, column in (("times", scores.times), ("sources", scores.sources), ("earlier", scores.earlier)):
        if column and len(column) != len(scores.ids):
            found.append(f"{scores.task}: {name} has {len(column)} values for {scores.rows} rows")
    found += column_problems(scores.task, "candidate", scores.kind, scores.candidate, scores.rows)
    if scores.champion is not None:
        found += column_problems(scores.task, "champion", scores.kind, scores.champion, scores.rows)
    return found


def column_problems(task: str, who: str, kind: TaskKind, values: Sequence[float] | None, rows: int) -> list[str]:
    """Why a column of scores cannot be used.

    Absent, of another length, not finite, out of [0, 1], or not 0/1 for labels.
    """
    if values is None:
        return [f"{task}: the {who} was not measured"]
    if len(values) != rows:
        return [f"{task}: {who} has {len(values)} scores for {rows} rows"]
    if kind is TaskKind.CLASSIFICATION and set(values) <= {0.0, 1.0}:
        return []
    if any(not math.isfinite(value) or not 0.0 <= value <= 1.0 for value in values):
        return [f"{task}: {who} has scores that are not between 0 and 1"]
    if kind is TaskKind.CLASSIFICATION and any(value not in (0.0, 1.0) for value in values):
        return [f"{task}: {who} has scores other than right or wrong"]
    return []


def is_finite(value: object) -> bool:
    """Whether this is a number that can be compared.

    >>> is_finite(0.5), is_finite(None), is_finite(float("nan"))
    (True, False, False)
    """
    return isinstance(value, int | float) and math.isfinite(value)


def mean(values: Sequence[float]) -> float:
    """Average of at least one value."""
    return math.fsum(values) / len(values)


def _stress(record: Mapping[str, Any] | None) -> dict[str, RowScores] | None:
    return None if record is None else {kind: RowScores.from_record(scores) for kind, scores in record.items()}


def _floats(values: Sequence[float | None] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(math.nan if value is None else float(value) for value in values)
