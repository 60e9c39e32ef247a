"""`perennial keys list`, `rotate` and `revoke`: which keys releases are verified with."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

from perennial.cli.common import Actor, Json, Reason, who, why
from perennial.cli.common import ports as _ports


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        name="keys", help="The keys that sign and verify releases: list, rotate, revoke.", no_args_is_help=True
    )
    group.command("list")(show)
    group.command("rotate")(rotate)
    group.command("revoke")(revoke)
    app.add_typer(group)


def show(json: Json = False) -> None:
    """List the present key and the retired ones, with what each still counts for."""
    from perennial.errors import NotConfigured
    from perennial.registry import keyring

    public = _ports().settings.verify_key_file
    if public is None:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", "set it to the public key of whoever signs the releases")
    rows: list[dict[str, Any]] = [
        {"key": keyring.key_id(public.read_bytes()), "counts_for": "everything", "reason": ""}
    ]
    for one in keyring.read(public):
        until = f"what was registered until {one.retired_at:%Y-%m-%d %H:%M} UTC"
        rows.append(
            {
                "key": one.id,
                "counts_for": "nothing: revoked" if one.revoked_at else until,
                "reason": f"{one.actor}: {one.reason}",
            }
        )
    if json:
        typer.echo(json_format.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['key']}  {row['counts_for']}  {row['reason']}".rstrip())


def rotate(reason: Reason = "", actor: Actor = "") -> None:
    """Sign with a new key from now on. Give the new public key and retired.json to whoever serves on another host."""
    from perennial.flows import rotation

    ports = _ports()
    old, new = rotation.rotate(ports, actor=who(actor), reason=why(reason, "yearly rotation"))
    public = ports.settings.verify_key_file
    assert public is not None  # else nothing was rotated
    typer.echo(f"{new} signs from now on; {old} counts for what was registered before.")
    typer.echo(f"copy {public.name} and retired.json from {public.parent} to every host that serves")


def revoke(
    key: Annotated[str, typer.Argument(help="id of a retired key, as `perennial keys list` prints it")],
    reason: Reason = "",
    actor: Actor = "",
) -> None:
    """Load nothing any more that a retired key signed. For a key that was stolen: rotate first, then revoke."""
    from perennial.flows import rotation

    found = rotation.revoke(_ports(), key, actor=who(actor), reason=why(reason, "yearly rotation"))
    typer.echo(
        f"{found.id} counts for nothing from now on; a champion that it signed is not loaded again: train anew, or roll back"
    )
