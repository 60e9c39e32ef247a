"""`perennial bundle export` and `import`: a release from one deployment to the next, judged and signed anew there."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from perennial.cli.common import Actor, Agent, Json, Reason, who, why
from perennial.cli.common import ports as _ports


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="bundle", help="Carry a release from one deployment to another.", no_args_is_help=True)
    group.command("export")(export)
    group.command("import")(bring)
    app.add_typer(group)


def export(
    agent: Agent,
    version: Annotated[str, typer.Argument(help="such as 1.4.2")],
    to: Annotated[Path, typer.Option(help="the file to write")],
    actor: Actor = "",
) -> None:
    """Write a released version, with its signature and encoders, to one file."""
    from perennial.flows import carry

    header = carry.export(_ports(), agent, version, to.absolute(), actor=who(actor))
    typer.echo(f"{to}: {agent} {version}, {to.stat().st_size / 1e6:,.1f} MB, digest {header.digest}")


def bring(
    file: Annotated[Path, typer.Argument(help="what `perennial bundle export` wrote")],
    agent: Annotated[str | None, typer.Option(help="refuse the file unless it is of this agent")] = None,
    reason: Reason = "",
    actor: Actor = "",
    json: Json = False,
) -> None:
    """Judge a trusted sender's release on this deployment's holdout; when the gates pass it, release it here and start its rollout."""
    from dataclasses import asdict

    from perennial.errors import NotConfigured, StoreUnavailable
    from perennial.flows import carry

    told, ports = why(reason, "accepted on staging"), _ports()
    done = carry.bring(ports, file, actor=who(actor), why=told, agent=agent)
    typer.echo(json_format.dumps(asdict(done), indent=1) if json else done.note)
    if done.version is None:
        raise typer.Exit(1)
    try:
        if ports.runs is not None:
            ports.runs.start(f"rollout_{done.agent}", f"import__{done.version}")
    except (StoreUnavailable, NotConfigured) as error:
        typer.echo(f"the rollout was not started: {error}; trigger rollout_{done.agent} in Airflow", err=True)
