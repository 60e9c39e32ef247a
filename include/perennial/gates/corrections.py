"""Did the candidate learn what people corrected, and keep what they corrected before?"""

from __future__ import annotations

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, percent
from perennial.gates.scores import Evaluation, RowScores, TaskScores, column_problems, is_right

NAME = "corrections"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Hold when too few of the batch's corrections are answered right, or an earlier urgent one was unlearned.

    Unlearned: the champion answers it right and the candidate does not. Rows of which a model was not asked hold.
    """

    def ask(scores: TaskScores, settings: GateSettings) -> Finding:
        return _ask(scores, settings, first=evaluation.champion is None)

    return per_task(NAME, evaluation, settings, ask)


def _ask(scores: TaskScores, settings: GateSettings, *, first: bool) -> Finding:
    wrong = _broken(scores, first=first)
    if wrong:
        return Finding(task=scores.task, action=GateAction.HOLD, sentence="; ".join(wrong), unmeasured=tuple(wrong))
    missed = _wrong_ids(scores, scores.corrections)
    total = len(scores.corrections.ids)
    right = total - len(missed)
    unlearned = _unlearned(scores)
    evidence = {
        "corrections": total, "right": right, "wanted": settings.corrections_learned, "missed_ids": missed,
        "regression": len(scores.regression.ids), "unlearned_ids": unlearned,
    }  # fmt: skip
    complaints = []
    if total and right / total < settings.corrections_learned:
        wanted = percent(settings.corrections_learned)
        complaints.append(f"{right} of {total} corrections are answered right, {wanted} must be")
    if unlearned:
        complaints.append(f"{len(unlearned)} earlier correction(s) that the champion answers right were unlearned")
    if complaints:
        sentence = f"{scores.task}: {' and '.join(complaints)}"
        return Finding(task=scores.task, action=GateAction.HOLD, sentence=sentence, evidence=evidence)
    learned = f"{right} of {total} corrections are answered right" if total else "no corrections in this batch"
    sentence = f"{scores.task}: {learned}, none of {len(scores.regression.ids)} earlier ones was unlearned"
    return Finding(task=scores.task, action=GateAction.PASS, sentence=sentence, evidence=evidence)


def _broken(scores: TaskScores, *, first: bool) -> list[str]:
    name, kind = scores.task, scores.kind
    new, old = scores.corrections, scores.regression
    found = column_problems(name, "candidate on the corrections", kind, new.candidate, len(new.ids))
    found += column_problems(name, "candidate on the earlier corrections", kind, old.candidate, len(old.ids))
    has_champion = not first and scores.champion is not None
    if old.ids and has_champion:
        found += column_problems(name, "champion on the earlier corrections", kind, old.champion, len(old.ids))
    if scores.champion is None and not first and scores.baselines is None:
        found.append(f"{name}: the champion was not measured")
    return found


def _wrong_ids(scores: TaskScores, table: RowScores) -> list[str]:
    pairs = zip(table.ids, table.candidate or (), strict=True)
    return [row for row, value in pairs if not is_right(scores.kind, value)]


def _unlearned(scores: TaskScores) -> list[str]:
    table = scores.regression
    if table.champion is None or scores.champion is None:
        return []
    known = {
        row for row, value in zip(table.ids, table.champion, strict=True) if is_right(scores.kind, value)
    }  # fmt: skip
    return [row for row in _wrong_ids(scores, table) if row in known]


GATE = Gate(name=NAME, question="Were the corrections learned, and the earlier ones kept?", evaluate=evaluate)
