"""`perennial quarantine [AGENT]`: what stands aside and why; release or drop rows, with a reason."""

from __future__ import annotations

import json as json_format
import sys
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from perennial.cli.common import Actor, Json, Reason, who, why
from perennial.cli.common import ports as _ports
from perennial.domain.words import AsideAction, State

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
    limit: Annotated[int, typer.Option(min=1, max=1000, help="rows that --reason-code shows")] = 50,
    reason: Reason = "",
    actor: Actor = "",
    json: Json = False,
) -> None:
    """Show what stands aside by agent, task and reason, without texts; release or drop it.

    What is released from quarantine goes through admission and redaction again; held rows may train again. Dropped rows stay in
    the books. Both may be repeated: what was moved already is not moved twice.
    """
    ports = _ports()
    ids = [*((one, AsideAction.RELEASE) for one in release or ()), *((one, AsideAction.DROP) for one in drop or ())]
    if agent is None:
        if ids or reason_code or everything:
            raise typer.BadParameter("name the agent")
        _overview(ports, json)
        return
    _known(ports, agent)
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

    found = overview(ports)
    rows = [{"agent": one.agent, **{state.value: _count(one.rows.get(state, 0)) for state in _STATES}} for one in found]
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
