"""Are there enough rows to say anything?"""

from __future__ import annotations

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task
from perennial.gates.scores import Evaluation, TaskScores

NAME = "holdout_size"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Ask a person when a task has fewer than ``min_holdout`` rows; hold when it has none."""
    return per_task(NAME, evaluation, settings, _ask)


def _ask(scores: TaskScores, settings: GateSettings) -> Finding:
    enough = scores.rows >= settings.min_holdout
    told = f"{scores.task}: {scores.rows} holdout rows"
    return Finding(
        task=scores.task, action=GateAction.PASS if enough else GateAction.APPROVE,
        sentence=told if enough else f"{told}, fewer than {settings.min_holdout}; a person decides",
        evidence={"rows": scores.rows, "wanted": settings.min_holdout},
    )  # fmt: skip


GATE = Gate(name=NAME, question="Are there enough holdout rows?", evaluate=evaluate)
