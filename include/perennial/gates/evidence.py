"""What a person reads before deciding: the stored gate report as Markdown for the form, from numbers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_SLICES = 12
_LONGEST_LABEL = 60
_LONGEST_SENTENCE = 1500
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#!~])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the report is about. ``digest`` is of the candidate's components (sha256 hex), ``part`` the part of the version
    that moves, ``champion`` what it would replace, ``requested_by`` empty when a machine asked; ``links`` are name to URL."""

    agent: str
    version: str
    part: str
    digest: str
    champion: str | None
    reason: str
    requested_by: str = ""
    approvers: tuple[str, ...] = ()
    two_person: bool = False
    needed: int = 1
    hours: float = 72.0
    links: Mapping[str, str] = field(default_factory=dict)


def evidence(report: Mapping[str, Any], asked: Asked) -> str:
    """The page of one question: what is asked, why a person, the numbers, what changed, what was not measured, the rules.

    ``report`` is what the gates stored (``GateReport.as_dict``). No text of an example can be in it; labels, which may come
    from data, are shown without any markup of their own. Pure, so that the same report always makes the same page.

    >>> page = evidence({"action": "approve", "summary": "approve: holdout_size: 12 rows"}, Asked(
    ...     agent="scout", version="2.0.0", part="major", digest="ab" * 32, champion="1.4.2", reason="threshold"))
    >>> page.splitlines()[0]
    '**scout 1.4.2 → 2.0.0** (major version), candidate `abababababababab`'
    """
    lines = [
        f"**{asked.agent} {asked.champion or 'no champion yet'} → {asked.version}** ({asked.part} version), "
        f"candidate `{asked.digest[:16]}`",
        "",
        f"Trained because of: {plain(asked.reason)}. Asked for by: {plain(asked.requested_by) or 'a machine'}.",
        "",
        "### Why a person decides",
        *_why(report),
    ]
    for table in report.get("tables", ()):
        lines += ["", *_task(table)]
    unmeasured = [f"- {plain(note)}" for note in report.get("not_measured", ())]
    lines += ["", "### Not measured", *(unmeasured or ["- nothing is missing"])]
    lines += ["", "### What your answer does", *_rules(asked)]
    if asked.links:
        lines += ["", "### Look closer", *(f"- [{plain(name)}]({url})" for name, url in asked.links.items())]
    lines += [
        "",
        "*Holdout*: rows that no training ever sees; both models answered the same ones. *Difference*: candidate minus "
        "champion, in percentage points, with the interval in which the true one lies. *Slice*: the rows of one label.",
    ]
    return "\n".join(lines) + "\n"


def plain(text: object) -> str:
    r"""Text without markup of its own, on one line: labels may come from data, and a form must not load what they name.

    >>> print(plain("![x](y) <b>|"))
    \!\[x\](y) \<b\>\|
    """
    flat = " ".join(str(text).split())[:_LONGEST_SENTENCE]
    return _SPECIAL.sub(r"\\\1", flat).replace("://", ":/\u200b/")  # a bare address would become a link


def _why(report: Mapping[str, Any]) -> list[str]:
    asking = [verdict for verdict in report.get("verdicts", ()) if verdict["action"] == "approve"]
    told = [f"- **{plain(verdict['gate'])}**: {plain(verdict['reason'])}" for verdict in asking]
    passed = sum(verdict["action"] == "pass" for verdict in report.get("verdicts", ()))
    new = [
        f"- new labels of {plain(task)}: {', '.join(plain(label) for label in _names(labels))}"
        for task, labels in sorted((report.get("new_labels") or {}).items())
    ]
    return [*(told or [f"- {plain(report.get('summary', ''))}"]), *new, f"- gates that pass: {passed}"]


def _names(labels: Any) -> list[str]:
    return sorted(str(label)[:_LONGEST_LABEL] for label in labels)


def _task(table: Mapping[str, Any]) -> list[str]:
    lines = [f"### {plain(table['task'])}: {table['rows']} holdout rows", ""]
    if table.get("problems"):
        return lines + [f"- cannot be judged: {plain(problem)}" for problem in table["problems"]]
    lines += ["| | rows | champion | candidate | difference |", "|---|---:|---:|---:|---|"]
    lines.append(_row("all", {**table, "measured": True}))
    slices = sorted(table.get("slices", ()), key=_fall)
    lines += [_row(f"slice {str(line['title'])[:_LONGEST_LABEL]}", line) for line in slices[:MOST_SLICES]]
    if len(slices) > MOST_SLICES:
        lines.append(f"| {len(slices) - MOST_SLICES} more slices, none worse | | | | |")
    lines.append("")
    changes = table.get("changes")
    if changes is not None:
        lines.append(
            f"- examples whose answer changed: {changes['fixed']} now right that were wrong, "
            f"{changes['broken']} now wrong that were right, {changes['same']} as before"
        )
    lines += [
        f"- to beat without a champion: {plain(name)} {_share(value)}"
        for name, value in sorted((table.get("baselines") or {}).items())
    ]
    for key, title in (("corrections", "corrections of this batch"), ("regression", "earlier corrections")):
        count = table.get(key)
        if count and count["rows"]:
            right = "not measured" if count["right"] is None else f"{count['right']} of {count['rows']} answered right"
            lines.append(f"- {title}: {right}")
    return lines


def _fall(line: Mapping[str, Any]) -> tuple[bool, float]:
    # worst first, and what was not measured last
    return ("difference" not in line, float(line.get("difference") or 0.0))


def _row(title: str, line: Mapping[str, Any]) -> str:
    if not line.get("measured", True):
        told = "too few rows"
    elif "low" in line:
        told = f"{_points(line['difference'])} ({_points(line['low'])} to {_points(line['high'])})"
    else:
        told = ""
    return f"| {plain(title)} | {line['rows']} | {_share(line.get('champion'))} | {_share(line.get('candidate'))} | {told} |"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _points(value: float) -> str:
    return f"{value * 100:+.1f}"


def _rules(asked: Asked) -> Sequence[str]:
    who = f"Only {', '.join(plain(name) for name in asked.approvers)} may approve." if asked.approvers else ""
    if asked.two_person and asked.requested_by:
        who += f" {plain(asked.requested_by)} asked for this training and cannot approve it."
    elif asked.needed > 1:
        who += f" {asked.needed} different people must approve; the question comes back until they have."
    people = f" {who.strip()}" if who.strip() else ""
    return [
        f"- **Approve**: these bytes, and no others, are signed as {asked.version} and start their rollout. "
        f"Your name goes into the record. An approval that was not used lapses after {asked.hours:.0f} hours.{people}",
        "- **Reject**: the candidate is thrown away and its examples go back to wait; the champion keeps serving. "
        "No answer in time is a refusal.",
    ]
