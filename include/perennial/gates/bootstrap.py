"""Is a first version better than guessing, and than the simplest model that learns?"""

from __future__ import annotations

from dataclasses import replace

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.gate import Finding, Gate, GateSettings, per_task, percent
from perennial.gates.scores import Evaluation, TaskScores, is_finite, mean

NAME = "bootstrap"


def evaluate(evaluation: Evaluation, settings: GateSettings) -> Verdict:
    """Without a champion, hold a candidate that does not beat every baseline (majority class, TF-IDF).

    A first version comes to serve once per agent: when earlier versions did and none serves now, the way back is a
    rollback, not a new beginning. One whose rollout was reverted before it served is not counted: there is no way back
    to it. A task that is new to an agent with a champion must beat its baselines too. The verdict's evidence says
    ``bootstrap: true`` for a first version, and the manifest repeats it.
    """
    first = evaluation.champion is None
    if first and evaluation.earlier_versions:
        return Verdict(
            gate=NAME, action=GateAction.HOLD, evidence={"tasks": {}, "bootstrap": False},
            reason="this agent has had champions but none serves: restore one with `perennial rollback`, "
            "a first version is allowed once",
        )  # fmt: skip
    verdict = per_task(NAME, evaluation, settings, _ask)
    return replace(verdict, evidence={**verdict.evidence, "bootstrap": first})


def _ask(scores: TaskScores, settings: GateSettings) -> Finding:
    task = scores.task
    if scores.champion is not None:
        return Finding(task=task, action=GateAction.PASS, sentence=f"{task}: has a champion, does not apply")
    baselines = scores.baselines or {}
    unusable = [name for name, value in baselines.items() if not is_finite(value)]
    if not baselines or unusable:
        sentence = f"{task}: no baseline to beat was measured"
        return Finding(task=task, action=GateAction.HOLD, sentence=sentence, unmeasured=(sentence,))
    reached = mean(scores.candidate or ())
    # a baseline without a single error cannot be beaten, only reached
    unbeaten = {name: value for name, value in baselines.items() if reached <= value and not reached >= 1.0}
    evidence = {"candidate": round(reached, 6), "baselines": {key: round(value, 6) for key, value in baselines.items()}}
    told = ", ".join(f"{name} {percent(value)}" for name, value in sorted((unbeaten or baselines).items()))
    sentence = f"{task}: {percent(reached)} {'does not beat' if unbeaten else 'beats'} {told}"
    action = GateAction.HOLD if unbeaten else GateAction.PASS
    return Finding(task=task, action=action, sentence=sentence, evidence=evidence)


GATE = Gate(name=NAME, question="Does a first version beat the baselines?", evaluate=evaluate)
