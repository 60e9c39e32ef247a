"""`perennial retention`, `retention hold` and `retention release`: what goes by age, and what a person keeps."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer

from perennial.cli.common import Actor, Agent, Reason, who, why
from perennial.cli.common import ports as _ports

if TYPE_CHECKING:
    from perennial.flows.ports import Ports
    from perennial.retention.store import RetentionStore

_Version = Annotated[str, typer.Argument(help="such as 1.4.2")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(retention)
    group.command("hold")(hold)
    group.command("release")(release)
    group.command("holds")(holds)
    app.add_typer(group, name="retention")


def retention(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON, with every name")] = False,
) -> None:
    """Remove what the settings PERENNIAL_RETENTION_* call old, as the DAG `retention` does every day."""
    import getpass

    from perennial.errors import PerennialError
    from perennial.flows.retention import Part, run_part, told

    if context.invoked_subcommand is not None:
        return
    ports, done, failed = _ports(), [], []
    for part in Part:
        try:
            done.append(run_part(ports, part, dry_run=dry_run, actor=getpass.getuser()))
        except (
            PerennialError
        ) as error:  # the parts do not depend on each other's stores; a repeat takes up what is left
            failed.append(f"{part.value}: {type(error).__name__}: {error}")
    if json:
        typer.echo(json_format.dumps({"parts": [one.as_dict() for one in done], "failed": failed}, indent=1))
    else:
        for one in done:
            for name in one.names:
                typer.echo(f"{one.part.value}: {name}")
        typer.echo(told([one.counts() for one in done]))
        for line in failed:
            typer.echo(f"failed, run it again: {line}", err=True)
    if failed:
        raise typer.Exit(1)


def hold(agent: Agent, version: _Version, reason: Reason = "", actor: Actor = "") -> None:
    """Keep the files of a version whatever its age, for an audit or a dispute, until `release`."""
    _decide(agent, version, held=True, reason=reason, actor=actor)


def release(agent: Agent, version: _Version, reason: Reason = "", actor: Actor = "") -> None:
    """End a hold: age decides about the version again."""
    _decide(agent, version, held=False, reason=reason, actor=actor)


def holds(agent: Agent) -> None:
    """List the versions of an agent that people hold, and why."""
    found = _store(_ports()).holds(agent)
    lines = [f"{one.version}  since {one.at:%Y-%m-%d %H:%M}  by {one.actor}: {one.reason}" for one in found]
    typer.echo("\n".join(lines) or f"no version of {agent} is held")


def _decide(agent: str, version: str, *, held: bool, reason: str, actor: str) -> None:
    told, ports, person = why(reason, "audit of May"), _ports(), who(actor)
    changed = _store(ports).hold(agent, version, held=held, actor=person, reason=told)
    state = "held" if held else "not held"
    if changed:
        action = "retention_hold" if held else "retention_release"
        ports.audit.append(actor=person, action=action, agent=agent, subject=version, detail={"why": told})
    typer.echo(f"{agent} {version} is {state}" + ("" if changed else " already"))


def _store(ports: Ports) -> RetentionStore:
    from perennial.errors import NotConfigured

    if ports.retention is None:
        raise NotConfigured("PERENNIAL_DATABASE_URL", "holds are kept in the database")
    return ports.retention
