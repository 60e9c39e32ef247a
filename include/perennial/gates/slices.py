"""Did any part of the holdout suffer?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, points
from perennial.gates.scores import Evaluation, TaskScores, mean
from perennial.gates.slicing import FALSE_ALARMS, family, slice_problem, time_problem

NAME = "slices"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Hold when a slice falls by more than ``max_slice_drop`` beyond doubt; ask a person when it may have fallen.

    An overall accuracy hides a targeted attack: 10 % flipped labels of one topic cost 0.5 points overall and 10 there.
    Beyond doubt: the p value that Holm's method adjusts over all slices of all tasks is at most 2 %, so that identical
    models are held for a slice in 2 % of evaluations at most, however many slices there are. May have fallen: a drop of
    more than half of ``max_slice_drop`` whose adjusted p value is at most ``slice_doubt``. A slice with fewer than ``slice_rows`` rows
    is said not to be measured; when no label of a task can be measured, a person decides.
    """
    tables = family(evaluation, settings)

    def ask(scores: TaskScores, settings: GateSettings) -> Finding:
        return _ask(scores, settings, tables.get(scores.task, []), first=evaluation.champion is None)

    return per_task(NAME, evaluation, settings, ask)


def _ask(scores: TaskScores, settings: GateSettings, table: list[dict[str, Any]], *, first: bool) -> Finding:
    task = scores.task
    wrong = slice_problem(scores)
    if wrong:
        return Finding(task=task, action=GateAction.HOLD, sentence=wrong, unmeasured=(wrong,))
    if scores.champion is None and not first and scores.baselines is None:
        sentence = f"{task}: the champion's slices were not measured"
        return Finding(task=task, action=GateAction.HOLD, sentence=sentence, unmeasured=(sentence,))
    action, sentence = _judge(scores, table, settings)
    return Finding(
        task=task, action=action, sentence=sentence, evidence={"slices": table}, unmeasured=_unmeasured(scores, table)
    )


def _unmeasured(scores: TaskScores, table: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    small = [f"{scores.task}: {line['title']} ({line['rows']} rows)" for line in table if not line["measured"]]
    blind = time_problem(scores) if scores.times else None
    if blind:
        small.append(f"{scores.task}: recent and old rows ({blind})")
    if scores.earlier and not any(scores.earlier) and scores.champion is not None:
        small.append(f"{scores.task}: rows from before this batch (all came in with it)")
    return tuple(small)


def _judge(scores: TaskScores, table: Sequence[Mapping[str, Any]], settings: GateSettings) -> tuple[GateAction, str]:
    task = scores.task
    if scores.champion is None:
        return GateAction.PASS, f"{task}: no champion to compare slices with"
    measured = [line for line in table if line["measured"]]
    fallen = [
        line for line in measured
        if -line["difference"] > settings.max_slice_drop and line["p_family"] <= FALSE_ALARMS
    ]  # fmt: skip
    if fallen:
        return GateAction.HOLD, f"{task}: accuracy fell for {_told(fallen)}{_hidden(scores, fallen)}"
    if scores.slices and not any(line["kind"] == "label" for line in measured):
        sentence = (
            f"{task}: no label has {settings.slice_rows} rows, so no slice was measured by label; a person decides"
        )
        return GateAction.APPROVE, sentence
    doubted = [
        line for line in measured
        if -line["difference"] > settings.max_slice_drop / 2 and line["p_family"] <= settings.slice_doubt
    ]  # fmt: skip
    if doubted:
        return GateAction.APPROVE, f"{task}: may have fallen, a person decides: {_told(doubted)}"
    return GateAction.PASS, f"{task}: no slice fell among {len(measured)} measured of {len(table)}"


def _hidden(scores: TaskScores, fallen: Sequence[Mapping[str, Any]]) -> str:
    """Whether the rows that came in with the batch hide a drop that the others show."""
    whole = mean(scores.candidate or ()) - mean(scores.champion or ())
    before = [line for line in fallen if line["kind"] == "batch"]
    if not before or whole < before[0]["difference"] / 2:
        return ""
    return "; the rows that came in with the batch disagree and hide it: look at them before anything else"


def _told(lines: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{line['title']} {points(line['difference'])} on {line['rows']} rows"
        f" (p {line['p']:.2g} by itself, {line['p_family']:.2g} among {line['family']} slices)"
        for line in lines
    )


GATE = Gate(name=NAME, question="Did any slice fall (label, time, source, stress, forgetting)?", evaluate=evaluate)
