"""What a gate is: a name, one question, and a pure function from an evaluation to a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction
from perennial.gates.scores import Evaluation, TaskScores, problems

_ABOUT_PEOPLE = ("two_person", "approvers")  # who may approve is asked after the gates, in registry/permission.py
_WEIGHT = {GateAction.PASS: 0, GateAction.APPROVE: 1, GateAction.HOLD: 2}


@dataclass(frozen=True, kw_only=True, slots=True)
class GateSettings:
    """What the agent's owner demands; the names are those of ``fleet.Gates``, with every default filled in.

    Shares lie between 0 and 1.
    """

    rollback_threshold: float = 0.05
    min_holdout: int = 100
    min_accuracy: Mapping[str, float] = field(default_factory=dict)
    min_metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    max_slice_drop: float = 0.03
    slice_doubt: float = 0.20
    slice_rows: int = 20
    stress_rows: int = 60
    k_folds: int = 5
    k_folds_always: bool = False
    window_versions: int = 5
    performance_window: int = 100
    corrections_learned: float = 1.0

    def __post_init__(self) -> None:
        wanted = [value for metrics in self.min_metrics.values() for value in metrics.values()]
        shares = (
            self.rollback_threshold, self.max_slice_drop, self.slice_doubt, self.corrections_learned,
            *self.min_accuracy.values(), *wanted,
        )  # fmt: skip
        if not all(math.isfinite(share) and 0.0 <= share <= 1.0 for share in shares):
            raise ValueError("gate settings that are shares must lie between 0 and 1")
        if min(self.min_holdout, self.slice_rows, self.performance_window, self.window_versions) < 1:
            raise ValueError("min_holdout, slice_rows, performance_window and window_versions must be at least 1")
        if self.k_folds < 2 or self.stress_rows < 0:
            raise ValueError("k_folds must be at least 2, and stress_rows 0 or more")

    @classmethod
    def of(
        cls, declared: Mapping[str, Any], *, rollback_threshold: float, performance_window: int = 100
    ) -> GateSettings:
        """From an agent's declaration (``dataclasses.asdict(agent.gates)``); the deployment's values fill a None.

        >>> GateSettings.of({"rollback_threshold": None, "slice_rows": 30}, rollback_threshold=0.03).rollback_threshold
        0.03
        """
        given = {name: value for name, value in declared.items() if name not in _ABOUT_PEOPLE}
        if given.get("rollback_threshold") is None:
            given["rollback_threshold"] = rollback_threshold
        if given.get("performance_window") is None:
            given["performance_window"] = performance_window
        return cls(**given)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One question about a candidate. ``evaluate`` is pure: no clock, no I/O, inputs untouched."""

    name: str
    question: str
    evaluate: Callable[[Evaluation, GateSettings], Verdict]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a gate found for one task."""

    task: str
    action: GateAction
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()


def worst(actions: Iterable[GateAction]) -> GateAction:
    """Hold beats approve beats pass; nothing at all is a hold.

    >>> worst([GateAction.PASS, GateAction.APPROVE]).value, worst([]).value
    ('approve', 'hold')
    """
    return max(actions, key=_WEIGHT.__getitem__, default=GateAction.HOLD)


def combine(gate: str, findings: Sequence[Finding]) -> Verdict:
    """One verdict from the findings of all tasks: the worst action, with the sentences that led to it."""
    action = worst(finding.action for finding in findings)
    telling = [finding.sentence for finding in findings if finding.action is action]
    return Verdict(
        gate=gate, action=action, reason="; ".join(telling) or "nothing was measured",
        evidence={
            "tasks": {
                finding.task: {"action": finding.action.value, "says": finding.sentence, **finding.evidence}
                for finding in findings
            },
            "not_measured": [note for finding in findings for note in finding.unmeasured],
        },
    )  # fmt: skip


def per_task(
    gate: str, evaluation: Evaluation, settings: GateSettings, ask: Callable[[TaskScores, GateSettings], Finding]
) -> Verdict:
    """Ask about each task whose table is whole.

    A missing or malformed table holds, and so does an evaluation without tasks.
    """
    if not evaluation.tasks:
        return Verdict(gate=gate, action=GateAction.HOLD, reason="no task was evaluated", evidence={"tasks": {}})
    findings: list[Finding] = []
    for scores in evaluation.tasks:
        wrong = problems(scores)
        if wrong:
            findings.append(
                Finding(task=scores.task, action=GateAction.HOLD, sentence="; ".join(wrong), unmeasured=tuple(wrong))
            )
        else:
            findings.append(ask(scores, settings))
    return combine(gate, findings)


def percent(share: float) -> str:
    """A share as people read it.

    >>> percent(0.1234), percent(1.0)
    ('12.3 %', '100 %')
    """
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed.

    >>> points(-0.051), points(0.0)
    ('-5.1 points', '+0.0 points')
    """
    return f"{difference * 100:+.1f} points"
