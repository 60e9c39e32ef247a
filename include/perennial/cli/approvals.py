"""`perennial approvals`: what waits for a person, and who decided what about which bytes."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perennial.cli.common import Json
from perennial.cli.common import ports as _ports

if TYPE_CHECKING:
    from perennial.flows.ports import Ports
    from perennial.registry.rows import Approval, Question


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("approvals")(approvals)


def approvals(
    agent: Annotated[str | None, typer.Argument(help="name of an agent; all agents when left out")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many decisions")] = 20,
    json: Json = False,
) -> None:
    """List open questions and past decisions, newest first: who, when, which bytes, to become which version, until when."""
    from perennial.flows.questions import open_questions

    ports = _ports()
    waiting = [_question(ports, row) for row in open_questions(ports, agent)]
    decided = [_decision(row) for row in ports.ledger.decisions(agent=agent, limit=limit)]
    if json:
        typer.echo(json_format.dumps({"open": waiting, "decided": decided}, indent=1))
        return
    _print("Open: answer under Required Actions in Airflow", waiting, nothing="nobody is asked anything now")
    _print("Decided", decided, nothing="nobody decided anything yet")


def _question(ports: Ports, row: Question) -> dict[str, Any]:
    from perennial.settings import without_login

    airflow = without_login(ports.settings.airflow_url).rstrip("/")
    return {
        "agent": row.agent, "version": row.version, "asked": row.asked_at.isoformat(timespec="seconds"),
        "requested by": row.requested_by or "a machine", "digest": row.content_digest, "job": str(row.job_id),
        "attempt": row.attempt,
        "form": f"{airflow}/dags/train_{row.agent}/runs/{ports.buffer.run_of_job(row.job_id)}/tasks/approve",
    }  # fmt: skip


def _decision(row: Approval) -> dict[str, Any]:
    return {
        "agent": row.agent, "version": row.version, "decision": row.decision.value, "by": row.actor,
        "at": row.created_at.isoformat(timespec="seconds"), "expires": row.expires_at.isoformat(timespec="seconds"),
        "requested by": row.requested_by or "a machine", "does not count": row.void, "comment": row.comment,
        "digest": row.content_digest, "job": str(row.job_id), "attempt": row.attempt,
    }  # fmt: skip


def _print(title: str, rows: Sequence[Mapping[str, Any]], *, nothing: str) -> None:
    if not rows:
        typer.echo(f"{title}: {nothing}")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # identities, whole in --json, are what a table of a terminal's width can do without
    shown = [{name: value for name, value in row.items() if name not in {"job", "attempt"}} for row in rows]
    empty = {name for name in shown[0] if not any(row[name] for row in shown)}
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    names = [name for name in shown[0] if name not in empty]
    for name in names:
        table.add_column(name, overflow="fold")
    for row in shown:
        table.add_row(*(escape(_cell(name, str(row[name]))) for name in names))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _cell(name: str, text: str) -> str:
    """A value as a table shows it: times to the second without a zone, digests short.

    >>> _cell("at", "2026-11-21T17:35:21+00:00"), _cell("digest", "ab" * 32), _cell("by", "ana")
    ('2026-11-21 17:35:21', 'abababababababab', 'ana')
    """
    if name in {"at", "asked", "expires"}:
        return text[:19].replace("T", " ")
    return text[:16] if name == "digest" else text
