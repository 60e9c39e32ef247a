"""The page of what waits for a person: rows that stand aside, by agent, task and reason, and finds that no detector is sure of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from perennial.audit.log import Entry
from perennial.domain.redaction import Doubt
from perennial.domain.words import AsideAction, RedactionDecision, State
from perennial.errors import InvalidExample, UnknownAgent
from perennial.flows import quarantine as flow
from perennial.flows import redaction_tasks as asking
from perennial.flows.ports import Ports
from perennial.flows.quarantine import AgentPiles, Pile, SetAside
from perennial.ingest.aside import ASIDE, MOST_COUNTED, MOST_GROUPS, NEWEST, AsideKey, AsideOrder, refusal
from perennial.ingest.redaction_tasks import RedactionTask
from perennial.pages.html import Child, Html, el, join
from perennial.pages.layout import Cell, Column, badge, code, count, heading, more, said, section, table, when, why
from perennial.pages.page import Action, Asked, Page, Site
from perennial.pages.roles import Role
from perennial.pages.rollout import style

ROWS = 40  # of one page; a form has at most 50 fields
DECISIONS = 10  # of people, the newest
_AUDITED = 200  # newest entries of an agent among which they are looked for
TASKS = 40  # open questions of one page
_WORDS = frozenset(
    {f"{state.value}_{verb}" for state in ASIDE for verb in ("released", "dropped")}
    | {f"redaction_{decision.state.value}" for decision in RedactionDecision}
)
_UNSURE = "finds that no detector is sure of: replaced already, a person may let them stand"
_BUTTONS = (
    (RedactionDecision.CONFIRM, "Personal data", None),
    (RedactionDecision.RESTORE, "Not personal data", None),
    (RedactionDecision.DROP, "Drop", "danger"),
)
_TONES = {State.QUARANTINED: "bad", State.HELD: "warn", State.UNLABELLED: "quiet"}
_ABOUT = {
    State.QUARANTINED: "refused at admission, or personal data was still found; what is released goes through admission again",
    State.HELD: "two trainings or the screening refused it; what is released may train again",
    State.UNLABELLED: "admitted, but without a right answer to train on",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantineView:
    """What of one agent stands aside. ``chosen`` is the group whose rows are shown; None: the newest of all.

    ``before`` is the number below which the rows lie; ``until`` the newest row of the group, up to which a decision on all holds.
    ``older``: the number below which the next page begins, None on the last one. ``unsure``: how many questions are open;
    ``tasks`` are the newest of them, with their words only for who may see them.
    """

    agent: str
    piles: tuple[Pile, ...]
    chosen: Pile | None
    rows: tuple[SetAside, ...]
    before: int
    until: int
    older: int | None
    decisions: tuple[Entry, ...]
    tasks: tuple[RedactionTask, ...] = ()
    unsure: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentLine:
    """What of one agent waits for a person: rows by state, and open questions about finds."""

    agent: str
    rows: Mapping[State, int]
    unsure: int


def gather_all(ports: Ports) -> tuple[AgentLine, ...]:
    """Every agent with something that waits for a person."""
    piles: dict[str, AgentPiles] = {one.agent: one for one in flow.overview(ports)}
    asked = asking.totals(ports)
    return tuple(
        AgentLine(agent=agent, rows=piles[agent].rows if agent in piles else {}, unsure=asked.get(agent, 0))
        for agent in sorted(piles.keys() | asked.keys())
    )


def gather(
    ports: Ports, agent: str, *, key: AsideKey | None = None, before: int = NEWEST, words: bool = False
) -> QuarantineView:  # fmt: skip
    """One page of rows; at most eight bounded queries. UnknownAgent when the fleet has no such agent and nothing of it waits.

    ``words``: also the words of open questions, which may be personal data.
    """
    view = _gather(ports, agent, key, before)
    tasks = tuple(asking.open_tasks(ports, agent, words=words, limit=TASKS))
    return replace(view, tasks=tasks, unsure=asking.totals(ports).get(agent, 0) if len(tasks) == TASKS else len(tasks))


def _gather(ports: Ports, agent: str, key: AsideKey | None, before: int) -> QuarantineView:
    piles = tuple(flow.piles(ports, agent))
    known = ports.fleet().names
    if agent not in known and not piles:
        raise UnknownAgent(agent, list(known))
    chosen = flow.pile(ports, agent, key) if key is not None else None
    if key is not None and chosen is None:
        return QuarantineView(
            agent=agent,
            piles=piles,
            chosen=None,
            rows=(),
            before=before,
            until=0,
            older=None,
            decisions=_decided(ports, agent),
        )
    found = flow.set_aside(ports, agent, key=key, before=before, limit=ROWS + 1)
    newest = found if before == NEWEST else flow.set_aside(ports, agent, key=key, limit=1)
    return QuarantineView(
        agent=agent, piles=piles, chosen=chosen, rows=tuple(found[:ROWS]), before=before, until=newest[0].number if newest else 0,
        older=found[ROWS - 1].number if len(found) > ROWS else None, decisions=_decided(ports, agent),
    )  # fmt: skip


def _decided(ports: Ports, agent: str) -> tuple[Entry, ...]:
    return tuple(one for one in ports.audit.entries(agent, _AUDITED) if one.action in _WORDS)[:DECISIONS]


# --- markup -----------------------------------------------------------------------------------------------------------------------


def render_all(view: Sequence[AgentLine], asked: Asked) -> Html:
    """Every agent with its counts."""
    columns = [
        Column(title="Agent"),
        *(Column(title=state.value.capitalize(), number=True, about=_ABOUT[state]) for state in ASIDE),
        Column(title="Unsure finds", number=True, about=_UNSURE),
    ]
    rows: list[list[Child | Cell]] = [
        [
            el("a", one.agent, href=asked.to("/quarantine", agent=one.agent)),
            *(Cell(shown=_count(one.rows.get(state, 0)), key=float(one.rows.get(state, 0))) for state in ASIDE),
            Cell(shown=_count(one.unsure), key=float(one.unsure)),
        ]
        for one in view
    ]
    return join(
        heading("Quarantine", "Examples that stand aside and wait for a person: why, and what may be done with them."),
        section("Agents", table("Rows that stand aside", columns, rows, empty="Nothing stands aside.")),
        section(
            "What the words mean",
            el(
                "dl",
                [_meaning(state) for state in ASIDE],
                el("div", el("dt", badge("unsure finds", "info")), el("dd", _UNSURE)),
                class_="facts",
            ),
        ),
    )


def _meaning(state: State) -> Html:
    return el("div", el("dt", badge(state.value, _TONES[state])), el("dd", _ABOUT[state]))


def _count(rows: int) -> str:
    return f"{count(MOST_COUNTED)}+" if rows > MOST_COUNTED else count(rows)


def render(view: QuarantineView, asked: Asked, *, missing: bool = False) -> Html:
    """One agent; ``missing``: the group that was asked for is empty by now."""
    return el(
        "div",
        heading(
            join("Quarantine of ", view.agent),
            "What stands aside and why. Texts are the redacted ones; of quarantined rows none is shown.",
            side=el("a", "All agents", href=asked.to("/quarantine")),
        ),
        section(
            "Reasons",
            _piles(view, asked),
            _left_out(view),
            note="Choose a reason to see its rows and to decide on them.",
        ),
        el("p", badge("No row stands aside for this reason any more", "info")) if missing else None,
        _chosen(view, asked) if view.chosen is not None else None if missing else _newest(view, asked),
        _unsure(view, asked) if view.tasks else None,
        section("Last decisions", _decisions(view, asked)),
        style(asked),
        class_="waiting",
    )


def _address(view: QuarantineView, asked: Asked, key: AsideKey | None, *, before: int = NEWEST) -> str:
    of = {"state": key.state.value, "task": key.task, "code": key.code} if key is not None else {}
    return asked.to("/quarantine", agent=view.agent, before=str(before) if before != NEWEST else None, **of)


def _piles(view: QuarantineView, asked: Asked) -> Html:
    columns = [
        Column(title="Reason"), Column(title="State"), Column(title="Task"), Column(title="Rows", number=True),
        Column(title="What it means"),
        Column(title="Possible"),
    ]  # fmt: skip
    rows = []
    for one in view.piles:
        here = view.chosen is not None and one.key == view.chosen.key
        label = el("code", one.key.code or "no label")
        able = [word for word, no in (("release", one.release_refused), ("drop", one.drop_refused)) if no is None]
        rows.append(
            (
                el("a", label, href=_address(view, asked, one.key), aria_current="true" if here else None),
                badge(one.key.state.value, _TONES[one.key.state]), said(one.key.task),
                Cell(shown=_count(MOST_COUNTED + 1 if one.more else one.rows), key=float(one.rows)), one.why, " or ".join(able),
            )
        )  # fmt: skip
    return table("Rows by reason", columns, rows, empty="Nothing of this agent stands aside.")


def _left_out(view: QuarantineView) -> Html | None:
    listed = Counter(one.key.state for one in view.piles)
    full = " and ".join(state.value for state in ASIDE if listed[state] >= MOST_GROUPS)
    words = f"The first {MOST_GROUPS} reasons of {full} rows are listed, by task; decide on some of them to see whether there are more."
    return el("p", badge("not all", "warn"), " ", words) if full else None


def _newest(view: QuarantineView, asked: Asked) -> Html | None:
    if not view.piles:
        return None
    return section("Newest rows", _rows(view, asked, choose=False), _paging(view, asked))


def _chosen(view: QuarantineView, asked: Asked) -> Html:
    pile = view.chosen
    assert pile is not None
    may = asked.may(Role.EDITOR)
    title = f"{pile.key.state.value.capitalize()}: {pile.key.code or 'no label'}, task {pile.key.task}"
    note = f"{pile.why[:1].upper()}{pile.why[1:]}."
    if not may:
        return section(
            title, el("p", "Release and drop need the role editor.", class_="none"), _rows(view, asked, choose=False), _paging(view, asked),
            note=note,
        )  # fmt: skip
    carried = {"agent": view.agent, "state": pile.key.state.value, "task": pile.key.task, "code": pile.key.code}
    refused = el("p", badge("cannot be released", "quiet"), " ", pile.release_refused) if pile.release_refused else None
    whole = more(
        f"Decide on the whole reason ({_count(MOST_COUNTED + 1 if pile.more else pile.rows)} {'row' if pile.rows == 1 else 'rows'})",
        _form(asked, pile, {**carried, "whole": "1", "until": str(view.until)}, field="whole-reason", words="all"),
        el("p", f"Rows that came in after this page was made stay. One click moves {count(flow.AT_ONCE)} rows at most.", class_="small"),
    )  # fmt: skip
    each = _form(asked, pile, carried, _rows(view, asked, choose=True), field="rows-reason", words="chosen")
    return section(title, refused, whole, each, _paging(view, asked), note=note)


def _form(asked: Asked, pile: Pile, carried: Mapping[str, str], *inside: Child, field: str, words: str) -> Html:
    buttons = [
        el("button", f"Release {words}", type="submit", name="action", value=AsideAction.RELEASE.value)
        if pile.release_refused is None else None,
        el("button", f"Drop {words}", type="submit", name="action", value=AsideAction.DROP.value, class_="danger")
        if pile.drop_refused is None else None,
    ]  # fmt: skip
    return el(
        "form", [el("input", type="hidden", name=name, value=value) for name, value in carried.items()], inside,
        el("div", why(field), buttons, class_="act"), method="post", action=asked.to("/quarantine/settle"), class_="decide",
    )  # fmt: skip


def _rows(view: QuarantineView, asked: Asked, *, choose: bool) -> Html:
    columns = [
        Column(title="Example"), Column(title="Redacted text"), Column(title="Label"), *([] if view.chosen else [Column(title="Reason")]),
        Column(title="Made"), Column(title="Priority", number=True), Column(title="Came as"),
        Column(title="Sender", about="an alias: a sender's name may be a person's"),
        Column(title="Refused", number=True, about="trainings that were refused with it"),
    ]  # fmt: skip
    rows = []
    for row in view.rows:
        name = _id(row.example_id)
        first = name
        if choose:
            box = el(
                "input", type="checkbox", id=f"row-{row.number}", name=f"row-{row.number}", value=str(row.example_id)
            )
            first = el("span", box, el("label", name, for_=f"row-{row.number}"), class_="pick")
        cells: list[Child | Cell] = [first, _text(row), _label(row)]
        if view.chosen is None:
            cells.append(el("a", el("code", row.key.code or "no label"), href=_address(view, asked, row.key)))
        came = f"{row.source}, a correction" if row.correction and row.source != "correction" else row.source
        cells += [when(row.created_at, asked.now), row.priority, came, code(row.sender), row.refusals]
        rows.append(cells)
    return table("Rows, newest first", columns, rows, empty="No row is left on this page.", sortable=False)


def _unsure(view: QuarantineView, asked: Asked) -> Html:
    may = asked.may(Role.EDITOR)
    note = (
        f"{_count(view.unsure)} open. The words are replaced already, and training goes on with the redacted texts. "
        "What is not personal data comes back with the next admission; a dropped text leaves training."
    )
    title = "Unsure finds"
    if not may:
        quiet = el("p", "The words are shown to editors: they may be personal data.", class_="none")
        return section(title, quiet, _tasks(view, asked, choose=False), note=note)
    buttons = [
        el("button", label, type="submit", name="decision", value=decision.value, class_=tone)
        for decision, label, tone in _BUTTONS
    ]
    form = el(
        "form", el("input", type="hidden", name="agent", value=view.agent), _tasks(view, asked, choose=True),
        el("div", why("unsure-reason"), buttons, class_="act"), method="post", action=asked.to("/quarantine/unsure"), class_="decide",
    )  # fmt: skip
    return section(title, form, note=note)


def _tasks(view: QuarantineView, asked: Asked, *, choose: bool) -> Html:
    columns = [
        Column(title="Question"), Column(title="Kinds"), *([Column(title="In the redacted text")] if choose else []),
        Column(title="Task"), Column(title="Rows", number=True, about="rows that share this text and the answer"), Column(title="Asked"),
    ]  # fmt: skip
    rows = []
    for one in view.tasks:
        name = el("code", f"#{one.number}")
        box = el(
            "input", type="checkbox", id=f"task-{one.number}", name=f"task-{one.number}", value=str(one.round)
        )  # fmt: skip
        first = el("span", box, el("label", name, for_=f"task-{one.number}"), class_="pick") if choose else name
        kinds = ", ".join(f"{amount} {kind}" if amount > 1 else kind for kind, amount in sorted(one.kinds.items()))
        cells: list[Child | Cell] = [first, code(kinds)]
        if choose:
            cells.append(join(*(_doubt(doubt) for doubt in one.doubts)))
        rows.append([*cells, said(one.task), one.rows, when(one.opened_at, asked.now)])
    return table("Open questions, newest first", columns, rows, empty="No question is open.", sortable=False)


def _doubt(doubt: Doubt) -> Html:
    return el("span", said(doubt.before), el("mark", said(doubt.word)), said(doubt.after), class_="stack")


def _id(example: UUID) -> Html:
    """The end of an id: ids that came in together begin alike."""
    return el("code", f"…{str(example)[-8:]}", title=str(example))


def _text(row: SetAside) -> Html:
    told = row.reason.partition(":")[2].strip()
    because = el("span", said(told), class_="small stack") if told else None
    if row.text is None:
        quiet = (
            "not shown: it may still hold personal data"
            if row.key.state is State.QUARANTINED
            else "no redacted text exists yet"
        )
        return join(el("span", quiet, class_="none"), because)
    return join(said(row.text), " …" if row.cut else "", because)


def _label(row: SetAside) -> Html:
    if row.label is None:
        return el("span", "–", class_="none")
    shown = row.label if isinstance(row.label, str) else json.dumps(row.label, ensure_ascii=False)
    return said(shown if len(shown) <= 120 else f"{shown[:120]}…")


def _paging(view: QuarantineView, asked: Asked) -> Html | None:
    key = view.chosen.key if view.chosen is not None else None
    links = []
    if view.before != NEWEST:
        links.append(el("a", "Newest", href=_address(view, asked, key)))
    if view.older is not None:
        links.append(el("a", "Older", href=_address(view, asked, key, before=view.older), rel="next"))
    return el("nav", links, aria_label="More rows", class_="paging") if links else None


def _decisions(view: QuarantineView, asked: Asked) -> Html:
    columns = [
        Column(title="When"), Column(title="Who"), Column(title="What"), Column(title="Task"), Column(title="Reason code"),
        Column(title="Rows", number=True), Column(title="Why"),
    ]  # fmt: skip
    rows = [
        (
            when(one.at, asked.now), said(one.actor), one.action.replace("_", ", "), said(one.subject),
            el("code", str(one.detail.get("reason_code", ""))) if one.detail.get("reason_code") else "",
            count(int(one.detail.get("rows", 0))), said(str(one.detail.get("why", one.detail.get("reason", "")))),
        )
        for one in view.decisions
    ]  # fmt: skip
    return table(
        "Last decisions, newest first",
        columns,
        rows,
        empty="Nobody decided on rows of this agent lately.",
        sortable=False,
    )


# --- what a request asks ------------------------------------------------------------------------------------------------------------


def _show(site: Site, asked: Asked) -> Html:
    agent = asked.query.get("agent", "")
    if not agent:
        return render_all(gather_all(site.ports), asked)
    key = _key(asked.query) if asked.query.get("state") else None
    view = gather(site.ports, agent, key=key, before=_number(asked.query, "before"), words=asked.may(Role.EDITOR))
    return render(view, asked, missing=key is not None and view.chosen is None)


def _key(given: Mapping[str, str]) -> AsideKey:
    try:
        state = State(given.get("state", ""))
    except ValueError as error:
        raise InvalidExample("state", "is no state of an example", "choose a reason from the list") from error
    return AsideKey(state=state, task=given.get("task", ""), code=given.get("code", ""))


def _number(given: Mapping[str, str], name: str) -> int:
    text = given.get(name, "")
    if not text:
        return NEWEST
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidExample(name, "is not a number of a row", "go on from the first page")
    return int(text)


def _settle(site: Site, asked: Asked) -> str:
    agent, key, reason = asked.needed("agent"), _key(asked.form), asked.reason()
    try:
        action = AsideAction(asked.form.get("action", ""))
    except ValueError as error:
        raise InvalidExample("action", "is neither release nor drop", "press one of the buttons") from error
    told = refusal(action, key)
    if told is not None:
        raise InvalidExample("action", "is not possible here", told)
    whole = asked.form.get("whole") == "1"
    ids = None if whole else _chosen_ids(asked.form)
    until = _number(asked.form, "until") if whole else NEWEST
    order = AsideOrder(agent=agent, action=action, key=key, actor=asked.user.id, why=reason, ids=ids, until=until)
    done = flow.settle(site.ports, order)
    word = "released" if action is AsideAction.RELEASE else "dropped"
    notice = "more" if done.more else word if done.rows or done.holdout else "nothing"
    left = flow.pile(site.ports, agent, key) is not None
    of = {"state": key.state.value, "task": key.task, "code": key.code} if left else {}
    return asked.to("/quarantine", agent=agent, said=notice, **of)


def _chosen_ids(form: Mapping[str, str]) -> tuple[UUID, ...]:
    try:
        found = tuple(UUID(value) for name, value in form.items() if name.startswith("row-"))
    except ValueError as error:
        raise InvalidExample("row", "is not the id of an example", "choose rows from the list") from error
    if not found:
        raise InvalidExample("rows", "are not chosen", "tick at least one, or decide on the whole reason")
    return found


def _answer(site: Site, asked: Asked) -> str:
    agent, reason = asked.needed("agent"), asked.reason()
    try:
        decision = RedactionDecision(asked.form.get("decision", ""))
    except ValueError as error:
        raise InvalidExample("decision", "is none of confirm, restore and drop", "press one of the buttons") from error
    chosen = [
        (_whole(name.removeprefix("task-")), _whole(value)) for name, value in asked.form.items() if name.startswith("task-")
    ]  # fmt: skip
    if not chosen:
        raise InvalidExample("questions", "are not chosen", "tick at least one")
    done = asking.answer(site.ports, agent, decision, chosen, actor=asked.user.id, why=reason)
    notice = decision.state.value if done.done == len(chosen) else "part" if done.done else "answered"
    return asked.to("/quarantine", agent=agent, said=notice)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidExample("question", "is not a number", "choose questions from the list")
    return int(text)


PAGE = Page(
    path="/quarantine",
    title="Quarantine",
    show=_show,
    actions=(
        Action(path="/quarantine/settle", role=Role.EDITOR, run=_settle),
        Action(path="/quarantine/unsure", role=Role.EDITOR, run=_answer),
    ),
    notices={
        "released": "Released; the last decisions below say how many rows.",
        "dropped": "Dropped; the last decisions below say how many rows. They stay in the books.",
        "more": "Done with as many rows as one click moves; more of them wait, so decide again.",
        "confirmed": "Kept as personal data; the stand-ins stay.",
        "restored": "Noted as no personal data; the next admission puts the words back.",
        "part": "Some of the questions were answered already or ask about other words by now; look again at those that are left.",
        "answered": "Nothing changed: the questions were answered already, ask about other words by now, or cannot be dropped any more.",
        "nothing": "Nothing changed: those rows do not stand aside for this reason any more.",
    },
)
