"""`perennial uninstall`: shows what it would remove, and removes it with --yes."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("uninstall")(uninstall)


def uninstall(
    yes: Annotated[bool, typer.Option("--yes", help="remove it; without this it is only shown")] = False,
    force: Annotated[bool, typer.Option("--force", help="also during a rollout or a training")] = False,
    with_airflow: Annotated[
        bool, typer.Option("--with-airflow-and-mlflow", help="also the data of an embedded Airflow and MLflow")
    ] = False,
) -> None:
    """Stop the stack, drop the schema and roles of Perennial, and remove PERENNIAL_HOME. Take a backup first; run it again after a kill."""
    from perennial.settings import load_settings
    from perennial.stack import uninstall as flow
    from perennial.stack.home import home

    place, settings = home(), load_settings()
    found = flow.plan(place, settings)
    if not found.lines:
        typer.echo("nothing is left to remove here")
    for line in found.lines:
        typer.echo(f"{'removes' if yes else 'would remove'}  {line}")
    if yes and found.lines:
        flow.uninstall(place, settings, force=force, with_airflow=with_airflow)
        typer.echo("done")
    elif found.lines:
        typer.echo("nothing was changed; say --yes, and take a backup first: perennial backup FOLDER")
    roles = flow.roles_left(settings.owner_url()) if found.database is not None and yes else ()
    for line in (*found.left, *(f"the role {name}: DROP ROLE {name}, by an administrator" for name in roles)):
        typer.echo(f"stays  {line}")
