"""From verdicts to one decision, and to a page that explains it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from perennial.domain.verdict import Verdict
from perennial.domain.words import GateAction, TaskKind
from perennial.gates import slices
from perennial.gates.catalogue import gates
from perennial.gates.gate import GateSettings, worst
from perennial.gates.intervals import bootstrap, bootstrap_counts, paired_interval
from perennial.gates.mcnemar import exact_p, mid_p
from perennial.gates.page import render
from perennial.gates.scores import Evaluation, KFold, TaskScores, is_finite, is_right, mean, problems
from perennial.gates.slicing import family, gains_and_losses, named_groups, slice_problem
from perennial.gates.superiority import question

logger = logging.getLogger(__name__)

CHANGED_SHOWN = 8  # rows of each kind whose ids a report keeps for people


@dataclass(frozen=True, kw_only=True, slots=True)
class GateReport:
    """The decision on one candidate.

    ``action``, one verdict per gate, a one-line ``summary`` and the tables behind it.
    """

    action: GateAction
    verdicts: tuple[Verdict, ...]
    summary: str
    tables: tuple[Mapping[str, Any], ...] = ()
    not_measured: tuple[str, ...] = ()
    major: bool = False
    bootstrap: bool = False
    champion: str | None = None
    question: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: what the database, the bundle and the pages keep."""
        return {
            "action": self.action.value, "summary": self.summary, "major": self.major, "bootstrap": self.bootstrap,
            "champion": self.champion, "question": self.question, "settings": dict(self.settings), "not_measured": list(self.not_measured),
            "tables": [dict(table) for table in self.tables],
            "verdicts": [
                {
                    "gate": verdict.gate, "action": verdict.action.value, "reason": verdict.reason,
                    "evidence": dict(verdict.evidence),
                }
                for verdict in self.verdicts
            ],
        }  # fmt: skip

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> GateReport:
        """Inverse of ``as_dict``."""
        return cls(
            action=GateAction(value["action"]), summary=value["summary"], major=value["major"],
            bootstrap=value["bootstrap"], champion=value["champion"],
            question=value.get("question", ""), settings=value["settings"],
            tables=tuple(value["tables"]), not_measured=tuple(value["not_measured"]),
            verdicts=tuple(_verdict(item) for item in value["verdicts"]),
        )  # fmt: skip

    def as_text(self) -> str:
        """The same as a page of plain text; every term is explained in a line."""
        return render(self.as_dict(), {gate.name: gate.question for gate in gates()})


def _verdict(item: Mapping[str, Any]) -> Verdict:
    action = GateAction(item["action"])
    return Verdict(gate=item["gate"], action=action, reason=item["reason"], evidence=item["evidence"])


def judge(evaluation: Evaluation, settings: GateSettings, *, major: bool) -> GateReport:
    """Ask every gate and decide. A gate that fails to answer holds the candidate."""
    verdicts: list[Verdict] = []
    for gate in gates():
        try:
            verdicts.append(gate.evaluate(evaluation, settings))
        except Exception as error:
            logger.exception("gate %s could not answer", gate.name)
            reason = f"the gate could not answer ({type(error).__name__}); the log has the trace"
            verdicts.append(Verdict(gate=gate.name, action=GateAction.HOLD, reason=reason))
    return decide(verdicts, major=major, evaluation=evaluation, settings=settings)


def decide(
    verdicts: Sequence[Verdict],
    *,
    major: bool,
    evaluation: Evaluation | None = None,
    settings: GateSettings | None = None,
    required: Collection[str] | None = None,
) -> GateReport:
    """Hold beats approve beats pass; a major version that would pass needs a person; a gate that was not asked holds.

    ``required`` are the gates that must have answered: all of the catalogue unless told otherwise. Tables are made
    when the evaluation is given.

    >>> decide([Verdict(gate="a", action=GateAction.PASS, reason="fine")], major=True, required=["a"]).action.value
    'approve'
    """  # fmt: skip
    needed = {gate.name for gate in gates()} if required is None else set(required)
    all_verdicts = list(verdicts)
    for name in sorted(needed - {verdict.gate for verdict in verdicts}):
        all_verdicts.append(Verdict(gate=name, action=GateAction.HOLD, reason="was not asked"))
    if major:
        all_verdicts.append(
            Verdict(
                gate="sign_off", action=GateAction.APPROVE,
                reason="a major version (new labels or a new base model) needs a person",
            )
        )  # fmt: skip
    action = worst(verdict.action for verdict in all_verdicts)
    telling = [f"{verdict.gate}: {verdict.reason}" for verdict in all_verdicts if verdict.action is action]
    summary = "passes every gate" if action is GateAction.PASS else f"{action.value}: {'; '.join(telling)}"
    notes = [note for verdict in all_verdicts for note in verdict.evidence.get("not_measured", ())]
    return GateReport(
        action=action, verdicts=tuple(all_verdicts), summary=summary, major=major,
        tables=() if evaluation is None else _tables(evaluation, settings or GateSettings(), all_verdicts),
        not_measured=tuple(dict.fromkeys([*notes, *_never_measured(evaluation)])),
        bootstrap=any(verdict.evidence.get("bootstrap") is True for verdict in all_verdicts),
        champion=None if evaluation is None else evaluation.champion,
        question="" if evaluation is None else question(evaluation),
        settings={} if settings is None else asdict(settings),
    )  # fmt: skip


def _never_measured(evaluation: Evaluation | None) -> list[str]:
    if evaluation is None:
        return []
    return [f"{task}: not trained, keeps the champion's files" for task in evaluation.unchanged]


def _tables(evaluation: Evaluation, settings: GateSettings, verdicts: Sequence[Verdict]) -> tuple[dict[str, Any], ...]:
    judged = next((verdict.evidence.get("tasks") for verdict in verdicts if verdict.gate == slices.NAME), None)
    # the very lines that the gate judged, where it did
    lines = (
        {task: found.get("slices", []) for task, found in judged.items()} if judged else family(evaluation, settings)
    )
    return tuple(_table(scores, lines.get(scores.task, [])) for scores in evaluation.tasks)


def _table(scores: TaskScores, lines: list[dict[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {"task": scores.task, "kind": scores.kind.value, "rows": scores.rows}
    if problems(scores):
        return {**table, "champion": None, "candidate": None, "slices": [], "problems": problems(scores)}
    candidate = scores.candidate or ()
    table["candidate"] = round(mean(candidate), 6)
    table["champion"] = None if scores.champion is None else round(mean(scores.champion), 6)
    if scores.champion is not None:
        table.update(paired_interval(scores.kind, scores.champion, candidate).as_dict())
        table["changes"] = changed_answers(scores)
        table["changed_ids"] = changed_ids(scores)
        table["paired"] = _paired(scores.kind, scores.champion, candidate)
    if scores.baselines is not None:
        table["baselines"] = {name: value if is_finite(value) else None for name, value in scores.baselines.items()}
    table["slices"] = lines  # broken ones are held and explained by their gate
    if slice_problem(scores) is None:
        table["groups"] = named_groups(scores, lines)
    table["metrics"] = {who: dict(values) for who, values in scores.metrics.items()}
    if scores.k_fold is not None:
        table["k_fold"] = _k_fold(scores.k_fold)
    table["corrections"] = _right_of(scores, scores.corrections.candidate, len(scores.corrections.ids))
    table["regression"] = _right_of(scores, scores.regression.candidate, len(scores.regression.ids))
    return table


def changed_answers(scores: TaskScores) -> dict[str, int]:
    """How many holdout rows got another answer, counted by right and wrong; both models must have been measured.

    >>> changed_answers(TaskScores(task="t", kind=TaskKind.CLASSIFICATION, ids=("1", "2", "3"), labels=("a", "a", "b"),
    ...                            champion=(0.0, 1.0, 1.0), candidate=(1.0, 0.0, 1.0)))
    {'fixed': 1, 'broken': 1, 'same': 1}
    """
    pairs = [
        (is_right(scores.kind, old), is_right(scores.kind, new))
        for old, new in zip(scores.champion or (), scores.candidate or (), strict=True)
    ]
    fixed, broken = sum(new and not old for old, new in pairs), sum(old and not new for old, new in pairs)
    return {"fixed": fixed, "broken": broken, "same": len(pairs) - fixed - broken}


def changed_ids(scores: TaskScores, most: int = CHANGED_SHOWN) -> dict[str, list[str]]:
    """Ids of the first holdout rows that got another answer, so that a person can look at them; both must have been measured.

    >>> changed_ids(TaskScores(task="t", kind=TaskKind.CLASSIFICATION, ids=("1", "2", "3"), labels=("a", "a", "b"),
    ...                        champion=(0.0, 1.0, 1.0), candidate=(1.0, 0.0, 1.0)))
    {'fixed': ['1'], 'broken': ['2']}
    """
    found: dict[str, list[str]] = {"fixed": [], "broken": []}
    for identity, old, new in zip(scores.ids, scores.champion or (), scores.candidate or (), strict=True):
        right = is_right(scores.kind, new)
        if right != is_right(scores.kind, old) and len(found["fixed" if right else "broken"]) < most:
            found["fixed" if right else "broken"].append(identity)
    return found


def _paired(kind: TaskKind, champion: Sequence[float], candidate: Sequence[float]) -> dict[str, Any]:
    """The usual tests beside the interval that decides; they are reported and decide nothing."""
    gains, losses = gains_and_losses(champion, candidate)
    labels = kind is TaskKind.CLASSIFICATION
    drawn = bootstrap_counts(gains, losses, len(champion)) if labels else bootstrap(champion, candidate)
    found: dict[str, Any] = {"bootstrap_low": round(drawn.low, 6), "bootstrap_high": round(drawn.high, 6)}
    if labels:
        found |= {
            "gains": gains, "losses": losses, "mcnemar_exact": round(exact_p(gains, losses), 6),
            "mcnemar_mid_p": round(mid_p(gains, losses), 6),
        }  # fmt: skip
    return found


def _k_fold(found: KFold) -> dict[str, Any]:
    if not found.measured:
        return {"problem": found.problem or "no estimate"}
    return {"k": len(found.folds), "rows": found.rows, "mean": round(found.mean, 6), "sd": round(found.sd, 6)}


def _right_of(scores: TaskScores, values: Sequence[float] | None, rows: int) -> dict[str, int | None]:
    measured = values is not None and len(values) == rows
    right = sum(is_right(scores.kind, value) for value in values or ()) if measured else None
    return {"rows": rows, "right": right}
