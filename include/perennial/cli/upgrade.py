"""`perennial upgrade`: brings the tables of Perennial, Airflow and MLflow to what is installed."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli.common import Actor, Json, Reason, who

if TYPE_CHECKING:
    from collections.abc import Callable

    from perennial.stack.upgrade import Standing


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("upgrade")(upgrade)


def upgrade(
    check: Annotated[
        bool, typer.Option("--check", help="only compare; exit code 1 when something is to apply")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="wait for rollouts and trainings to end, an hour at most")
    ] = False,
    reason: Reason = "",
    actor: Actor = "",
    json: Json = False,
) -> None:
    """Apply the migrations of Perennial, Airflow and MLflow, in this order; not while a rollout is open or a training runs.

    Take a backup first. Run it again after a kill. Restart the processes afterwards.
    """

    from perennial.guard.said import said
    from perennial.settings import load_settings
    from perennial.stack import upgrade as flow
    from perennial.stack.home import home

    settings = load_settings()
    tables = flow.systems(home(), settings.owner_url())
    if check:
        found = [one.look() for one in tables]
        _tell(found, json)
        raise typer.Exit(1 if any(one.pending for one in found) else 0)
    say = (lambda line: typer.echo(line, err=True)) if json else typer.echo
    note = _note(settings.owner_url(), who(actor), said(reason))
    applied = flow.upgrade(tables, settings.owner_url(), wait=wait, tell=say, applied=note)
    if json:
        _tell(applied, json)
    elif applied:
        typer.echo("done; restart the processes now: `perennial down`, then `perennial up`, or your own")


def _note(owner_url: str, actor: str, why: str) -> Callable[[Standing], None]:
    """Writes what was applied into the audit. As the owner: an upgrade needs no other role's URL."""
    from perennial.audit.log import PostgresAuditLog
    from perennial.storage.database import Database

    log = PostgresAuditLog(Database(owner_url, max_size=1))

    def note(standing: Standing) -> None:
        detail = {"applied": {standing.name: list(standing.pending)}, "why": why}
        log.append(actor=actor, action="upgraded", detail=detail)

    return note


def _tell(found: list[Standing], json: bool) -> None:
    if json:
        rows = [
            {"name": one.name, "installed": one.installed, "pending": list(one.pending), "left_out": one.left_out}
            for one in found
        ]
        typer.echo(json_format.dumps(rows, indent=1))
        return
    for one in found:
        typer.echo(one.told())
