"""The page Explain: what served at a moment, who put it there, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time

from perennial.errors import InvalidExample, UnknownAgent
from perennial.flows.explain import Explanation, Moment, explain
from perennial.flows.ports import Ports
from perennial.pages.gate_report import verdict_badge
from perennial.pages.html import Child, Html, el, join
from perennial.pages.layout import Column, badge, code, count, facts, heading, said, section, share, table, when
from perennial.pages.page import Asked, Page, Site


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainView:
    """The page in plain values; ``answer`` is there once an agent was asked about."""

    agents: tuple[str, ...]
    agent: str = ""
    time: datetime | None = None
    answer: Explanation | None = None


def moment(text: str, now: datetime) -> datetime:
    """A time that a person typed: a clock time of today, or ISO 8601; UTC when it names no zone. InvalidExample for anything else.

    >>> now = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
    >>> moment("14:02", now).isoformat(), moment("2026-11-20T09:00+01:00", now).isoformat()
    ('2026-11-21T14:02:00+00:00', '2026-11-20T09:00:00+01:00')
    >>> moment("14:02+01", now).isoformat()
    '2026-11-21T14:02:00+01:00'
    """
    text = text.strip()
    try:
        if text[2:3] == ":":
            clock = time.fromisoformat(text)
            zone = clock.tzinfo or UTC
            found = datetime.combine(now.astimezone(zone).date(), clock, tzinfo=zone)
        else:
            found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        found.astimezone(UTC)  # the pages show it in UTC, where the first and the last day of the calendar may not be
    except (ValueError, OverflowError) as error:
        raise InvalidExample(
            "time", "is not a time like 14:02 or 2026-11-21T14:02", "type one; UTC is meant when it names no zone"
        ) from error
    return found


def gather(ports: Ports, *, agent: str = "", at: str = "", now: datetime) -> ExplainView:
    """The answer for an agent at a time (now when none is given). UnknownAgent when nobody knows the agent."""
    agents = tuple(sorted({*ports.fleet().names, *ports.ledger.agents()}))
    if not agent:
        return ExplainView(agents=agents)
    if agent not in agents:
        raise UnknownAgent(agent, list(agents))
    chosen = moment(at, now) if at.strip() else now
    if not ports.ledger.moves(agent, 1):
        nothing = Explanation(
            agent=agent, version=None, outcome="nothing served yet", moment=Moment(time=chosen, champion=None)
        )
        return ExplainView(agents=agents, agent=agent, time=chosen, answer=nothing)
    answer = explain(ports, agent, at=chosen, chain=True, check_files=False)
    return ExplainView(agents=agents, agent=agent, time=chosen, answer=answer)


def render(view: ExplainView, asked: Asked) -> Html:
    """The form, the answer in a sentence, then where that version came from and its ancestors."""
    return join(
        heading("Explain", "What served at a moment, who put it there, and what it was made from."),
        _form(view, asked),
        _answer(view, view.answer, asked) if view.answer is not None else None,
    )


def _form(view: ExplainView, asked: Asked) -> Html:
    names = [el("option", name, value=name, selected=name == view.agent) for name in view.agents]
    return section(
        "Ask",
        el(
            "form",
            el(
                "div", el("label", "Agent", for_="agent"), el("select", names, id="agent", name="agent"), class_="field"
            ),
            el(
                "div",
                el("label", "Time, UTC (14:02 or 2026-11-21T14:02; empty: now)", for_="at"),
                el(
                    "input",
                    id="at",
                    name="at",
                    type="text",
                    value=asked.query.get("at", ""),
                    maxlength=40,
                    autocomplete="off",
                ),
                class_="field",
            ),
            el("button", "Explain", type="submit"),
            method="get",
            action=asked.to("/explain"),
            class_="ask",
        ),
    )


def _answer(view: ExplainView, found: Explanation, asked: Asked) -> Html:
    now = found.moment
    if now is None or now.champion is None:
        first = now.first if now is not None else None
        told: Child = (
            join("Nothing served then. The first was ", first[0], ", ", when(first[1], asked.now), ".")
            if first is not None
            else "Nothing has served yet."
        )
        return section("Answer", el("p", told, class_="answer"))
    version = el("a", now.champion, href=asked.to("/version", agent=view.agent, version=now.champion))
    candidate = (
        join(" Beside it the candidate ",
             el("a", now.candidate, href=asked.to("/version", agent=view.agent, version=now.candidate)), " had ",
             share(now.share) if now.share is not None else "an unknown share", " of the keys.")
        if now.candidate
        else None
    )  # fmt: skip
    pairs: list[tuple[str, Child]] = [
        ("At", when(now.time, asked.now, exact=True)),
        ("Served since", when(now.since, asked.now, exact=True)),
        ("Until", when(now.until, asked.now, exact=True) if now.until else badge("still serves", "good")),
        ("Put there by", said(now.actor)),
        ("Because", said(now.reason)),
        ("Today", said(found.outcome)),
    ]
    return join(
        section("Answer", el("p", view.agent, " ", version, " served.", candidate, class_="answer"), facts(pairs)),
        el("div", _judged(found, asked), _origin(found, asked), class_="grid"),
        _trained(found),
        _chain(view, found, asked),
    )


def _judged(found: Explanation, asked: Asked) -> Html:
    verdict = verdict_badge(found.gate_action) if found.gate_action else badge("no report", "warn")
    pairs: list[tuple[str, Child]] = [("Gates", join(verdict, " ", said(found.gate_summary)))]
    for one in found.decisions:
        pairs.append(
            (
                "Decision",
                join(badge(one.decision), " ", said(one.actor), " ", when(one.at, asked.now), " ", said(one.comment)),
            )
        )
    if not found.decisions:
        pairs.append(("Approval", badge("needed, none given", "warn") if found.approval_needed else "not needed"))
    pairs += [("Bundle", code(found.digest, short=16)), ("Signature", said(found.signature))]
    return section("What judged it", facts(pairs))


def _origin(found: Explanation, asked: Asked) -> Html:
    trigger = found.trigger
    if trigger is None:
        return section("Where it came from", el("p", "Nothing is on record.", class_="empty"))
    return section(
        "Where it came from",
        facts(
            [
                ("Why it trained", badge(trigger.reason or "unknown", "info")),
                ("Asked for by", said(trigger.requested_by) if trigger.requested_by else "a machine"),
                ("Trained", when(trigger.started_at, asked.now)),
                ("Outcome", said(trigger.note or trigger.missing or "–")),
                ("Released", when(found.released_at, asked.now)),
            ]
        ),
    )


def _trained(found: Explanation) -> Html:
    columns = (Column(title="Task"), Column(title="How"), Column(title="New", number=True), Column(title="Replayed", number=True),
               Column(title="Holdout", number=True))  # fmt: skip
    rows = [(said(one.task), one.how, count(one.new), count(one.replay), count(one.holdout)) for one in found.trained]
    return section("Made from", table("Examples by task", columns, rows, empty="No examples are on record."))


def _chain(view: ExplainView, found: Explanation, asked: Asked) -> Html | None:
    if not found.chain:
        return None
    columns = (
        Column(title="Version"),
        Column(title="Released"),
        Column(title="Why"),
        Column(title="Examples", number=True),
        Column(title="Gate"),
    )
    rows = [
        (el("a", one.version, href=asked.to("/version", agent=view.agent, version=one.version)), when(one.released_at, asked.now),
         said(f"{one.reason} {one.mode}"), count(one.examples), verdict_badge(one.gate))
        for one in found.chain
    ]  # fmt: skip
    return section("Ancestors", table("From this version back to the first", columns, rows, sortable=False))


def _show(site: Site, asked: Asked) -> Html:
    return render(
        gather(site.ports, agent=asked.query.get("agent", ""), at=asked.query.get("at", ""), now=asked.now), asked
    )


PAGE = Page(path="/explain", title="Explain", show=_show)
