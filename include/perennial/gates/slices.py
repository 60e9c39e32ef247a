"""Did any label suffer?"""

from __future__ import annotations

from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction, TaskKind
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, points
from perennial.gates.intervals import paired_interval
from perennial.gates.scores import Evaluation, TaskScores, label_slices

NAME = "slices"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Hold when the recall of a label falls by more than ``max_slice_drop`` and the interval of its drop excludes 0.

    An overall accuracy hides a targeted attack: 10 % flipped labels of one topic cost 0.5 points overall and 10
    there. A label with fewer than ``slice_rows`` rows is said not to be measured; when no label of a task can be
    measured, a person decides. All slices of one evaluation share its 5 % of false alarms (Bonferroni), so many
    labels do not make noise look like harm.
    """
    confidence = slice_confidence(evaluation, settings)

    def ask(scores: TaskScores, settings: GateSettings) -> Finding:
        return _ask(scores, settings, confidence, first=evaluation.champion is None)

    return per_task(NAME, evaluation, settings, ask)


def slice_confidence(evaluation: Evaluation, settings: GateSettings) -> float:
    """Confidence of each slice's interval, so that all measured slices together raise a false alarm in 5 % at most."""
    measured = sum(len(rows) >= settings.slice_rows for scores in evaluation.tasks for rows in scores.slices.values())
    return 1.0 - 0.05 / max(measured, 1)


def slice_table(scores: TaskScores, settings: GateSettings, confidence: float) -> list[dict[str, Any]]:
    """One line per label: rows, recall of both models, and the difference with its interval where it was measured."""
    table = []
    for label, rows in sorted(scores.slices.items()):
        wide = len(rows) >= settings.slice_rows
        new = [(scores.candidate or ())[row] for row in rows]
        old = [scores.champion[row] for row in rows] if scores.champion is not None else None
        line: dict[str, Any] = {
            "label": label, "rows": len(rows), "measured": wide,
            "candidate": _recall(new), "champion": None if old is None else _recall(old),
        }  # fmt: skip
        if old is not None and wide:
            line.update(paired_interval(scores.kind, old, new, confidence=confidence).as_dict())
        table.append(line)
    return table


def _recall(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 6) if values else None


def _ask(scores: TaskScores, settings: GateSettings, confidence: float, *, first: bool) -> Finding:
    task = scores.task
    if scores.kind is TaskKind.SCORE:
        return Finding(task=task, action=GateAction.PASS, sentence=f"{task}: a score task has no labels")
    wrong = slice_problem(scores)
    if wrong:
        return Finding(task=task, action=GateAction.HOLD, sentence=wrong, unmeasured=(wrong,))
    if scores.champion is None and not first and scores.baselines is None:
        sentence = f"{task}: the champion's slices were not measured"
        return Finding(task=task, action=GateAction.HOLD, sentence=sentence, unmeasured=(sentence,))
    table = slice_table(scores, settings, confidence)
    small = tuple(f"{task}: label {line['label']!r} ({line['rows']} rows)" for line in table if not line["measured"])
    action, sentence = _judge(scores, table, settings)
    return Finding(task=task, action=action, sentence=sentence, evidence={"slices": table}, unmeasured=small)


def slice_problem(scores: TaskScores) -> str | None:
    """Why a label task's slices cannot be judged: one is missing, or does not hold exactly its label's rows."""
    expected = label_slices(scores.labels)
    missing = [label for label in expected if label not in scores.slices]
    if missing or not expected:
        return f"{scores.task}: no slice for label(s) {', '.join(missing) or '(no row has a label)'}"
    for label, rows in scores.slices.items():
        if any(not 0 <= row < scores.rows for row in rows):
            return f"{scores.task}: the slice {label!r} names rows that the holdout does not have"
        if label in expected and set(rows) != set(expected[label]):  # other names are slices of another kind
            return f"{scores.task}: the slice {label!r} does not hold exactly the rows of its label"
    return None


def _judge(scores: TaskScores, table: list[dict[str, Any]], settings: GateSettings) -> tuple[GateAction, str]:
    task = scores.task
    if scores.champion is None:
        return GateAction.PASS, f"{task}: no champion to compare slices with"
    measured = [line for line in table if line["measured"]]
    if not measured:
        sentence = f"{task}: no label has {settings.slice_rows} rows, so no slice was measured; a person decides"
        return GateAction.APPROVE, sentence
    fallen = [line for line in measured if -line["difference"] > settings.max_slice_drop and line["high"] < 0]
    if fallen:
        told = ", ".join(f"{line['label']!r} {points(line['difference'])} on {line['rows']} rows" for line in fallen)
        return GateAction.HOLD, f"{task}: recall fell for {told}"
    return GateAction.PASS, f"{task}: no label fell among {len(measured)} measured of {len(table)}"


GATE = Gate(name=NAME, question="Did the recall of any label fall?", evaluate=evaluate)
