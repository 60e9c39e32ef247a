"""`perennial alerts` and `perennial budget`: what people are told about, and what trainings may still spend."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

from perennial.cli.common import Json
from perennial.cli.common import ports as _ports


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("alerts")(alerts)
    app.command("budget")(budget)


def alerts(
    over: Annotated[bool, typer.Option("--over", help="show closed alerts too")] = False,
    look: Annotated[
        bool, typer.Option("--look", help="look now instead of reading the last look; tells nobody")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="how many, newest first")] = 50,
    json: Json = False,
) -> None:
    """List open alerts, with the runbook of each. Exit code 1 when there is one."""
    from perennial.errors import NotConfigured
    from perennial.flows import alerts as flow

    ports = _ports()
    if ports.alerts is None:
        raise NotConfigured("PERENNIAL_DATABASE_URL", "alerts are kept in the database")
    if look:
        flow.tick(ports, None)
    found = ports.alerts.recent(over=over, limit=limit)
    if json:
        typer.echo(json_format.dumps([alert.as_dict() for alert in found], indent=1))
    else:
        for alert in found:
            state = "over" if alert.cleared_at else "told" if alert.delivered_at else "not told yet"
            typer.echo(f"{alert.raised_at:%Y-%m-%d %H:%M}  {alert.kind.value:<9}{state:<13}{alert.text}")
            typer.echo(f"{'':<18}{alert.runbook}")
        if not found:
            typer.echo("nothing is open")
    if any(alert.cleared_at is None for alert in found):
        raise typer.Exit(1)


def budget(
    agent: Annotated[str | None, typer.Argument(help="name of an agent; all agents when left out")] = None,
    json: Json = False,
) -> None:
    """Show the training seconds of agents: spent, allowed, and what waits because of that."""
    from perennial.flows.pause import overspent_of

    ports = _ports()
    fleet = ports.fleet()
    rows: list[dict[str, Any]] = []
    for one in [fleet.agent(agent)] if agent else fleet.agents:
        day, week = ports.jobs.training_seconds(one.name)
        rows.append(
            {
                "agent": one.name, "day": round(day, 1), "day_limit": one.budget.day_seconds, "week": round(week, 1),
                "week_limit": one.budget.week_seconds, "waits": overspent_of(ports, one.name) or "",
                "corrections_wait": overspent_of(ports, one.name, urgent=True) or "",
            }
        )  # fmt: skip
    if json:
        typer.echo(json_format.dumps(rows, indent=1))
        return
    for row in rows:
        limits = [
            f"{row['day']:.0f} s of {_limit(row['day_limit'])} within 24 hours",
            f"{row['week']:.0f} s of {_limit(row['week_limit'])} within 7 days",
        ]
        typer.echo(f"{row['agent']}: {', '.join(limits)}")
        for why in filter(None, (row["waits"], row["corrections_wait"])):
            typer.echo(f"  waits: {why}")


def _limit(seconds: float | None) -> str:
    return "no limit" if seconds is None else f"{seconds:.0f} s"
