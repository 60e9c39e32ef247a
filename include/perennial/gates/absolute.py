"""Is the candidate good enough by itself?"""

from __future__ import annotations

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, combine, per_task, percent
from perennial.gates.scores import Evaluation, TaskScores, mean

NAME = "absolute"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Hold a candidate below ``min_accuracy`` on any task that has one.

    A threshold for a task that nobody measured holds too.
    """
    measured = {scores.task for scores in evaluation.tasks} | set(evaluation.unchanged)
    lost = sorted(set(settings.min_accuracy) - measured)
    if lost:
        return combine(
            NAME,
            [
                Finding(
                    task=task, action=GateAction.HOLD, unmeasured=(f"{task}: accuracy",),
                    sentence=f"{task}: has a threshold but was not measured; check its name in the fleet file",
                )
                for task in lost
            ],
        )  # fmt: skip
    return per_task(NAME, evaluation, settings, _ask)


def _ask(scores: TaskScores, settings: GateSettings) -> Finding:
    reached, wanted = mean(scores.candidate or ()), settings.min_accuracy.get(scores.task)
    evidence = {"candidate": round(reached, 6), "wanted": wanted, "rows": scores.rows}
    if wanted is None:
        sentence = f"{scores.task}: {percent(reached)}, no absolute threshold is set"
        return Finding(task=scores.task, action=GateAction.PASS, sentence=sentence, evidence=evidence)
    good = reached >= wanted
    return Finding(
        task=scores.task, action=GateAction.PASS if good else GateAction.HOLD, evidence=evidence,
        sentence=f"{scores.task}: {percent(reached)} {'reaches' if good else 'is below'} the wanted {percent(wanted)}",
    )  # fmt: skip


GATE = Gate(name=NAME, question="Is the candidate good enough by itself?", evaluate=evaluate)
