"""Are there enough rows to say anything?"""

from __future__ import annotations

from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, percent
from perennial.gates.scores import Evaluation, TaskScores

NAME = "holdout_size"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Ask a person when a task has fewer than ``min_holdout`` rows; hold when it has none.

    The person sees a k-fold estimate: k trainings on the batch and the holdout, each asked about the part that it did
    not see. It says how well this way of training does on such rows, not how good the candidate itself is.
    """
    return per_task(NAME, evaluation, settings, _ask)


def _ask(scores: TaskScores, settings: GateSettings) -> Finding:
    enough = scores.rows >= settings.min_holdout
    told = f"{scores.task}: {scores.rows} holdout rows"
    estimate, notes = _estimate(scores, needed=not enough)
    evidence: dict[str, Any] = {"rows": scores.rows, "wanted": settings.min_holdout}
    if scores.k_fold is not None and scores.k_fold.measured:
        found = scores.k_fold
        evidence["k_fold"] = {
            "k": len(found.folds),
            "rows": found.rows,
            "mean": round(found.mean, 6),
            "sd": round(found.sd, 6),
        }
    return Finding(
        task=scores.task, action=GateAction.PASS if enough else GateAction.APPROVE, unmeasured=notes, evidence=evidence,
        sentence=(told if enough else f"{told}, fewer than {settings.min_holdout}; a person decides") + estimate,
    )  # fmt: skip


def _estimate(scores: TaskScores, *, needed: bool) -> tuple[str, tuple[str, ...]]:
    found = scores.k_fold
    if found is not None and found.measured:
        told = f"{percent(found.mean)} +- {percent(found.sd)} over {len(found.folds)} folds of {found.rows} rows"
        return f" (k-fold estimate: {told})", ()
    if not needed and found is None:
        return "", ()
    why = found.problem if found is not None and found.problem else "nobody asked for it"
    return " (no k-fold estimate)", (f"{scores.task}: k-fold estimate ({why})",)


GATE = Gate(name=NAME, question="Are there enough holdout rows?", evaluate=evaluate)
