"""The page Fleet: every agent on one page, what it serves, what waits, what happens next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from perennial.fleet.agent import Agent
from perennial.flows.pause import pause_of, waits
from perennial.flows.ports import Ports
from perennial.flows.redaction_tasks import totals
from perennial.flows.training_switch import DagFacts, Dags, switch_training, train_dag_id
from perennial.ingest.aside import MOST_COUNTED
from perennial.pages.charts import Point, sparkline
from perennial.pages.html import Child, Html, el, join, link
from perennial.pages.layout import (
    Cell,
    Column,
    badge,
    count,
    heading,
    more,
    post,
    said,
    section,
    share,
    table,
    when,
    why,
)
from perennial.pages.overview import MOST, Overview, Score, Standing, Tally
from perennial.pages.page import Action, Asked, Page, Site
from perennial.pages.roles import Role

NIGHTLY = "nightly_retrain"
_SERVES = frozenset({"baking", "done"})
_OPEN = frozenset({"pending", "shadow", "canary", "baking"})
_VERDICTS = {"pass": ("passed", "good"), "hold": ("held", "bad"), "approve": ("asks a person", "warn")}
_WAITING = ("raw", "ready", "claimed")
_ASIDE = ("unlabelled", "quarantined", "held")
_LINES = 3  # tasks with nothing but quarantined rows that get a line each; more share one
_ABOUT = {
    "raw": "came in, not yet checked and redacted", "ready": "wait for a training", "claimed": "in a training now",
    "trained": "made a version", "holdout": "kept from training, to judge candidates", "unlabelled": "wait for a label",
    "quarantined": "set aside by a check", "held": "wait for a person after refusals",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentRow:
    """One agent. ``paused`` None: Airflow has not parsed its DAG; ``breaker``, ``next`` and ``waits`` are sentences."""

    name: str
    owner: str
    description: str
    standing: Standing
    paused: bool | None
    breaker: str
    next: str
    waits: str = ""  # why it may not train although it is due
    unsure: int = 0  # finds of personal data that a person is asked about


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetView:
    """The page in plain values; ``broken`` are fleet files that do not load, as file, line and message."""

    rows: tuple[AgentRow, ...]
    broken: tuple[tuple[str, int, str], ...]
    night: datetime | None


def gather(ports: Ports, overview: Overview, dags: Dags) -> FleetView:
    """Every agent of the fleet; a handful of statements whatever its size."""
    ports = ports.with_fleet_read()
    fleet = ports.fleet()
    names = [agent.name for agent in fleet.agents]
    standings = overview.standings(names)
    known = dags.facts([*map(train_dag_id, names), NIGHTLY])
    night = known[NIGHTLY].next_run if NIGHTLY in known and not known[NIGHTLY].paused else None
    asked = totals(ports)
    rows = tuple(
        replace(_row(ports, agent, standings[agent.name], known, night), unsure=asked.get(agent.name, 0))
        for agent in fleet.agents
    )
    broken = tuple((one.file.rpartition("/")[2], one.line, one.message) for one in fleet.errors)
    return FleetView(rows=rows, broken=broken, night=night)


def _row(
    ports: Ports, agent: Agent, standing: Standing, known: Mapping[str, DagFacts], night: datetime | None
) -> AgentRow:
    facts = known.get(train_dag_id(agent.name))
    paused = None if facts is None else facts.paused
    due = standing.due
    breaker_of = cache(lambda: pause_of(ports, agent.name))
    # asking costs more than everything else of a row, so an agent whose newest candidate came to serve is not asked about
    held = ""
    if due is not None and due.due and due.reason is not None and (agent.budget.limited or not _came_through(standing)):
        held = waits(ports, agent.name, due.reason, breaker=breaker_of) or ""
    refused = standing.rollout_state == "reverted" or (
        standing.verdict is not None and standing.verdict.action == "hold"
    )
    breaker = breaker_of() if refused or held else None
    told = breaker.reason if breaker is not None else ""
    return AgentRow(
        name=agent.name, owner=agent.owner, description=agent.description, standing=standing, paused=paused, breaker=told,
        next=next_trigger(standing, paused=bool(paused), breaker=told, waits=held, night=night), waits=held,
    )  # fmt: skip


def _came_through(standing: Standing) -> bool:
    """Whether the champion is newer than every verdict and its rollout the newest: then no first rollout and no refusal is open."""
    judged = standing.verdict.at if standing.verdict is not None else None
    promoted = standing.since is not None and (judged is None or judged <= standing.since)
    return promoted and standing.rollout_state in _SERVES


def next_trigger(standing: Standing, *, paused: bool, breaker: str, waits: str, night: datetime | None) -> str:
    """What starts the next training, in words; ``waits``: why one that is due may not start, which an open ``breaker`` may be.

    >>> next_trigger(Standing(agent="scout"), paused=True, breaker="", waits="", night=None)
    'nothing while it is paused'
    >>> from perennial.ingest.results import Due
    >>> due = Due(due=False, reason=None, waiting=38, corrections=0, threshold=50)
    >>> next_trigger(Standing(agent="scout", due=due), paused=False, breaker="", waits="", night=datetime(2026, 11, 22, 2))
    '12 more rows, or the night at 02:00'
    """
    if paused:
        return "nothing while it is paused"
    if standing.running:
        return "after the training that runs now"
    due = standing.due
    if due is not None and due.due and not waits:
        return "now"
    if waits and waits != breaker:
        return f"nothing now: {waits}"
    at_night = f"the night at {night:%H:%M}" if night is not None else ""
    if due is None or breaker:
        return f"a correction, a request{f', or {at_night}' if at_night else ''}"
    missing = max(due.threshold - due.waiting, 0)
    rows = f"{missing} more row{'' if missing == 1 else 's'}"
    return f"{rows}, or {at_night}" if at_night else rows


def render(view: FleetView, asked: Asked) -> Html:
    """Summary, what is broken, one row per agent."""
    return join(
        heading("Fleet", "Every agent, what it serves, and what happens next.", side=_summary(view.rows)),
        _broken(view),
        section("Agents", _table(view.rows, asked)),
    )


def _summary(rows: Sequence[AgentRow]) -> Html:
    training = sum(row.standing.running for row in rows)
    due = sum(row.next == "now" for row in rows)
    rolling = sum(row.standing.candidate is not None for row in rows)
    paused = sum(bool(row.paused) or bool(row.breaker) for row in rows)
    return el(
        "p",
        badge("1 agent" if len(rows) == 1 else f"{len(rows)} agents", "info"), " ",
        badge(f"{training} training", "busy" if training else "quiet"), " ",
        badge(f"{due} due", "warn" if due else "quiet"), " ",
        badge(f"{rolling} in rollout", "busy" if rolling else "quiet"), " ",
        badge(f"{paused} paused", "warn" if paused else "quiet"),
    )  # fmt: skip


def _broken(view: FleetView) -> Html | None:
    if not view.broken:
        return None
    columns = (Column(title="File"), Column(title="Line", number=True), Column(title="What is wrong"))
    rows = [(el("code", file), line, said(message)) for file, line, message in view.broken]
    return section("Files that do not load", table("Fleet files that do not load", columns, rows))


def _table(rows: Sequence[AgentRow], asked: Asked) -> Html:
    columns = (
        Column(title="Agent"),
        Column(title="Champion", about="the version that serves"),
        Column(title="Traffic", about="the candidate's share of the keys"),
        Column(
            title="Score",
            about="mean scores of the last candidates; the figure is of the last that passed, a red dot was refused",
        ),
        Column(title="Last verdict", about="what the gates said about the newest candidate"),
        Column(title="Buffer", about="rows by task and state; each state is counted up to 500"),
        Column(title="Due"),
        Column(title="Next trigger"),
        Column(title="Trainings"),
    )
    return table(
        "Agents of the fleet",
        columns,
        [_cells(row, asked) for row in rows],
        empty="No agent yet. Add a file to include/fleet, as docs/guide.md shows; it appears here within seconds.",
    )


def _cells(row: AgentRow, asked: Asked) -> tuple[Child | Cell, ...]:
    standing = row.standing
    aside = asked.to("/quarantine", agent=standing.agent)
    last = next((one.score for one in reversed(standing.trend) if one.score is not None and not one.refused), None)
    return (
        Cell(shown=_agent(row, asked), key=row.name),
        Cell(shown=_champion(standing, asked), key=standing.since.timestamp() if standing.since else 0),
        Cell(shown=_traffic(standing, asked), key=standing.share),
        Cell(shown=_score(row.name, standing.trend), key=last if last is not None else -1),
        Cell(shown=_verdict(standing, asked), key=standing.verdict.at.timestamp() if standing.verdict else 0),
        Cell(
            shown=join(_buffer(standing.tallies, aside), _unsure(row, asked)),
            key=sum(one.rows for one in standing.tallies if one.state in _WAITING),
        ),
        Cell(shown=_due(row), key=_due_words(row)[0]),
        row.next,
        Cell(shown=_switch(row, asked), key=int(bool(row.paused))),
    )


def _agent(row: AgentRow, asked: Asked) -> Html:
    return join(
        el("a", row.name, href=asked.to("/version", agent=row.name)),
        el("span", said(row.owner), class_="stack small"),
        el("span", said(row.description), class_="stack small") if row.description else None,
    )


def _champion(standing: Standing, asked: Asked) -> Html:
    if standing.champion is None:
        return badge("none yet")
    return join(
        el("a", standing.champion, href=asked.to("/version", agent=standing.agent, version=standing.champion)),
        el("span", "since ", when(standing.since, asked.now), class_="stack small"),
    )


def _traffic(standing: Standing, asked: Asked) -> Html:
    if standing.candidate is not None:
        return join(
            link(standing.candidate, asked.to("/version", agent=standing.agent, version=standing.candidate)),
            " ", badge(f"{standing.rollout_state or 'waits'} {share(standing.share, 0)}", "busy"),
        )  # fmt: skip
    if standing.rollout_state == "reverted":
        return join(badge("reverted", "bad"), el("span", standing.rollout_version, class_="stack small"))
    if standing.rollout_state == "baking":
        return badge("baking 100 %", "busy")
    return badge("champion 100 %") if standing.champion else el("span", "–", class_="none")


def _score(agent: str, trend: Sequence[Score]) -> Html:
    points = [
        Point(label=one.version or "refused", value=one.score, marked=one.refused or one.version is None)
        for one in trend
    ]
    known = [one.score for one in trend if one.score is not None]
    good = [one.score for one in trend if one.score is not None and not one.refused]
    if not known:
        return el("span", "no score yet", class_="none")
    return el(
        "div", sparkline(points, title=f"Score of {agent}"), el("span", share((good or known)[-1]), class_="figure"), class_="spark-cell"
    )  # fmt: skip


def _verdict(standing: Standing, asked: Asked) -> Html:
    verdict = standing.verdict
    if verdict is None:
        return el("span", "none yet", class_="none")
    words, tone = _VERDICTS.get(verdict.action, (verdict.action, "quiet"))
    report = asked.to("/version", agent=standing.agent, version=str(verdict.job_id))
    return join(
        el("a", badge(words, tone), href=report, title=verdict.summary[:300]),
        el("span", when(verdict.at, asked.now), class_="stack small"),
    )


def _rows(tally: Tally) -> str:
    """Exact, or that there are more: where the agent's rows of a state are too many to count, a task's number is no more than a hint.

    >>> _rows(Tally(task="topic", state="ready", rows=24, more=True)), _rows(Tally(task="topic", state="held", rows=24, more=False))
    ('24 or more', '24')
    """
    if not tally.more:
        return count(tally.rows)
    return f"more than {count(MOST)}" if tally.rows >= MOST else f"{count(tally.rows)} or more"


def _buffer(tallies: Sequence[Tally], aside: str) -> Html:
    """Counts by task and state; those that wait for a person lead to ``aside``."""
    tasks = sorted({tally.task for tally in tallies})
    if not tasks:
        return el("span", "empty", class_="none")
    order = (*_WAITING, "trained", "holdout", *_ASIDE)
    folded = _folded(tallies)
    lines = []
    for task in (task for task in tasks if task not in folded):
        mine = {tally.state: tally for tally in tallies if tally.task == task}
        parts: list[Child] = []
        for state in order:
            if state in mine:
                tally = mine[state]
                shown = el(
                    "span", f"{_rows(tally)} {state}", title=_ABOUT[state], class_="aside" if state in _ASIDE else None
                )
                parts += [" · " if parts else None, el("a", shown, href=aside) if state in _ASIDE else shown]
        lines.append(el("div", el("strong", said(task)), " ", parts, class_="line"))
    if folded:
        held = [tally for tally in tallies if tally.task in folded]
        rows = f"{count(sum(tally.rows for tally in held))}{' or more' if any(tally.more for tally in held) else ''} quarantined"
        more = el("a", el("span", rows, title=_ABOUT["quarantined"], class_="aside"), href=aside)
        lines.append(el("div", el("strong", f"{count(len(folded))} other tasks"), " ", more, class_="line"))
    return join(lines)


def _folded(tallies: Sequence[Tally]) -> frozenset[str]:
    """Tasks that share one line: with nothing but quarantined rows, if there are many. Mostly names that no file knows, as a sender makes
    them up."""
    other = {tally.task for tally in tallies if tally.state != "quarantined"}
    found = frozenset(tally.task for tally in tallies) - other
    return found if len(found) > _LINES else frozenset()


def _unsure(row: AgentRow, asked: Asked) -> Html | None:
    if not row.unsure:
        return None
    words = f"{count(min(row.unsure, MOST_COUNTED))}{'+' if row.unsure > MOST_COUNTED else ''} unsure"
    about = "finds of personal data that no detector is sure of: replaced, and a person may let them stand"
    return el(
        "div", el("a", words, href=asked.to("/quarantine", agent=row.name), title=about, class_="aside"), class_="line"
    )


def _due_words(row: AgentRow) -> tuple[str, str, str]:
    """Words, tone, and the details."""
    due = row.standing.due
    if row.standing.running:
        return "training", "busy", ""
    if row.breaker:
        return "stopped", "bad", row.breaker
    if due is None:
        return "unknown", "quiet", "the database does not know the agent yet; the DAG fleet_check tells it"
    waiting = f"{due.waiting} of {due.threshold} rows" + (f", {due.corrections} corrected" if due.corrections else "")
    if row.waits:
        return "waits", "warn", row.waits
    if due.due and due.reason is not None:
        return "due", "warn", f"{due.reason.value}: {waiting}"
    return "not due", "quiet", waiting


def _due(row: AgentRow) -> Html:
    words, tone, details = _due_words(row)
    return join(badge(words, tone), el("span", details, class_="stack small") if details else None)


def _switch(row: AgentRow, asked: Asked) -> Html:
    if row.paused is None:
        return badge("no DAG yet")
    state = badge("paused", "warn") if row.paused else badge("on", "good")
    if not asked.may(Role.OPERATOR):
        return state
    verb = "Resume" if row.paused else "Pause"
    form = post(
        asked.to("/fleet/resume" if row.paused else "/fleet/pause"),
        why(f"why-{row.name}"),
        button=f"{verb} {row.name}",
        hidden={"agent": row.name},
    )
    return join(state, more(f"{verb} …", form))


def _show(site: Site, asked: Asked) -> Html:
    return render(gather(site.ports, site.overview, site.dags), asked)


def _switched(site: Site, asked: Asked, paused: bool) -> str:
    agent = asked.needed("agent")
    switch_training(site.ports, site.dags, agent, paused=paused, actor=asked.user.id, reason=asked.reason())
    return asked.to("/fleet", said="paused" if paused else "resumed")


PAGE = Page(
    path="/fleet",
    title="Fleet",
    show=_show,
    actions=(
        Action(path="/fleet/pause", role=Role.OPERATOR, run=lambda site, asked: _switched(site, asked, True)),
        Action(path="/fleet/resume", role=Role.OPERATOR, run=lambda site, asked: _switched(site, asked, False)),
    ),
    notices={
        "paused": "Trainings are paused. What comes in waits in the buffer.",
        "resumed": "Trainings go on.",
    },
)
