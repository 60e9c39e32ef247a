"""`perennial dags install` and `perennial airflow-settings apply`: what an Airflow that runs already is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    dags = typer.Typer(no_args_is_help=True, help="Our DAG files in the folders of an Airflow that runs already.")
    dags.command("install")(install)
    app.add_typer(dags, name="dags")
    settings = typer.Typer(no_args_is_help=True, help="Pools, connections and variables of any Airflow, from one file.")
    settings.command("apply")(apply)
    app.add_typer(settings, name="airflow-settings")


def install(
    folder: Annotated[Path, typer.Argument(help="Airflow's DAG folder, or a folder in it")],
    fleet: Annotated[Path | None, typer.Option(help="copy the example agent there too")] = None,
    force: Annotated[bool, typer.Option(help="overwrite files that somebody edited")] = False,
) -> None:
    """Copy the DAG files; may be repeated, also after an upgrade. Files that you edited stay as they are and are named."""
    from perennial.stack import shipped

    kept = _copy(shipped.DAGS, folder, force)
    if fleet is not None:
        kept |= _copy(shipped.FLEET, fleet, force)
        typer.echo(f"Airflow finds the agents by PERENNIAL_FLEET_FOLDER={fleet.absolute()}")
    raise typer.Exit(1 if kept else 0)


def _copy(kind: str, folder: Path, force: bool) -> bool:
    from perennial.stack import shipped

    done = shipped.copy(shipped.shipped(kind), folder, force=force)
    typer.echo(
        f"{folder}: {len(done.written)} written, {len(done.unchanged)} as they were, {len(done.removed)} removed"
    )
    for name in done.kept:
        typer.echo(f"{folder / name} was edited and stays; --force overwrites it", err=True)
    return bool(done.kept)


def apply(
    file: Annotated[Path | None, typer.Argument(help="in the form of Astro's CLI; our own when left out")] = None,
    keep: Annotated[bool, typer.Option(help="leave alone what exists; only make what is missing")] = False,
    check: Annotated[bool, typer.Option(help="read the file and change nothing")] = False,
) -> None:
    """Make Airflow's pools, connections and variables as the file says; may be repeated.

    ${NAME} in a value is taken from the environment. Airflow is found by PERENNIAL_AIRFLOW_URL and asked as
    PERENNIAL_AIRFLOW_USER with PERENNIAL_AIRFLOW_PASSWORD, or with PERENNIAL_AIRFLOW_TOKEN.
    """
    from perennial.settings import load_settings
    from perennial.stack import airflow_settings, shipped
    from perennial.stack.airflow_api import AirflowApi

    wanted = airflow_settings.read(file or shipped.shipped_settings())
    if check:
        typer.echo(f"{len(wanted)} entries are understood; nothing was changed")
        return
    for entry, outcome in airflow_settings.apply(wanted, AirflowApi(load_settings()), keep=keep):
        typer.echo(f"{entry.kind.value} {entry.id}: {outcome.value}")
