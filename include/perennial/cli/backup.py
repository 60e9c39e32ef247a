"""`perennial backup` and `perennial restore`: one folder that holds a deployment, and the way back."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from perennial.cli.common import Json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    folder: Annotated[Path, typer.Argument(help="a new folder; it appears whole or not at all")],
    with_secrets: Annotated[
        bool,
        typer.Option(
            "--with-secrets", help="also the private signing key and the passwords; guard the folder like them"
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Copy databases, models' files, public keys, settings and the fleet folder into a folder, while everything runs."""
    from importlib.metadata import version

    from perennial.settings import load_settings
    from perennial.stack.backup import backup as make
    from perennial.stack.backup import scripts_elsewhere
    from perennial.stack.home import home

    settings, place = load_settings(), home()
    made = make(
        folder.absolute(), home=place.root, databases=_databases(settings, place),
        keys={"public": settings.verify_key_file, "private": settings.signing_key_file}, fleet=settings.fleet_folder,
        made_with=version("perennial"), with_secrets=with_secrets,
    )  # fmt: skip
    total = sum(int(one["bytes"]) for one in made.files.values())
    elsewhere = scripts_elsewhere(settings.fleet_folder)
    if json:
        told = {"folder": str(folder), "bytes": total, "scripts_left_out": elsewhere, **_facts(made.facts)}
        typer.echo(json_format.dumps(told, indent=1))
        return
    typer.echo(f"{folder}: {len(made.files)} files, {total / 1e6:,.1f} MB, databases {', '.join(made.databases)}")
    typer.echo("with the private key and the passwords" if with_secrets else "no secret is in it")
    for name in elsewhere:
        typer.echo(f"NOT in it: the script {name}, which is outside of {settings.fleet_folder}; keep a copy")


def restore(
    folder: Annotated[Path, typer.Argument(help="what `perennial backup` made")],
    database_url: Annotated[
        str,
        typer.Option(
            envvar="PERENNIAL_RESTORE_DATABASE_URL",
            help="owner's URL of an empty database; left out: the embedded one. With a password, give it as the variable",
        ),
    ] = "",
    mlflow_database_url: Annotated[
        str,
        typer.Option(envvar="PERENNIAL_RESTORE_MLFLOW_URL", help="the same for MLflow's, where the backup holds it"),
    ] = "",
    airflow_database_url: Annotated[
        str, typer.Option(envvar="PERENNIAL_RESTORE_AIRFLOW_URL", help="the same for Airflow's")
    ] = "",
    json: Json = False,
) -> None:
    """Bring a backup back into the empty home PERENNIAL_HOME, and prove it: champions, audit, rows by state. Then `perennial up`."""
    from dataclasses import asdict

    from perennial.stack.backup import OURS
    from perennial.stack.home import home
    from perennial.stack.restore import restore as bring_back

    given = {OURS: database_url, "mlflow": mlflow_database_url, "airflow": airflow_database_url}
    urls = {name: url for name, url in given.items() if url}
    result = bring_back(folder.absolute(), home(), urls or None)
    if json:
        typer.echo(json_format.dumps(asdict(result), indent=1))
        return
    rows = sum(count for name, count in result.facts.counts.items() if name.startswith("examples "))
    typer.echo(f"{rows} examples came back, each in its state; the audit's {result.audit_rows} rows verify")
    for name in result.champions:
        typer.echo(f"champion {name}: the same digest, its signature verifies")
    for name in result.unproven:
        typer.echo(f"champion {name}: its files lie elsewhere; run `perennial verify {name}` once that answers")
    if result.new_key:
        typer.echo(
            "the backup held no private key: a new one signs from now on, the old public one counts for what it signed"
        )
    for name in result.to_enter:
        typer.echo(
            f"Airflow's {name}: its key is not in the backup; enter it anew, or use `perennial airflow-settings apply`"
        )
    if (folder / "fleet").is_dir():
        typer.echo(f"the fleet folder is in {folder / 'fleet'}: copy all of it to its place before `perennial up`")


def _databases(settings: Any, place: Any) -> dict[str, str]:
    """Ours, and of the embedded stack MLflow's and Airflow's."""
    from perennial.stack import postgres
    from perennial.stack.backup import OURS
    from perennial.stack.secrets import read_or_make
    from perennial.stack.state import read_state, supervisor_runs

    found = {OURS: settings.owner_url()}
    if supervisor_runs(place):
        secrets, port = read_or_make(place), read_state(place).ports["postgres"]
        for name, password in (("mlflow", secrets.mlflow), ("airflow", secrets.airflow)):
            found[name] = postgres.url(port, name, name, password)
    return found


def _facts(facts: Any) -> dict[str, Any]:
    return {
        "at": facts.at,
        "counts": dict(facts.counts),
        "champions": {agent: dict(one) for agent, one in facts.champions.items()},
    }
