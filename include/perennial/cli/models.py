"""`perennial models`, `verify` and `rollback`: what was released, whether its bytes are genuine, and the way back."""

from __future__ import annotations

import json as json_format
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perennial.cli.common import Actor, Agent, Json, Reason, moment, who, why
from perennial.cli.common import ports as _ports

if TYPE_CHECKING:
    from perennial.registry.ledger import Ledger
    from perennial.registry.rows import Release

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:\d\d)?")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("models")(models)
    app.command("verify")(verify)
    app.command("rollback")(rollback)


def models(
    agent: Annotated[str | None, typer.Argument(help="name of an agent; all agents when left out")] = None,
    at: Annotated[str | None, typer.Option(help="say what served at this time (ISO 8601, UTC when no zone)")] = None,
    moves: Annotated[bool, typer.Option("--moves", help="show who moved the aliases, when and why")] = False,
    json: Json = False,
) -> None:
    """List agents and their champions, or the releases of one agent, newest first."""
    ledger = _ports().ledger
    if agent is None:
        if at or moves:
            raise typer.BadParameter("--at and --moves need the name of an agent")
        rows = [_agent_row(ledger, name) for name in ledger.agents()]
    elif at is not None:
        rows = [_served(ledger, agent, moment(at))]
    elif moves:
        rows = [_plain(asdict(move)) for move in ledger.moves(agent)]
    else:
        rows = [_release_row(ledger, release) for release in ledger.versions(agent)]
    _print(rows, json, nothing=f"no release of {agent} yet" if agent else "no release yet; `perennial demo` makes one")


def verify(agent: Agent, version: Annotated[str, typer.Argument(help="such as 1.4.2")], json: Json = False) -> None:
    """Fetch a release anew and check signature, digest, manifest and ledger row; exits 1 when anything disagrees."""
    import tempfile
    from pathlib import Path

    from perennial.errors import NotConfigured, RegistryError
    from perennial.flows.retention import check_files_are_there
    from perennial.registry.manifest import Manifest
    from perennial.registry.signing import verify_bundle

    ports = _ports()
    key = ports.settings.verify_key_file
    if key is None:
        raise NotConfigured(
            "PERENNIAL_VERIFY_KEY_FILE", "start the stack with `perennial up`, or set it to the public key"
        )
    row = ports.ledger.version(agent, version)
    if row is None:
        raise RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")
    check_files_are_there(ports, agent, version)
    with tempfile.TemporaryDirectory() as room:
        folder, signature = ports.models.fetch(agent, version, Path(room) / "fetched", digest=row.digest)
        copy = verify_bundle(folder, signature, key, row, into=Path(room))
        record = Manifest.read(copy).as_dict()
    facts = {
        "agent": agent, "version": version, "verified": True, "digest": row.digest, "order": row.order,
        "signed_with": str(key.name), "examples": record["examples"]["count"], "gate": record["gate_action"],
        "content_digest": record["content_digest"], "released": row.created_at.isoformat(),
    }  # fmt: skip
    if json:
        typer.echo(json_format.dumps(facts, indent=1))
        return
    typer.echo(f"{agent} {version} is genuine: signature, digest, manifest and ledger row (order {row.order}) agree.")
    typer.echo(f"digest {row.digest}")


def rollback(
    agent: Agent,
    version: Annotated[
        str | None, typer.Argument(help="the version to serve again; the former champion when left out")
    ] = None,
    reason: Reason = "",
    actor: Actor = "",
    json: Json = False,
) -> None:
    """Serve an earlier version again, with the same bytes; the history stays."""
    from perennial.flows.rollback import rollback_agent

    result = rollback_agent(_ports(), agent, actor=who(actor), reason=why(reason), version=version)
    if json:
        typer.echo(json_format.dumps(result, indent=1))
    else:
        typer.echo(f"{agent} goes back from {result['from']} to {result['to']}.")


def _agent_row(ledger: Ledger, agent: str) -> dict[str, Any]:
    releases = ledger.versions(agent)
    served = ledger.served_at(agent, datetime.now(UTC))
    return {
        "agent": agent, "champion": ledger.champion(agent), "candidate": ledger.candidate(agent),
        "releases": len(releases), "newest": releases[0].version if releases else None,
        "serves since": served.moved_at.isoformat(timespec="seconds") if served else None,
        "decided by": served.actor if served else None,
    }  # fmt: skip


def _release_row(ledger: Ledger, release: Release) -> dict[str, Any]:
    record = release.manifest
    named = {ledger.champion(release.agent): "champion", ledger.candidate(release.agent): "candidate"}
    return {
        "version": release.version, "alias": named.get(release.version, ""), "base": release.base_version or "",
        "released": release.created_at.isoformat(timespec="seconds"), "trigger": record["reason"], "mode": record["mode"],
        "examples": record["examples"]["count"], "gate": record["gate_action"], "accuracy": _accuracy(record["metrics"]),
        "digest": release.digest[:12], "job": str(release.job_id or ""),
    }  # fmt: skip


def _accuracy(metrics: Mapping[str, float]) -> str:
    found = {name.removesuffix(".candidate"): value for name, value in metrics.items() if name.endswith(".candidate")}
    return ", ".join(f"{task} {value:.1%}" for task, value in sorted(found.items()))


def _served(ledger: Ledger, agent: str, time: datetime) -> dict[str, Any]:
    move = ledger.served_at(agent, time)
    if move is None:
        return {"agent": agent, "at": time.isoformat(), "version": None, "since": None, "by": None, "reason": None}
    return {
        "agent": agent, "at": time.isoformat(), "version": move.version, "by": move.actor, "reason": move.reason,
        "since": move.moved_at.isoformat(timespec="seconds"),
    }  # fmt: skip


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value if value is None or isinstance(value, int) else str(value) for key, value in row.items()}


def _print(rows: Sequence[Mapping[str, Any]], as_json: bool, *, nothing: str) -> None:
    if as_json:
        typer.echo(json_format.dumps(list(rows), indent=1))
        return
    if not rows:
        typer.echo(nothing)
        return
    from rich.console import Console
    from rich.table import Table

    # identities, whole in --json, are what a table of a terminal's width can do without
    shown = [{name: value for name, value in row.items() if name not in {"job", "job_id"}} for row in rows]
    table = Table(box=None, pad_edge=False)
    for name in shown[0]:
        table.add_column(name, overflow="fold", no_wrap=name not in {"accuracy", "reason"})
    for row in shown:
        table.add_row(*("" if value is None else _cell(name, value) for name, value in row.items()))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _cell(name: str, value: object) -> str:
    """A value as a table shows it: times to the second, one task's accuracy a line.

    >>> _cell("released", "2026-11-21T17:35:21+00:00"), _cell("accuracy", "a 1%, b 2%"), _cell("examples", 3)
    ('2026-11-21 17:35:21', 'a 1%\\nb 2%', '3')
    """
    text = str(value)
    if _TIME.fullmatch(text):
        return text[:19].replace("T", " ")
    return text.replace(", ", "\n") if name == "accuracy" else text
