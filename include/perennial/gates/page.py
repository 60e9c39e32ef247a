"""A gate report as a page of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_HEAD = {
    "pass": "PASSES: the candidate may go on to the canary.",
    "hold": "HELD: the candidate does not serve; the champion stays.",
    "approve": "WAITS: no gate refuses it, but a person must agree.",
}
_SHOWN = 9  # slices of one task that have a line of their own; the rest is counted
_TERMS = (
    "candidate    the model that was just trained; champion: the one that serves now",
    "accuracy     share of rows answered right; for tasks that give a number, the mean of 1 - |error|",
    "holdout      rows that no training ever sees, frozen for this evaluation; both models answer the same rows",
    "difference   candidate minus champion, in percentage points (+1.0: one more right answer in a hundred)",
    "interval     where the true difference lies with 95 % confidence, given that both answered the same rows",
    "slice        a part of the holdout: one label, the newest or oldest third, one sender, disturbed texts, ...",
    "before this  rows that an earlier training counted already; a poisoned batch brings poisoned holdout rows too,",
    "  batch      so the rows that did not come in with this batch are asked by themselves",
    "disturbed    the same texts with typos, in one case, inside a double negation, or cut short or made long",
    "p            chance of a drop this large in this slice if the candidate were as good as the champion",
    "p, family    the same after Holm's correction for having looked at so many slices; at most 0.02 counts as proof",
    "McNemar      test on the rows that only one model answers right (gains and losses); reported, decides nothing",
    "bootstrap    the interval again, from 2,000 redraws of the rows; reported, decides nothing",
    "macro F1     mean over the labels of F1, which is high when few of a label's rows are missed or falsely claimed",
    "AUC          chance that a row of a label gets a higher probability of it than another row; 50 % is guessing",
    "baseline     always the commonest label of the holdout; a first version must also beat a TF-IDF word model",
    "k-fold       k trainings that leave out one part each and answer it: mean and spread for this way of training",
    "corrections  rows of this batch that a person corrected; earlier ones must not be unlearned",
    "window       the best of the last versions answers the same holdout, so that small losses do not add up",
    "inconclusive too few rows, or too many disagreements, to rule a bad drop out",
)


def render(report: Mapping[str, Any], questions: Mapping[str, str]) -> str:
    """Lines of at most about 110 characters.

    The decision and the question that was asked, each gate's answer, a table per task, what was not measured, the terms.
    """
    lines = [_HEAD.get(report["action"], report["action"]), *_wrapped(report["summary"], "")]
    if report.get("question"):
        lines += ["", *_wrapped(f"ASKED: {report['question']}", "")]
    lines += ["", "GATES (one question each; one HOLD holds, one APPROVE asks a person)"]
    for verdict in report["verdicts"]:
        question = questions.get(verdict["gate"], "Does a person agree?")
        lines.append(f"  {verdict['action'].upper():8}{verdict['gate']:16} {question}")
        by_task = verdict["evidence"].get("tasks") or {}
        said = [found["says"] for found in by_task.values()] or [verdict["reason"]]
        for sentence in ["; ".join(said)] if verdict["action"] == "pass" else said:
            lines += _wrapped(sentence, " " * 10)
    for table in report["tables"]:
        lines += ["", *_task(table)]
    lines += ["", "NOT MEASURED", *_unmeasured(report["not_measured"])]
    lines += ["", "TERMS", *[f"  {term}" for term in _TERMS]]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)


def _unmeasured(notes: Sequence[str]) -> list[str]:
    shown = [line for note in notes[:_SHOWN] for line in _wrapped(note, "  ")]
    rest = len(notes) - _SHOWN
    return (shown or ["  nothing is missing"]) + ([f"  and {rest} more; the stored report has all"] if rest > 0 else [])


def _task(table: Mapping[str, Any]) -> list[str]:
    lines = [f"TASK {table['task']} ({table['kind']}, {table['rows']} holdout rows)"]
    if table.get("problems"):
        return lines + [f"  cannot be judged: {problem}" for problem in table["problems"]]
    lines.append(
        f"  {'':36}{'rows':>6} {'champion':>9} {'candidate':>9} {'difference':>11}  interval, or p and p of the family"
    )
    lines.append(_row("all", {**table, "measured": True}))
    lines += _groups(table) + _slices(table) + _extra(table)
    for name, value in sorted((table.get("baselines") or {}).items()):
        lines.append(f"  baseline to beat: {name} {_share(value)}")
    for key, title in (("corrections", "corrections of this batch"), ("regression", "earlier corrections")):
        count = table[key]
        told = "not measured" if count["right"] is None else f"{count['right']} of {count['rows']} answered right"
        lines.append(f"  {title}: {told if count['rows'] else 'none'}")
    return lines


def _groups(table: Mapping[str, Any]) -> list[str]:
    found = []
    for name, group in (table.get("groups") or {}).items():
        if "missing" in group:
            found.append(f"  {f'group {name}':36}{'':>6} not measured: {group['missing']}")
        elif name == "stress":  # recent and old have their line among the slices
            found.append(_row("group stress (all disturbed texts)", {**group, "measured": True}))
    return found


def _slices(table: Mapping[str, Any]) -> list[str]:
    """The named groups and the labels first, then whatever fell most; small ones and the rest are counted."""
    measured = [line for line in table["slices"] if line["measured"]]
    ranked = sorted(measured, key=lambda line: (_weight(line), line.get("p", 1.0), line["kind"], line["name"]))
    lines = [_row(_title(line), line) for line in ranked[:_SHOWN]]
    if len(measured) > _SHOWN:
        lines.append(f"  and {len(measured) - _SHOWN} more slices; the stored report has each")
    small = len(table["slices"]) - len(measured)
    return lines + ([f"  and {small} with too few rows, not measured"] if small else [])


def _weight(line: Mapping[str, Any]) -> int:
    if line["name"] in ("recent", "old") or line.get("p_family", 1.0) <= 0.2:
        return 0
    return 1 if line["kind"] == "label" else 2


def _title(line: Mapping[str, Any]) -> str:
    return line["name"] if line["kind"] in ("batch", "forgetting") else f"{line['kind']} {line['name']}"


def _extra(table: Mapping[str, Any]) -> list[str]:
    lines = []
    if paired := table.get("paired"):
        ends = f"bootstrap {_points(paired['bootstrap_low'])} to {_points(paired['bootstrap_high'])}"
        if "gains" in paired:
            ends = (
                f"gains {paired['gains']}, losses {paired['losses']}; McNemar p {paired['mcnemar_exact']:.3g} exact, "
                f"{paired['mcnemar_mid_p']:.3g} mid-p; {ends}"
            )
        lines.append(f"  paired: {ends}")
    metrics = table.get("metrics") or {}
    names = [name for name in metrics.get("candidate", {}) if ":" not in name and name != "accuracy"]
    for name in sorted(names):
        told = ", ".join(
            f"{who} {_share(metrics[who].get(name))}" for who in ("baseline", "champion", "candidate") if who in metrics
        )
        lines.append(f"  {name.replace('_', ' ')}: {told}")
    if found := table.get("k_fold"):
        told = (
            f"{_share(found['mean'])} +- {_share(found['sd'])}, {found['k']} folds of {found['rows']} rows"
            if "mean" in found
            else found["problem"]
        )
        lines.append(f"  k-fold estimate: {told}")
    return lines


def _row(title: str, line: Mapping[str, Any]) -> str:
    head = f"  {title[:35]:36}{line['rows']:>6} {_share(line['champion']):>9} {_share(line['candidate']):>9}"
    if not line["measured"]:
        return f"{head} {'':>11}  too few rows, not measured"
    if "low" not in line:
        return head
    if "p_family" in line:
        return f"{head} {_points(line['difference']):>11}  p {line['p']:.2g}, family {line['p_family']:.2g}"
    interval = f"{_points(line['low'])} to {_points(line['high'])} ({line['confidence'] * 100:.4g} %)"
    return f"{head} {_points(line['difference']):>11}  {interval}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _points(value: float) -> str:
    return f"{value * 100:+.1f}"
