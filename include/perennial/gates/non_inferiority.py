"""Is the candidate no worse than the champion?"""

from __future__ import annotations

from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, percent, points
from perennial.gates.intervals import Interval, paired_interval
from perennial.gates.scores import Evaluation, TaskScores, mean

NAME = "non_inferiority"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Compare both models on the same rows, task by task.

    Hold when the drop exceeds ``rollback_threshold`` and the 95 % paired interval excludes 0. Hold as inconclusive
    when the interval reaches below minus twice the threshold, since the data then cannot rule a bad drop out; with
    fewer than ``min_holdout`` rows the inconclusive case asks a person instead, because so few rows can hardly ever
    be conclusive. A task that the champion never knew has no champion to compare with: the bootstrap gate asks about
    it. Rows that came in with the batch are as clean or as poisoned as the batch; how the others fare is told here and
    judged among the slices.
    """

    def ask(scores: TaskScores, settings: GateSettings) -> Finding:
        return _ask(scores, settings, first=evaluation.champion is None)

    return per_task(NAME, evaluation, settings, ask)


def _ask(scores: TaskScores, settings: GateSettings, *, first: bool) -> Finding:
    task = scores.task
    if scores.champion is None:
        if first or scores.baselines is not None:
            sentence = f"{task}: no champion to compare with"
            return Finding(task=task, action=GateAction.PASS, sentence=sentence, evidence={"champion": None})
        sentence = f"{task}: the champion was not measured"
        return Finding(task=task, action=GateAction.HOLD, sentence=sentence, unmeasured=(sentence,))
    candidate = scores.candidate or ()
    interval = paired_interval(scores.kind, scores.champion, candidate)
    action, sentence = _judge(task, interval, scores.rows, settings)
    before = _before(scores, settings)
    if before is not None:
        sentence += f"; {points(before.difference)} on the rows from before this batch"
    evidence: dict[str, Any] = {
        "champion": round(mean(scores.champion), 6), "candidate": round(mean(candidate), 6), "rows": scores.rows,
        "threshold": settings.rollback_threshold, **interval.as_dict(),
        "before_this_batch": None if before is None else before.as_dict(),
    }  # fmt: skip
    return Finding(task=task, action=action, sentence=sentence, evidence=evidence)


def _before(scores: TaskScores, settings: GateSettings) -> Interval | None:
    rows = [row for row, known in enumerate(scores.earlier) if known]
    if not settings.slice_rows <= len(rows) < scores.rows:
        return None
    champion, candidate = scores.champion or (), scores.candidate or ()
    return paired_interval(scores.kind, [champion[row] for row in rows], [candidate[row] for row in rows])


def _judge(task: str, interval: Interval, rows: int, settings: GateSettings) -> tuple[GateAction, str]:
    allowed = settings.rollback_threshold
    ends = f"{points(interval.low)} to {points(interval.high)}"
    seen = f"{points(interval.difference)} on {rows} rows (95 % interval {ends})"
    if -interval.difference > allowed and interval.high < 0:
        return GateAction.HOLD, f"{task}: worse than the champion by more than {percent(allowed)}: {seen}"
    if interval.low < -2 * allowed:
        doubt = f"{task}: inconclusive, a drop beyond {percent(2 * allowed)} cannot be ruled out: {seen}"
        if rows < settings.min_holdout:
            return GateAction.APPROVE, f"{doubt}; too few rows to tell, a person decides"
        return GateAction.HOLD, doubt
    return GateAction.PASS, f"{task}: {'better than' if interval.low > 0 else 'not worse than'} the champion: {seen}"


GATE = Gate(name=NAME, question="Is the candidate no worse than the champion on the same rows?", evaluate=evaluate)
