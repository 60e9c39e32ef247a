"""`perennial --version`."""

from __future__ import annotations

from typing import Annotated

import typer

import perennial


def register(app: typer.Typer) -> None:
    """Add the option."""
    app.callback()(options)


def _show(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perennial {perennial.__version__}")
        raise typer.Exit


def options(
    version: Annotated[bool, typer.Option("--version", callback=_show, is_eager=True, help="say it and end")] = False,
) -> None:
    """Keeps a fleet of models fresh, on Apache Airflow."""
