"""Is a candidate of a batch training better, or is there a reason to publish one that is not?"""

from __future__ import annotations

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction, Mode, Reason
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, points
from perennial.gates.intervals import paired_interval
from perennial.gates.scores import Evaluation, TaskScores

NAME = "superiority"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Ask batch trainings alone: every task better beyond chance (95 % interval above 0), or a stated reason.

    Reasons: drift, the schedule, new labels, corrections, or a sentence of the person who asked. That a candidate is
    not worse is asked by the gate ``non_inferiority`` in both modes. Without superiority and without a reason a person
    decides, whose comment then is the reason. A mode that was not recorded holds.
    """
    stated = stated_reason(evaluation)

    def ask(scores: TaskScores, settings: GateSettings) -> Finding:
        return _ask(scores, evaluation, stated)

    return per_task(NAME, evaluation, settings, ask)


def stated_reason(evaluation: Evaluation) -> str:
    """Why a candidate that is no better may still be published, in words; empty when nobody said.

    >>> stated_reason(Evaluation(tasks=(), champion="1.0.0", reason=Reason.DRIFT))
    'the data drifted'
    """
    if evaluation.new_labels:
        return f"it knows new labels ({', '.join(evaluation.new_labels)})"
    if evaluation.reason is Reason.REQUEST and evaluation.why.strip():
        return f"a person asked for it: {evaluation.why.strip()[:300]}"
    return {
        Reason.DRIFT: "the data drifted", Reason.SCHEDULE: "the schedule asked for a fresh model",
        Reason.CORRECTION: "people corrected the champion",
    }.get(evaluation.reason or Reason.THRESHOLD, "")  # fmt: skip


def question(evaluation: Evaluation) -> str:
    """Which question this candidate was asked, as the report states it."""
    if evaluation.mode is Mode.BATCH:
        stated = stated_reason(evaluation)
        either = f"not worse, because {stated}" if stated else "approved by a person, since no reason was stated"
        return f"Batch training: is it better than the champion, or {either}?"
    return "Online update: is it not worse than the champion, and were the corrections learned?"


def _ask(scores: TaskScores, evaluation: Evaluation, stated: str) -> Finding:
    task = scores.task
    if evaluation.mode is None:
        sentence = f"{task}: whether this was a batch or an online training was not recorded"
        return Finding(task=task, action=GateAction.HOLD, sentence=sentence, unmeasured=(sentence,))
    if evaluation.mode is not Mode.BATCH:
        return Finding(task=task, action=GateAction.PASS, sentence=f"{task}: an online update need not be better")
    if scores.champion is None:
        if evaluation.champion is None or scores.baselines is not None:
            return Finding(task=task, action=GateAction.PASS, sentence=f"{task}: no champion to be better than")
        sentence = f"{task}: the champion was not measured"
        return Finding(task=task, action=GateAction.HOLD, sentence=sentence, unmeasured=(sentence,))
    interval = paired_interval(scores.kind, scores.champion, scores.candidate or ())
    evidence = {**interval.as_dict(), "reason": stated}
    seen = f"{points(interval.difference)}, 95 % interval {points(interval.low)} to {points(interval.high)}"
    if interval.low > 0:
        return Finding(
            task=task, action=GateAction.PASS, sentence=f"{task}: better than the champion: {seen}", evidence=evidence
        )
    if stated:
        sentence = f"{task}: not better beyond chance ({seen}), but {stated}"
        return Finding(task=task, action=GateAction.PASS, sentence=sentence, evidence=evidence)
    sentence = f"{task}: not better beyond chance ({seen}) and nobody stated a reason; a person decides"
    return Finding(task=task, action=GateAction.APPROVE, sentence=sentence, evidence=evidence)


GATE = Gate(name=NAME, question="Is a batch candidate better, or is a reason stated?", evaluate=evaluate)
