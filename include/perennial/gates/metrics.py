"""Precision, recall, F1 and AUC of one model on the holdout, and the thresholds that an owner declared for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import JSON, GateAction, TaskKind
from perennial.gates.gate import Finding, Gate, GateSettings, per_task
from perennial.gates.scores import Evaluation, TaskScores, is_finite, is_right, mean, row_score

NAME = "metrics"


def measure(
    kind: TaskKind, labels: Sequence[JSON], outputs: Sequence[JSON], scores: Sequence[Mapping[str, float]] = ()
) -> dict[str, float | None]:
    """Metrics of one model, all in [0, 1], higher is better; None where the rows do not define one.

    For labels: ``accuracy``, ``macro_f1``, ``macro_auc``, and ``precision:LABEL``, ``recall:LABEL``, ``auc:LABEL``.
    ``macro`` is the plain mean over the labels of the holdout. AUC is one label against the rest from each answer's
    probabilities (``scores``; left out where a model gives none), with ties counted half: J. Hanley, B. McNeil,
    Radiology 143 (1982) 29-36. For numbers: ``accuracy`` (mean of 1 - |error|) and ``within_tolerance``.

    >>> found = measure(TaskKind.CLASSIFICATION, ["a", "a", "b"], ["a", "b", "b"])
    >>> round(found["macro_f1"], 4), found["precision:b"], found["recall:a"], "macro_auc" in found
    (0.6667, 0.5, 0.5, False)
    """
    if len(labels) != len(outputs) or (scores and len(scores) != len(labels)):
        raise ValueError("metrics need one answer per row")
    if not labels:
        return {}
    right = [row_score(kind, output, label) for output, label in zip(outputs, labels, strict=True)]
    found: dict[str, float | None] = {"accuracy": _finite(mean(right))}
    if kind is TaskKind.SCORE:
        return found | {"within_tolerance": mean([float(is_right(kind, value)) for value in right])}
    names, answers = [str(label) for label in labels], [str(output) for output in outputs]
    known = sorted(set(names))
    f1 = []
    for label in known:
        hits = sum(name == answer == label for name, answer in zip(names, answers, strict=True))
        given, true = answers.count(label), names.count(label)
        found[f"precision:{label}"] = hits / given if given else None
        found[f"recall:{label}"] = hits / true
        f1.append(2 * hits / (given + true))
    found["macro_f1"] = mean(f1)
    if scores and all(scores):
        areas = [_auc([name == label for name in names], [row.get(label, 0.0) for row in scores]) for label in known]
        found |= {f"auc:{label}": area for label, area in zip(known, areas, strict=True)}
        defined = [area for area in areas if area is not None]
        found["macro_auc"] = mean(defined) if len(defined) == len(areas) else None
    return found


def _auc(positive: Sequence[bool], values: Sequence[float]) -> float | None:
    """Chance that a row of the label has a higher probability of it than another row: Mann and Whitney's U, scaled."""
    count = sum(positive)
    if not 0 < count < len(positive) or not all(math.isfinite(value) for value in values):
        return None
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in range(start, end):
            ranks[order[place]] = (start + end + 1) / 2
        start = end
    total = math.fsum(rank for rank, yes in zip(ranks, positive, strict=True) if yes)
    return (total - count * (count + 1) / 2) / (count * (len(positive) - count))


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Hold a candidate with any declared metric below its threshold (``min_metrics``), or without a value for it.

    A threshold for a task that nobody measured holds too.
    """
    measured = {scores.task for scores in evaluation.tasks} | set(evaluation.unchanged)
    lost = sorted(set(settings.min_metrics) - measured)
    verdict = per_task(NAME, evaluation, settings, _ask)
    if not lost:
        return verdict
    sentence = f"thresholds are declared for {', '.join(lost)}, which nobody measured; check the fleet file"
    evidence = {**verdict.evidence, "not_measured": [*verdict.evidence.get("not_measured", ()), sentence]}
    return Verdict(gate=NAME, action=GateAction.HOLD, reason=sentence, evidence=evidence)


def _ask(scores: TaskScores, settings: GateSettings) -> Finding:
    wanted = settings.min_metrics.get(scores.task, {})
    reached = scores.metrics.get("candidate", {})
    judged: dict[str, Any] = {
        name: {"candidate": reached.get(name), "wanted": threshold, "passes": _passes(reached.get(name), threshold)}
        for name, threshold in sorted(wanted.items())
    }
    missing = tuple(f"{scores.task}: {name}" for name in judged if not is_finite(reached.get(name)))
    below = [name for name, line in judged.items() if not line["passes"]]
    if below:
        told = ", ".join(f"{name} {_told(reached.get(name))} (wanted {wanted[name]:.3f})" for name in below)
        sentence = f"{scores.task}: below its threshold: {told}"
        action = GateAction.HOLD
    else:
        action = GateAction.PASS
        sentence = f"{scores.task}: " + (
            f"all {len(judged)} metrics reach their thresholds" if judged else "no threshold is set"
        )
    return Finding(task=scores.task, action=action, sentence=sentence, evidence={"metrics": judged}, unmeasured=missing)


def _passes(value: float | None, threshold: float) -> bool:
    return value is not None and is_finite(value) and value >= threshold


def _told(value: float | None) -> str:
    return "was not measured" if value is None or not is_finite(value) else f"{value:.3f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


GATE = Gate(name=NAME, question="Does every declared metric reach its threshold?", evaluate=evaluate)
