"""`perennial quarantine [AGENT]`: what waits for a person and why; release or drop rows, answer what is unsure, with a reason."""

from __future__ import annotations

import json as json_format
import sys
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from perennial.cli.common import Actor, Json, Reason, who, why
from perennial.cli.common import ports as _ports
from perennial.domain.words import AsideAction, RedactionDecision, State

if TYPE_CHECKING:
    from perennial.flows.ports import Ports
    from perennial.flows.quarantine import Settled


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quarantine")(quarantine)


def quarantine(
    agent: Annotated[str | None, typer.Argument(help="name of the agent; an overview of all when left out")] = None,
    release: Annotated[list[UUID] | None, typer.Option(help="id of a row to release; may be given again")] = None,
    drop: Annotated[list[UUID] | None, typer.Option(help="id of a row to drop for good; may be given again")] = None,
    reason_code: Annotated[str, typer.Option(help="show (or with --all move) the rows that stand aside for this")] = "",
    task: Annotated[str, typer.Option(help="with --reason-code: of this task alone")] = "",
    everything: Annotated[
        AsideAction | None, typer.Option("--all", help="with --reason-code: release or drop all of its rows")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="rows that --reason-code or --unsure shows")] = 50,
    unsure: Annotated[bool, typer.Option("--unsure", help="show open questions about finds that are not sure")] = False,
    words: Annotated[
        bool, typer.Option("--words", help="with --unsure: their words too, which may be personal data; audited")
    ] = False,
    personal: Annotated[
        list[int] | None, typer.Option(help="question: it is personal data, the stand-ins stay")
    ] = None,
    not_personal: Annotated[
        list[int] | None, typer.Option(help="question: it is no personal data, the words come back")
    ] = None,
    drop_text: Annotated[list[int] | None, typer.Option(help="question: drop the rows of its text for good")] = None,
    reason: Reason = "",
    actor: Actor = "",
    json: Json = False,
) -> None:
    """Show what waits for a person by agent, task and reason, without texts; release or drop it, answer what is unsure.

    What is released from quarantine goes through admission and redaction again; held rows may train again. Dropped rows stay in
    the books. Both may be repeated: what was moved already is not moved twice.
    """
    ports = _ports()
    answers = [
        (RedactionDecision.CONFIRM, personal),
        (RedactionDecision.RESTORE, not_personal),
        (RedactionDecision.DROP, drop_text),
    ]
    told = [(decision, numbers) for decision, numbers in answers if numbers]
    ids = [*((one, AsideAction.RELEASE) for one in release or ()), *((one, AsideAction.DROP) for one in drop or ())]
    if agent is None:
        if ids or reason_code or everything or unsure or told:
            raise typer.BadParameter("name the agent")
        _overview(ports, json)
        return
    _known(ports, agent)
    if unsure or told:
        if ids or reason_code or everything:
            raise typer.BadParameter("questions and rows are answered one call after the other")
        said = (who(actor), why(reason)) if told or words else ("", "")
        _answer(ports, agent, told, said, json) if told else _unsure(ports, agent, words, limit, said, json)
        return
    if everything is not None and not reason_code:
        raise typer.BadParameter("say of what: --reason-code source_cap --all release")
    if not ids and everything is None:
        if reason_code:
            _rows(ports, agent, reason_code, task, limit, json)
        else:
            _piles(ports, agent, json)
        return
    said = who(actor), why(reason)
    done = _move_ids(ports, agent, ids, said) if ids else []
    if everything is not None:
        done += _move_all(ports, agent, reason_code, task, everything, said)
    if json:
        typer.echo(json_format.dumps([{"rows": one.rows, "holdout": one.holdout, "note": one.note} for one in done]))
    else:
        typer.echo("\n".join(one.note for one in done))


def _answer(
    ports: Ports, agent: str, told: list[tuple[RedactionDecision, list[int]]], said: tuple[str, str], json: bool
) -> None:  # fmt: skip
    from perennial.flows.redaction_tasks import answer

    notes = [
        note
        for decision, numbers in told
        for note in answer(
            ports, agent, decision, [(number, None) for number in numbers], actor=said[0], why=said[1]
        ).notes
    ]
    typer.echo(json_format.dumps(notes) if json else "\n".join(notes))


def _unsure(ports: Ports, agent: str, words: bool, limit: int, said: tuple[str, str], json: bool) -> None:
    from perennial.flows.redaction_tasks import note_look, open_tasks

    found = open_tasks(ports, agent, words=False, limit=limit)
    if words and found:
        note_look(ports, agent, found, actor=said[0], why=said[1])  # first: nobody sees them unnoted
        noted = {one.number for one in found}
        found = [one for one in open_tasks(ports, agent, words=True, limit=limit) if one.number in noted]
    rows = [
        {
            "number": one.number, "task": one.task, "kinds": ", ".join(sorted(one.kinds)), "rows": one.rows,
            "asked": f"{one.opened_at:%Y-%m-%d %H:%M}",
            **({"words": " | ".join(f"{doubt.before}[{doubt.word}]{doubt.after}" for doubt in one.doubts)} if words else {}),
        }
        for one in found
    ]  # fmt: skip
    _show(rows, json, nothing=f"no find of {agent} is unsure")


def _move_ids(ports: Ports, agent: str, ids: list[tuple[UUID, AsideAction]], said: tuple[str, str]) -> list[Settled]:
    from perennial.flows.quarantine import settle_row

    return [settle_row(ports, agent, one, action, actor=said[0], why=said[1]) for one, action in ids]


def _move_all(
    ports: Ports, agent: str, code: str, task: str, action: AsideAction, said: tuple[str, str]
) -> list[Settled]:
    from perennial.flows.quarantine import piles, settle
    from perennial.ingest.aside import AsideOrder

    keys = [one.key for one in piles(ports, agent) if one.key.code == code and task in ("", one.key.task)]
    if not keys:
        raise typer.BadParameter(
            f"nothing of {agent} stands aside as {code!r}; `perennial quarantine {agent}` lists the reasons"
        )
    return [
        settle(ports, AsideOrder(agent=agent, action=action, key=key, actor=said[0], why=said[1]), at_once=10**9)
        for key in keys
    ]


def _overview(ports: Ports, json: bool) -> None:
    from perennial.flows.quarantine import overview
    from perennial.flows.redaction_tasks import totals

    piles, asked = {one.agent: one.rows for one in overview(ports)}, totals(ports)
    rows = [
        {
            "agent": agent, **{state.value: _count(piles.get(agent, {}).get(state, 0)) for state in _STATES},
            "unsure finds": _count(asked.get(agent, 0)),
        }
        for agent in sorted(piles.keys() | asked.keys())
    ]  # fmt: skip
    _show(rows, json, nothing="nothing stands aside")


def _piles(ports: Ports, agent: str, json: bool) -> None:
    from perennial.flows.quarantine import piles

    rows = [
        {
            "state": one.key.state.value, "task": one.key.task, "reason code": one.key.code,
            "rows": f"{one.rows}+" if one.more else str(one.rows), "why": one.why, "release": one.release_refused or "possible",
        }
        for one in piles(ports, agent)
    ]  # fmt: skip
    _show(rows, json, nothing=f"nothing of {agent} stands aside")


def _rows(ports: Ports, agent: str, code: str, task: str, limit: int, json: bool) -> None:
    from perennial.flows.quarantine import piles, set_aside

    keys = [one.key for one in piles(ports, agent) if one.key.code == code and task in ("", one.key.task)]
    rows = [
        {
            "id": str(row.example_id), "state": row.key.state.value, "task": row.key.task, "made": f"{row.created_at:%Y-%m-%d %H:%M}",
            "priority": row.priority, "sender": row.sender, "refusals": row.refusals, "reason": row.reason,
        }
        for key in keys
        for row in set_aside(ports, agent, key=key, limit=limit)
    ]  # fmt: skip
    _show(rows[:limit], json, nothing=f"nothing of {agent} stands aside as {code!r}")


_STATES = (State.QUARANTINED, State.HELD, State.UNLABELLED)


def _count(rows: int) -> str:
    from perennial.ingest.aside import MOST_COUNTED

    return f"{MOST_COUNTED}+" if rows > MOST_COUNTED else str(rows)


def _known(ports: Ports, agent: str) -> None:
    from perennial.errors import UnknownAgent

    fleet = ports.buffer.fleet()
    if agent not in fleet:
        raise UnknownAgent(agent, list(fleet))


def _show(rows: list[dict[str, Any]], json: bool, *, nothing: str) -> None:
    if json:
        typer.echo(json_format.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo(nothing)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", no_wrap=name in {"id", "made", "rows"})
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
