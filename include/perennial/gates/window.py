"""Is the candidate no worse than the best of the recent versions?"""

from __future__ import annotations

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, percent, points
from perennial.gates.intervals import paired_interval
from perennial.gates.scores import Evaluation, TaskScores, column_problems

NAME = "window"
CONFIDENCE = 0.99  # a second look at the whole holdout: it must not add much to the false alarms of the first


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Hold a drop of more than ``rollback_threshold`` against the best of the last ``window_versions`` champions.

    Each update may lose a little and still be no worse than the champion before it; ten of them would lose much. The
    best version answers the very holdout of this evaluation, row by row. A version that could not be asked holds.
    """

    def ask(scores: TaskScores, settings: GateSettings) -> Finding:
        return _ask(scores, settings, first=evaluation.champion is None)

    return per_task(NAME, evaluation, settings, ask)


def _ask(scores: TaskScores, settings: GateSettings, *, first: bool) -> Finding:
    task, best = scores.task, scores.reference
    if scores.champion is None and (first or scores.baselines is not None):
        return Finding(task=task, action=GateAction.PASS, sentence=f"{task}: no earlier version knows this task")
    wrong = [] if best is None else [f"{task}: {best.problem}"] if best.problem else []
    if best is None or scores.champion is None:
        wrong = [f"{task}: the best of the recent versions was not measured"]
    elif best.scores is not None:
        wrong += column_problems(task, "best recent version", scores.kind, best.scores, scores.rows)
    if wrong or best is None:
        return Finding(task=task, action=GateAction.HOLD, sentence=wrong[0], unmeasured=tuple(wrong))
    if best.scores is None:
        sentence = f"{task}: the champion is the best of the last {best.looked_at} version(s)"
        return Finding(task=task, action=GateAction.PASS, sentence=sentence, evidence={"versions": best.looked_at})
    interval = paired_interval(scores.kind, best.scores, scores.candidate or (), confidence=CONFIDENCE)
    seen = f"{points(interval.difference)} against {best.version}, the best of the last {best.looked_at} versions"
    fallen = -interval.difference > settings.rollback_threshold and interval.high < 0
    allowed = percent(settings.rollback_threshold)
    return Finding(
        task=task, action=GateAction.HOLD if fallen else GateAction.PASS,
        sentence=f"{task}: {f'more than {allowed} worse: ' if fallen else ''}{seen}",
        evidence={"version": best.version, "versions": best.looked_at, **interval.as_dict()},
    )  # fmt: skip


GATE = Gate(name=NAME, question="Is it no worse than the best of the recent versions?", evaluate=evaluate)
