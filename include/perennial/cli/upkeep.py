"""`perennial migrate` and `perennial held`: what a deployment and its people need now and then."""

from __future__ import annotations

from typing import Annotated

import typer

from perennial.cli.common import who, why

_SHOWN = 40  # sources that are named


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("migrate")(migrate)
    app.command("held")(held)


def migrate() -> None:
    """Bring the database of PERENNIAL_OWNER_DATABASE_URL up to date; does nothing when it is."""
    from perennial.settings import load_settings
    from perennial.storage.migrate import migrate as apply

    fresh = apply(load_settings().owner_url())
    typer.echo("\n".join(f"applied {name}" for name in fresh) or "the database is up to date")


def held(
    agent: Annotated[str, typer.Argument(help="whose held rows")],
    release: Annotated[bool, typer.Option(help="let them train again")] = False,
    drop: Annotated[bool, typer.Option(help="take them out of training for good")] = False,
    reason: Annotated[str, typer.Option(help="for the audit log")] = "",
) -> None:
    """Rows of an agent wait for you, refused twice or held back by the screening: count them, release them, or drop them.

    What you release is not screened again at its next training; the gates still judge what it makes.
    """
    from perennial.ingest.aside import drop_held, release_held
    from perennial.settings import load_settings
    from perennial.storage.database import Database
    from perennial.wiring import ports

    settings = load_settings()
    if not release and not drop:
        found = ports(settings).buffer.held(agent)
        lines = [
            f"{line.task}: {line.rows} held of {line.source_id or 'no named source'} ({line.reason})"
            for line in found[:_SHOWN]
        ]
        more = sum(line.rows for line in found[_SHOWN:])
        lines += [f"and {more} of {len(found) - _SHOWN} other sources"] if more else []
        typer.echo("\n".join(lines) or f"no row of {agent} is held")
        return
    if release and drop:
        raise typer.BadParameter("choose --release or --drop")
    database, actor = Database(settings.app_url()), who("")
    decide = release_held if release else drop_held
    count = decide(database, agent, actor, why(reason) if reason.strip() else "")
    typer.echo(f"{'released' if release else 'dropped'} {count} rows of {agent}")
