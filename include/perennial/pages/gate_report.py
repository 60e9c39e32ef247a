"""A stored gate report as markup: each gate's answer, each task's numbers with intervals, groups side by side, what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perennial.gates.catalogue import gates
from perennial.pages.charts import interval
from perennial.pages.html import Child, Html, el, join
from perennial.pages.layout import Cell, Column, badge, count, lines, more, points, said, section, share, table

VERDICTS = {"pass": ("pass", "good"), "hold": ("hold", "bad"), "approve": ("asks a person", "warn")}
GROUPED = ("label", "source")  # what rows are told apart by when groups are compared
_REACH = 0.15  # differences beyond 15 points touch the edge of their picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """How far apart the best and the worst served group of one kind are for the candidate; shares in [0, 1].

    ``missing`` says why it was not measured; then the other fields are empty.
    """

    task: str
    kind: str
    best: str = ""
    worst: str = ""
    high: float | None = None
    low: float | None = None
    groups: int = 0
    missing: str = ""

    @property
    def gap(self) -> float | None:
        """Best minus worst."""
        return None if self.high is None or self.low is None else round(self.high - self.low, 6)


def gaps(report: Mapping[str, Any]) -> tuple[Gap, ...]:
    """Every task's gap by label and by sender, and each named group without rows as "not measured", never as a pass.

    >>> slices = [{"kind": "label", "name": name, "measured": True, "candidate": right}
    ...           for name, right in (("sports", 0.9), ("world", 0.8))]
    >>> [(gap.kind, gap.gap, gap.missing) for gap in gaps({"tables": [{"task": "topic", "slices": slices}]})]
    [('label', 0.1, ''), ('source', None, 'fewer than two groups have enough rows')]
    """
    found = []
    for one in report.get("tables", ()):
        for kind in GROUPED:
            found.append(_gap(one["task"], kind, one.get("slices", ())))
        for name, group in (one.get("groups") or {}).items():
            if "missing" in group:
                found.append(Gap(task=one["task"], kind=name, missing=str(group["missing"])))
    return tuple(found)


def _gap(task: str, kind: str, slices: Sequence[Mapping[str, Any]]) -> Gap:
    known = [
        (float(line["candidate"]), str(line["name"])) for line in slices
        if line["kind"] == kind and line.get("measured") and line.get("candidate") is not None
    ]  # fmt: skip
    if len(known) < 2:
        return Gap(task=task, kind=kind, groups=len(known), missing="fewer than two groups have enough rows")
    (high, best), (low, worst) = max(known), min(known)
    return Gap(task=task, kind=kind, best=best, worst=worst, high=high, low=low, groups=len(known))


def gates_table(report: Mapping[str, Any]) -> Html:
    """One row per gate: its question, its verdict and why."""
    questions = {gate.name: gate.question for gate in gates()}
    columns = (Column(title="Gate"), Column(title="Verdict"), Column(title="Question"), Column(title="What it says"))
    rows = [
        (el("code", one["gate"]), verdict_badge(one["action"]), questions.get(one["gate"], "Does a person agree?"), said(one["reason"]))
        for one in report.get("verdicts", ())
    ]  # fmt: skip
    return table("The gates' answers", columns, rows, empty="No gate answered.")


def verdict_badge(action: str) -> Html:
    """A verdict in words."""
    words, tone = VERDICTS.get(action, (action, "quiet"))
    return badge(words, tone)


def task_sections(report: Mapping[str, Any]) -> list[Html]:
    """A part of the page per task."""
    return [_task(one) for one in report.get("tables", ())]


def _task(one: Mapping[str, Any]) -> Html:
    title = f"{one['task']}: {count(one['rows'])} holdout rows"
    if one.get("problems"):
        return section(
            title, el("p", badge("cannot be judged", "bad")), lines(said(problem) for problem in one["problems"])
        )
    columns = (
        Column(title="Part"), Column(title="Rows", number=True), Column(title="Champion", number=True),
        Column(title="Candidate", number=True), Column(title="Difference", number=True, about="in percentage points"),
        Column(title="Interval", about="where the true difference lies"), Column(title="From … to", number=True),
        Column(title="p of the family", number=True, about="chance of such a drop by accident, after looking at all slices"),
    )  # fmt: skip
    parts = [_row("all rows", {**one, "measured": True})]
    parts += [_row(str(line.get("title") or line["name"]), line) for line in sorted(one.get("slices", ()), key=_fall)]
    return section(
        title,
        table(f"Champion and candidate on {one['task']}", columns, parts),
        el("div", _beside(one), class_="grid"),
        note="Both models answered the same rows, which no training has seen. Worst slices first.",
    )


def _fall(line: Mapping[str, Any]) -> tuple[bool, float]:
    return ("difference" not in line, float(line.get("difference") or 0.0))  # what was not measured stands last


def _row(title: str, line: Mapping[str, Any]) -> tuple[Child | Cell, ...]:
    measured = line.get("measured", True) and "low" in line
    name: Child = said(title)
    if not measured:
        told = badge("too few rows" if not line.get("measured", True) else "no champion")
        return (
            name, count(line["rows"]), share(line.get("champion")), share(line.get("candidate")), Cell(shown="–", key=-9), told, "–", "–",
        )  # fmt: skip
    low, high, middle = float(line["low"]), float(line["high"]), float(line["difference"])
    level = f" at {float(line['confidence']) * 100:.4g} %" if "confidence" in line else ""
    return (
        name, count(line["rows"]), share(line.get("champion")), share(line.get("candidate")),
        Cell(shown=points(middle), key=middle), interval(low, middle, high, reach=_REACH, title=title),
        el("span", f"{points(low)} … {points(high)}", title=f"{points(low)} to {points(high)}{level}"),
        f"{line['p_family']:.2g}" if "p_family" in line else "–",
    )  # fmt: skip


def _beside(one: Mapping[str, Any]) -> list[Child]:
    """What stands beside a task's table: other metrics, and what was learned."""
    found: list[Child] = []
    metrics = one.get("metrics") or {}
    names = sorted({name for who in metrics.values() for name in who if ":" not in name})
    if names:
        arms = [arm for arm in ("baseline", "champion", "candidate") if arm in metrics]
        columns = (Column(title="Metric"), *(Column(title=arm.title(), number=True) for arm in arms))
        rows = [(name.replace("_", " "), *(share(metrics[arm].get(name)) for arm in arms)) for name in names]
        found.append(el("div", el("h3", "Metrics"), table(f"Metrics of {one['task']}", columns, rows)))
    told: list[Child] = [
        f"baseline to beat, {name}: {share(value)}" for name, value in sorted((one.get("baselines") or {}).items())
    ]
    for key, title in (("corrections", "corrections of this batch"), ("regression", "earlier corrections")):
        number = one.get(key)
        if number:
            right = (
                "not measured" if number["right"] is None else f"{number['right']} of {number['rows']} answered right"
            )
            told.append(f"{title}: {right if number['rows'] else 'none'}")
    paired = one.get("paired") or {}
    if "gains" in paired:
        told.append(
            f"rows that only one answers right: {paired['gains']} gains, {paired['losses']} losses "
            f"(McNemar p {paired['mcnemar_exact']:.3g}, decides nothing)"
        )
    if "mean" in (one.get("k_fold") or {}):
        fold = one["k_fold"]
        told.append(f"{fold['k']}-fold estimate: {share(fold['mean'])} ± {share(fold['sd'])}")
    if told:
        found.append(el("div", el("h3", "Beside it"), lines(told)))
    return found


def gaps_section(report: Mapping[str, Any]) -> Html:
    """How evenly the candidate serves the groups of rows; what was not measured says so."""
    columns = (
        Column(title="Task"), Column(title="Groups by"), Column(title="Gap", number=True, about="best minus worst, in points"),
        Column(title="Best"), Column(title="Worst"),
    )  # fmt: skip
    rows: list[tuple[Child | Cell, ...]] = []
    for one in gaps(report):
        if one.missing:
            rows.append((said(one.task), one.kind, badge("not measured", "warn"), said(one.missing), "–"))
        else:
            rows.append(
                (said(one.task), f"{one.kind} ({one.groups})", Cell(shown=points(one.gap).lstrip("+"), key=one.gap or 0.0),
                 join(said(one.best), " ", share(one.high)), join(said(one.worst), " ", share(one.low)))
            )  # fmt: skip
    return section(
        "Evenness",
        table("Gap between the best and the worst served group", columns, rows, empty="No task was judged."),
        note="How far apart the groups are that the candidate serves best and worst. Senders stand under an alias.",
    )


def unmeasured(report: Mapping[str, Any]) -> Html:
    """What nobody measured; an empty list is said too."""
    notes = list(report.get("not_measured", ()))
    shown = lines(said(note) for note in notes[:12]) if notes else el("p", badge("nothing is missing", "good"))
    rest = notes[12:]
    return section(
        "Not measured", shown, more(f"{len(rest)} more", lines(said(note) for note in rest)) if rest else None
    )
