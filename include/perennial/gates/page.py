"""A gate report as a page of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_HEAD = {
    "pass": "PASSES: the candidate may go on to the canary.",
    "hold": "HELD: the candidate does not serve; the champion stays.",
    "approve": "WAITS: the numbers allow it, but a person must agree.",
}
_TERMS = (
    "accuracy     share of holdout rows answered right; for scores the mean of 1 - |error|",
    "holdout      rows that no training ever sees, frozen for this evaluation; both models answer the same rows",
    "difference   candidate minus champion, in percentage points",
    "interval     where the true difference lies with the stated confidence, given that both answered the same rows",
    "slice        the holdout rows of one label; accuracy there is the label's recall",
    "corrections  rows of this batch that a person corrected; earlier ones must not be unlearned",
    "inconclusive too few rows, or too many disagreements, to rule a bad drop out",
)


def render(report: Mapping[str, Any], questions: Mapping[str, str]) -> str:
    """Lines of at most about 110 characters.

    The decision, each gate's answer, a table per task, what was not measured, the terms.
    """
    lines = [_HEAD.get(report["action"], report["action"]), *_wrapped(report["summary"], ""), "", "GATES"]
    for verdict in report["verdicts"]:
        question = questions.get(verdict["gate"], "Does a person agree?")
        lines.append(f"  {verdict['action'].upper():8}{verdict['gate']:16} {question}")
        by_task = verdict["evidence"].get("tasks") or {}
        for sentence in [found["says"] for found in by_task.values()] or [verdict["reason"]]:
            lines += _wrapped(sentence, " " * 10)
    for table in report["tables"]:
        lines += ["", *_task(table)]
    lines += ["", "NOT MEASURED", *[f"  {note}" for note in report["not_measured"] or ["nothing is missing"]]]
    lines += ["", "TERMS", *[f"  {term}" for term in _TERMS]]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)


def _task(table: Mapping[str, Any]) -> list[str]:
    lines = [f"TASK {table['task']} ({table['kind']}, {table['rows']} holdout rows)"]
    if table.get("problems"):
        return lines + [f"  cannot be judged: {problem}" for problem in table["problems"]]
    lines.append(f"  {'':24}{'rows':>6} {'champion':>9} {'candidate':>9} {'difference':>11}  interval")
    lines.append(_row("all", {**table, "measured": True}))
    lines += [_row(f"label {line['label']}", line) for line in table["slices"]]
    for name, value in sorted((table.get("baselines") or {}).items()):
        lines.append(f"  baseline to beat: {name} {_share(value)}")
    for key, title in (("corrections", "corrections of this batch"), ("regression", "earlier corrections")):
        count = table[key]
        told = "not measured" if count["right"] is None else f"{count['right']} of {count['rows']} answered right"
        lines.append(f"  {title}: {told if count['rows'] else 'none'}")
    return lines


def _row(title: str, line: Mapping[str, Any]) -> str:
    head = f"  {title[:23]:24}{line['rows']:>6} {_share(line['champion']):>9} {_share(line['candidate']):>9}"
    if not line["measured"]:
        return f"{head} {'':>11}  too few rows, not measured"
    if "low" not in line:
        return head
    interval = f"{_points(line['low'])} to {_points(line['high'])} ({line['confidence'] * 100:.4g} %)"
    return f"{head} {_points(line['difference']):>11}  {interval}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _points(value: float) -> str:
    return f"{value * 100:+.1f}"
