"""The page of rollouts: live arms, the interval that may be read at any moment, what comes next; abort and promote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from perennial.domain.words import Parked, RolloutAction, RolloutDecision, RolloutState
from perennial.errors import InvalidExample, UnknownAgent
from perennial.flows.decide import decide
from perennial.flows.explain import Look, look_of
from perennial.flows.ports import Ports
from perennial.flows.rollout import canary_shares
from perennial.flows.rollout_status import rollout_status
from perennial.pages.html import Html, el, join
from perennial.pages.layout import (
    Column,
    badge,
    code,
    count,
    facts,
    heading,
    lines,
    more,
    points,
    post,
    said,
    section,
    share,
    span,
    table,
    when,
    why,
)
from perennial.pages.page import Action, Asked, Page, Site
from perennial.pages.roles import Role
from perennial.rollout.machine import OPEN
from perennial.rollout.rows import RolloutRow

RECENT = 20  # rollouts of an agent that the page lists
LOOKS = 50  # looks of one rollout, the newest
SECONDS = 10  # after which the page of a live rollout is read again, where a script may run

_TONES = {
    RolloutState.PENDING: "busy", RolloutState.SHADOW: "busy", RolloutState.CANARY: "busy", RolloutState.BAKING: "info",
    RolloutState.DONE: "good", RolloutState.REVERTED: "bad", RolloutState.SUPERSEDED: "quiet",
}  # fmt: skip
_SAYS = {
    RolloutAction.PROMOTE.value: "good", RolloutAction.HOLD.value: "busy", RolloutAction.ROLLBACK.value: "bad",
    RolloutAction.ASK.value: "warn",
}  # fmt: skip
_WORDS = {
    RolloutState.PENDING: "about to begin", RolloutState.SHADOW: "in shadow", RolloutState.CANARY: "in canary",
    RolloutState.BAKING: "serves everything, still watched", RolloutState.DONE: "done", RolloutState.REVERTED: "reverted",
    RolloutState.SUPERSEDED: "superseded",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One arm's numbers since the rollout began. ``share`` of the keys and ``agreement`` in [0, 1], latencies in ms; None: unknown."""

    name: str
    version: str | None
    share: float | None
    answers: int
    errors: int
    p50_ms: float | None
    p95_ms: float | None
    outcomes: int
    right: float | None
    agreement: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Candidate minus champion, shares right on outcomes; ``low`` and ``high`` hold the truth at all looks together with 95 %.

    ``allowed`` is the greatest drop of the plan. An end that is not known yet is None.
    """

    value: float
    low: float | None
    high: float | None
    allowed: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutView:
    """One rollout of one agent. ``live``: it is the agent's newest and not over, so numbers are of now and may be decided on.

    ``says`` None: no verdict, because nothing is judged in its state.
    """

    agent: str
    row: RolloutRow | None
    live: bool
    serving: str | None
    freeze: str | None
    breaker: str | None
    arms: tuple[Arm, ...] = ()
    difference: Difference | None = None
    says: str | None = None
    because: str = ""
    next: str = ""
    reporters: int | None = None
    looks: tuple[Look, ...] = ()
    more_looks: int = 0
    recent: tuple[RolloutRow, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentLine:
    """An agent's newest rollout in the overview."""

    agent: str
    row: RolloutRow | None
    serving: str | None


def gather_all(ports: Ports) -> tuple[AgentLine, ...]:
    """The newest rollout of every agent: one indexed query each."""
    return tuple(
        AgentLine(agent=agent, row=ports.rollouts.latest(agent), serving=ports.rollouts.serving(agent).champion)
        for agent in ports.fleet().names
    )


def gather(ports: Ports, agent: str, rollout_id: int | None = None) -> RolloutView:
    """One rollout (the newest by default) with its numbers; loads no model. UnknownAgent, RolloutError when there is none such."""
    known = ports.fleet().names
    if agent not in known:
        raise UnknownAgent(agent, list(known))
    status = rollout_status(ports, agent, replay=False)
    recent = tuple(ports.rollouts.recent(agent, RECENT))
    shown: dict[str, Any] = {
        "agent": agent, "serving": status["serving"], "freeze": status["freeze"], "breaker": status["breaker"], "recent": recent,
    }  # fmt: skip
    now = status["rollout"]
    if now is None:
        return RolloutView(row=None, live=False, **shown)
    row = ports.rollouts.get(rollout_id if rollout_id is not None else now["id"])
    if row.agent != agent:
        raise InvalidExample("rollout", f"is not one of {agent[:64]}", "choose one from the list")
    looks = ports.rollouts.looks(row.id)
    shown |= {
        "row": row,
        "looks": tuple(look_of(one) for one in looks[-LOOKS:][::-1]),
        "more_looks": max(len(looks) - LOOKS, 0),
    }
    if row.id == now["id"] and (row.state in OPEN or row.state is RolloutState.BAKING):
        evidence = now.get("evidence") or {}
        return RolloutView(
            live=True, arms=_arms(evidence, row, row.state, champion=status["serving"]), difference=_difference(evidence, row),
            says=now.get("says"), because=now.get("because", ""), next=now["next"], reporters=now["reported_by"], **shown,
        )  # fmt: skip
    kept = next((one for one in reversed(looks) if one["evidence"].get("candidate")), None)
    evidence = kept["evidence"] if kept is not None else {}
    seen_in = RolloutState(kept["state"]) if kept is not None else row.state
    return RolloutView(
        live=False, arms=_arms(evidence, row, seen_in, champion=row.previous), difference=_difference(evidence, row),
        because=row.reason, **shown,
    )  # fmt: skip


def _arms(
    evidence: Mapping[str, Any], row: RolloutRow, seen_in: RolloutState, *, champion: str | None
) -> tuple[Arm, ...]:
    """Both arms as they were called in the state in which the numbers were seen."""
    baking = seen_in is RolloutState.BAKING
    promoted = "champion now" if row.state is RolloutState.BAKING else "champion then"
    named = (
        ("champion" if not baking else "predecessor", "champion", row.previous if baking else champion, 1 - row.weight),
        ("candidate" if not baking else promoted, "candidate", row.version, row.weight),
    )
    found = []
    for name, key, version, weight in named:
        stats = evidence.get(key)
        if not isinstance(stats, Mapping):
            continue
        outcomes = int(stats.get("outcomes") or 0)
        total = _number(stats.get("correct_sum"))
        found.append(
            Arm(
                name=name, version=version, share=weight if row.state in OPEN or row.state is RolloutState.BAKING else None,
                answers=int(stats.get("answers") or 0), errors=int(stats.get("errors") or 0), p50_ms=_number(stats.get("p50_ms")),
                p95_ms=_number(stats.get("p95_ms")), outcomes=outcomes,
                right=total / outcomes if outcomes and total is not None else None, agreement=_number(stats.get("agreement")),
            )
        )  # fmt: skip
    return tuple(found)


def _difference(evidence: Mapping[str, Any], row: RolloutRow) -> Difference | None:
    drop, ends = _number(evidence.get("quality_drop")), evidence.get("quality_drop_95_always")
    if drop is None or not isinstance(ends, Sequence) or len(ends) != 2:
        return None
    low, high = _number(ends[0]), _number(ends[1])
    return Difference(
        value=-drop, low=None if high is None else -high, high=None if low is None else -low,
        allowed=row.plan.max_agreement_drop,
    )  # fmt: skip


def _number(value: Any) -> float | None:
    """A finite number; evidence holds what is not finite as text."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None


# --- markup -----------------------------------------------------------------------------------------------------------------------


def render_all(view: Sequence[AgentLine], asked: Asked) -> Html:
    """Every agent with its newest rollout."""
    rows = [
        (
            el("a", one.agent, href=asked.to("/rollout", agent=one.agent)),
            code(one.row.version) if one.row else el("span", "none yet", class_="none"),
            _state(one.row) if one.row else "",
            share(one.row.weight, 0) if one.row and one.row.state in OPEN else "",
            code(one.serving) if one.serving else el("span", "nothing yet", class_="none"),
            when(one.row.started_at, asked.now) if one.row else "",
        )
        for one in view
    ]
    columns = [
        Column(title="Agent"), Column(title="Newest rollout"), Column(title="State"), Column(title="Share of keys", number=True),
        Column(title="Champion"), Column(title="Began"),
    ]  # fmt: skip
    return join(
        heading("Rollouts", "How each agent's newest version meets production."),
        section(
            "Agents", table("Newest rollout of each agent", columns, rows, empty="No fleet file declares an agent yet.")
        ),
    )


def render(view: RolloutView, asked: Asked) -> Html:
    """One rollout."""
    row = view.row
    if row is None:
        lead = f"{view.agent} serves {view.serving}." if view.serving else f"{view.agent} serves nothing yet."
        empty = el(
            "p", "There was no rollout. The first one begins when a candidate has passed its gates.", class_="empty"
        )
        return join(
            heading(f"Rollout of {view.agent}", lead, side=_all(asked)), _kept(view), section("Newest rollout", empty)
        )
    return join(
        heading(
            join("Rollout of ", view.agent, " ", row.version),
            join(_words(row), ". Champion: ", view.serving or "none", "."),
            side=join(_state(row), " ", _all(asked)),
        ),
        _kept(view),
        el("div", _now(view, row, asked), _quality(view), class_="grid"),
        section("Arms", _arm_table(view), note=_arm_note(view, row)),
        _decisions(view, row, asked),
        section("Looks that changed something", _look_table(view, asked)),
        section("Plan", more("What was frozen when it began", facts(_plan(row)))),
        section(f"Rollouts of {view.agent}", _recent(view, asked)),
        _refresh(view, asked),
        style(asked),
    )


def style(asked: Asked) -> Html:
    """The sheet that the pages of rollouts, validations and the quarantine share beside that of all pages."""
    return el("link", rel="stylesheet", href=asked.to("/static/waiting.css"))


def _all(asked: Asked) -> Html:
    return el("a", "All agents", href=asked.to("/rollout"))


def _words(row: RolloutRow) -> str:
    told = _WORDS[row.state]
    return f"{told[0].upper()}{told[1:]}" + (
        f" at {share(row.weight, 0)} of the keys" if row.state is RolloutState.CANARY else ""
    )


def _state(row: RolloutRow) -> Html:
    return badge(row.state.value, _TONES[row.state])


def _kept(view: RolloutView) -> Html | None:
    """What keeps the agent from promoting or training."""
    found = []
    if view.freeze:
        found.append(join(badge("frozen", "warn"), " ", said(view.freeze)))
    if view.breaker:
        found.append(join(badge("circuit breaker open", "bad"), " ", said(view.breaker)))
    if view.row is not None and view.row.parked is not None and view.live:
        word = "waits for a person" if view.row.parked is Parked.ASK else "waits for the end of the freeze"
        found.append(join(badge(word, "warn"), " ", said(view.row.reason)))
    return section("What keeps it", lines(found)) if found else None


def _now(view: RolloutView, row: RolloutRow, asked: Asked) -> Html:
    pairs: list[tuple[str, Any]] = [("Steps", _steps(row))]
    if view.says is not None:
        pairs += [("Verdict now", badge(view.says, _SAYS.get(view.says, "quiet"))), ("Because", said(view.because))]
    elif view.because:
        pairs.append(("Reason", said(view.because)))
    if view.live:
        pairs += [("Next check", view.next), ("On this step since", when(row.step_at, asked.now))]
    if view.reporters is not None:
        limit = f"; {row.plan.reports_revert} revert it" if row.plan.reports_revert else ""
        pairs.append(("Reported by", f"{view.reporters} people within {span(row.plan.reports_window_seconds)}{limit}"))
    pairs.append(("Began", when(row.started_at, asked.now)))
    if row.full_at is not None:
        told = "Serves everything since" if row.state is RolloutState.BAKING else "Served everything from"
        pairs.append((told, when(row.full_at, asked.now)))
    if row.ended_at is not None:
        pairs.append(("Ended", when(row.ended_at, asked.now)))
    return section("Where it stands", facts(pairs))


def _steps(row: RolloutRow) -> Html:
    """The plan's shares with marks for passed, present and coming ones."""
    shares = (*canary_shares(row.plan, first=row.previous is None), 1.0)
    items = []
    for number, weight in enumerate(shares):
        words, tone = _step(row, number, last=number == len(shares) - 1)
        here = el(
            "li", badge(f"{share(weight, 0)} {words}".strip(), tone), aria_current="step" if tone == "busy" else None
        )
        items.append(here)
    return el("ol", items, class_="steps")


def _step(row: RolloutRow, number: int, *, last: bool) -> tuple[str, str]:
    """What became of one step, and its tone. Of a rollout that ended early the row does not say whether its first step had begun."""
    if row.full_at is not None:
        if last and row.state in (RolloutState.BAKING, RolloutState.REVERTED):
            return ("now", "busy") if row.state is RolloutState.BAKING else ("reverted", "bad")
        return "passed", "good"
    if row.state in OPEN:
        if row.state is RolloutState.CANARY and number <= row.step:
            return ("now", "busy") if number == row.step else ("passed", "good")
        return "to come", "quiet"
    if number < row.step:
        return "passed", "good"
    if number == row.step and not last:
        return ("ended here", "bad") if row.step else ("", "quiet")
    return "not reached", "quiet"


def _quality(view: RolloutView) -> Html:
    title = "Difference of quality"
    found = view.difference
    if found is None:
        told = "Both arms need outcomes before they can be compared." if view.live else "No comparison of it was kept."
        return section(title, el("p", told, class_="empty"))
    ends = f"{points(found.low)} to {points(found.high)}" if None not in (found.low, found.high) else "not bounded yet"
    return section(
        title,
        interval(found),
        el("p", el("strong", f"{points(found.value)} points"), f", 95 % at all looks together: {ends}."),
        note=f"Candidate minus champion, share right on outcomes. The plan allows {points(-found.allowed)}. "
        "This interval stays true however often one looks, so it is wider than the usual one.",
    )


def interval(found: Difference, *, width: int = 520, height: int = 84) -> Html:
    """The interval as a drawing, in percentage points around 0; its description says the same in words."""
    ends = [abs(value) for value in (found.value, found.low, found.high, found.allowed) if value is not None]
    reach = min(max(max(ends) * 1.15, 0.02), 1.0)
    middle, pad = 44, 18

    def at(value: float) -> float:
        inside = max(min(value, reach), -reach)
        return round(pad + (inside + reach) / (2 * reach) * (width - 2 * pad), 1)

    told = f"{points(found.value)} points" + (
        f", between {points(found.low)} and {points(found.high)}"
        if found.low is not None and found.high is not None
        else ""
    )
    shapes = [
        el("line", x1=pad, x2=width - pad, y1=middle, y2=middle, class_="scale"),
        el("line", x1=at(0), x2=at(0), y1=middle - 16, y2=middle + 16, class_="scale zero"),
        el("text", "0", x=at(0), y=middle + 30, class_="scale-text", text_anchor="middle"),
        el(
            "line", x1=at(-found.allowed), x2=at(-found.allowed), y1=middle - 12, y2=middle + 12, class_="scale allowed"
        ),
        el(
            "text",
            f"allowed {points(-found.allowed)}",
            x=at(-found.allowed),
            y=middle - 18,
            class_="scale-text",
            text_anchor="middle",
        ),
        el("text", f"{points(-reach)}", x=pad, y=middle + 30, class_="scale-text"),
        el("text", f"{points(reach)}", x=width - pad, y=middle + 30, class_="scale-text", text_anchor="end"),
        el("text", "worse", x=pad, y=middle - 18, class_="scale-text"),
        el("text", "better", x=width - pad, y=middle - 18, class_="scale-text", text_anchor="end"),
    ]
    if found.low is not None and found.high is not None:
        shapes.append(el("line", x1=at(found.low), x2=at(found.high), y1=middle, y2=middle, class_="interval"))
    shapes.append(el("circle", el("title", told), cx=at(found.value), cy=middle, r=4, class_="dot"))
    return el(
        "svg", el("title", "Candidate minus champion"), el("desc", told), shapes, viewBox=f"0 0 {width} {height}", width=width,
        height=height, role="img", aria_label=f"Candidate minus champion: {told}", class_="chart span", focusable="false",
    )  # fmt: skip


def _arm_table(view: RolloutView) -> Html:
    columns = [
        Column(title="Arm"), Column(title="Version"), Column(title="Share of keys", number=True), Column(title="Answers", number=True),
        Column(title="Failed", number=True), Column(title="p50 ms", number=True, about="median latency"),
        Column(title="p95 ms", number=True, about="95 of 100 answers were faster"),
        Column(title="Right on outcomes", number=True), Column(title="Outcomes", number=True),
        Column(title="Shadow agreed", number=True, about="same answer as the champion in the replay of recorded requests"),
    ]  # fmt: skip
    rows = [
        (
            arm.name, code(arm.version), share(arm.share, 0), count(arm.answers),
            join(count(arm.errors), f" ({share(arm.errors / arm.answers)})" if arm.answers else ""), _ms(arm.p50_ms), _ms(arm.p95_ms),
            share(arm.right), count(arm.outcomes), share(arm.agreement, 0),
        )
        for arm in view.arms
    ]  # fmt: skip
    empty = (
        "No arm was measured yet."
        if view.live
        else "No numbers of it were kept: only a look that changes something keeps them."
    )
    return table("What each arm did", columns, rows, empty=empty, sortable=False)


def _arm_note(view: RolloutView, row: RolloutRow) -> str | None:
    if not view.arms:
        return None
    if not view.live:
        return "As of the last look that changed something."
    return "Since everything is served by it." if row.full_at else "Since the rollout began."


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _decisions(view: RolloutView, row: RolloutRow, asked: Asked) -> Html | None:
    if not view.live or row.state not in OPEN:
        if view.live:
            told = "It serves everything. To take it back: perennial rollback; a bad verdict takes it back by itself."
            return section("Decide", el("p", told))
        return None
    if not asked.may(Role.OPERATOR):
        return section("Decide", el("p", "Abort and promote need the role operator.", class_="none"))
    meant = {"agent": view.agent, "version": row.version}
    return section(
        "Decide",
        el(
            "div",
            post(
                asked.to("/rollout/abort"),
                why("abort-reason"),
                button=f"Abort {row.version}",
                hidden=meant,
                tone="danger",
            ),
            post(
                asked.to("/rollout/promote"),
                why("promote-reason"),
                button=f"Promote {row.version} to everybody",
                hidden=meant,
            ),
            class_="choices",
        ),
        note="Abort takes the candidate out of traffic; the champion keeps serving. Promote serves the candidate to everybody now; "
        "the bake keeps watching. Neither happens when another version is open by then.",
    )


def _look_table(view: RolloutView, asked: Asked) -> Html:
    columns = [Column(title="When"), Column(title="State"), Column(title="Said"), Column(title="Reason")]
    rows = [
        (
            when(one.at, asked.now), f"{one.state}, step {one.step + 1}" if one.state == "canary" else one.state,
            badge(one.action, _SAYS.get(one.action, "quiet")), said(one.reason),
        )
        for one in view.looks
    ]  # fmt: skip
    rest = el("p", f"And {view.more_looks} older ones.", class_="small") if view.more_looks else None
    return join(
        table("Looks, newest first", columns, rows, empty="None yet: a look that holds is not kept.", sortable=False),
        rest,
    )


def _plan(row: RolloutRow) -> list[tuple[str, str]]:
    plan = row.plan
    return [
        ("Shares of the keys", ", ".join(share(step, 0) for step in plan.steps)),
        ("A step needs", f"{plan.min_samples} answers and {span(plan.step_seconds)}"),
        ("Patience of a step", f"{span(plan.max_hold_seconds)}, then {plan.on_too_little_traffic.value} for want of traffic"),
        ("Failed answers", f"{share(plan.max_error_rate)} at most"),
        ("Latency", f"{plan.max_latency_ratio:g} times the champion's at most, and {plan.latency_slack_ms:g} ms more are no fault"),
        ("Drop of quality", f"{_drop(plan.max_agreement_drop)} points at most, {_drop(plan.max_slice_drop)} for one label"),
        ("Outcomes come", f"after {span(plan.label_delay_seconds)}" if plan.label_delay_seconds else "at once"),
        ("Reports", f"{plan.reports_revert} people within {span(plan.reports_window_seconds)} revert it" if plan.reports_revert else "off"),
        ("Bake", span(plan.bake_seconds)),
        ("Shadow", f"{plan.shadow_requests} recorded requests"),
        ("Targets", ", ".join(plan.targets)),
    ]  # fmt: skip


def _drop(value: float) -> str:
    return points(value).lstrip("+")


def _recent(view: RolloutView, asked: Asked) -> Html:
    columns = [
        Column(title="Version"),
        Column(title="State"),
        Column(title="Before it"),
        Column(title="Began"),
        Column(title="Reason"),
    ]
    rows = [
        (
            join(
                el("a", row.version, href=asked.to("/rollout", agent=view.agent, id=str(row.id)))
                if view.row is None or row.id != view.row.id
                else el("strong", row.version, " (shown)"),
            ),
            _state(row), code(row.previous), when(row.started_at, asked.now), said(row.reason),
        )
        for row in view.recent
    ]  # fmt: skip
    return table(f"The last {RECENT} rollouts, newest first", columns, rows)


def _refresh(view: RolloutView, asked: Asked) -> Html | None:
    if not view.live:
        return None
    if asked.query.get("still"):
        told = el("a", f"Refresh every {SECONDS} s", href=asked.to("/rollout", agent=view.agent))
        return el("p", "This page stands still. ", told, class_="small")
    return el(
        "p", f"With a script this page is read again every {SECONDS} s, unless a reason is being typed. ",
        el("a", "Let it stand still", href=asked.to("/rollout", agent=view.agent, still="1")),
        el("script", src=asked.to("/static/live.js"), defer=True), class_="small", data_reload=str(SECONDS),
    )  # fmt: skip


def _show(site: Site, asked: Asked) -> Html:
    agent = asked.query.get("agent", "")
    if not agent:
        return render_all(gather_all(site.ports), asked)
    return render(gather(site.ports, agent, _id(asked.query.get("id", ""))), asked)


def _id(given: str) -> int | None:
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InvalidExample("id", "is not the number of a rollout", "choose one from the list")
    return int(given)


def _decide(site: Site, asked: Asked, decision: RolloutDecision, notice: str) -> str:
    agent = asked.needed("agent")
    decide(site.ports, agent, decision, actor=asked.user.id, reason=asked.reason(), version=asked.needed("version"))
    return asked.to("/rollout", agent=agent, said=notice)


def _abort(site: Site, asked: Asked) -> str:
    return _decide(site, asked, RolloutDecision.ABORT, "aborted")


def _promote(site: Site, asked: Asked) -> str:
    return _decide(site, asked, RolloutDecision.PROMOTE, "promoted")


PAGE = Page(
    path="/rollout",
    title="Rollout",
    show=_show,
    actions=(
        Action(path="/rollout/abort", role=Role.OPERATOR, run=_abort),
        Action(path="/rollout/promote", role=Role.OPERATOR, run=_promote),
    ),
    notices={
        "aborted": "The candidate is out of traffic; the champion keeps serving.",
        "promoted": "The candidate serves everybody now; the bake keeps watching.",
    },
)
