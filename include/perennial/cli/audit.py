"""`perennial audit verify`, `seal` and `show`: whether the record of decisions still stands as it was written, and what it says."""

from __future__ import annotations

import json as json_format
import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perennial.cli.common import Json
from perennial.cli.common import ports as _ports

if TYPE_CHECKING:
    from perennial.flows.sealing import Verified

_NOTED = re.compile(r"(\d+):([0-9a-f]{64})")
_SHOWN = 20
_PROOFS = {
    "signed": "signed with our key",
    "unsigned": "not signed: no signing key was set where it was kept",
    "unchecked": "its signature was not checked: PERENNIAL_VERIFY_KEY_FILE is not set",
    "forged": "NOT signed with our key",
}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="audit", help="Verify, seal and read the record of decisions.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("seal")(seal)
    group.command("show")(show)
    app.add_typer(group)


def verify(
    head: Annotated[
        list[str] | None, typer.Option(help="a head that you wrote down, as BATCH:HASH; may be given more than once")
    ] = None,
    require_head: Annotated[
        bool, typer.Option("--require-head", help="fail unless a signed head was compared")
    ] = False,
    json: Json = False,
) -> None:
    """Recompute the whole chain and compare it with the kept heads; exits 1 and names the first bad row or batch."""
    from perennial.flows import sealing

    noted = [_noted(text) for text in head or ()]
    began = time.perf_counter()
    result = sealing.verify(_ports(), noted)
    seconds = time.perf_counter() - began
    missing = require_head and result.worth != "signed"
    if json:
        typer.echo(json_format.dumps({**_facts(result), "seconds": round(seconds, 3)}, indent=1))
    else:
        _tell(result, seconds)
    if missing:
        typer.echo("no head with a good signature was compared, and --require-head asks for one", err=True)
    if missing or not result.report.sound:
        raise typer.Exit(1)


def seal(json: Json = False) -> None:
    """Chain what waits and print the head; write it down or copy audit/heads.jsonl to where the database's owner cannot write."""
    from dataclasses import asdict

    from perennial.flows import sealing

    result = sealing.seal(_ports())
    if json:
        typer.echo(
            json_format.dumps({"sealed": result.rows, "head": asdict(result.head) if result.head else None}, indent=1)
        )
    elif result.head is None:
        typer.echo("nothing was ever written into the audit")
    else:
        typer.echo(f"sealed {result.rows} rows; {result.head.rows} in all, up to row {result.head.last_id}")
        typer.echo(f"head {result.head.batch}:{result.head.hash}")


def show(
    agent: Annotated[str | None, typer.Argument(help="name of an agent; all agents when left out")] = None,
    limit: Annotated[int, typer.Option(min=1, help="how many, newest first")] = 20,
    json: Json = False,
) -> None:
    """List the last decisions, newest first."""
    entries = _ports().audit.entries(agent, limit)
    rows: list[dict[str, Any]] = [
        {
            "id": one.id, "at": one.at.isoformat(timespec="microseconds"), "actor": one.actor, "action": one.action,
            "agent": one.agent, "subject": one.subject, "detail": dict(one.detail),
        }
        for one in entries
    ]  # fmt: skip
    if json:
        typer.echo(json_format.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo(f"no decision about {agent} yet" if agent else "no decision yet")
        return
    for row in rows:
        about = " ".join(filter(None, (row["agent"], row["subject"])))
        detail = json_format.dumps(row["detail"], ensure_ascii=False) if row["detail"] else ""
        typer.echo(
            f"{row['id']:>7}  {row['at'][:19].replace('T', ' ')}  {row['actor']}: {row['action']}  {about}  {detail}".rstrip()
        )


def _noted(text: str) -> tuple[int, bytes]:
    found = _NOTED.fullmatch(text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text[:80]!r} is not BATCH:HASH as `perennial audit seal` prints it")
    return int(found[1]), bytes.fromhex(found[2])


def _facts(result: Verified) -> dict[str, Any]:
    report, kept = result.report, result.head
    return {
        "sound": report.sound, "rows": report.rows, "batches": report.batches, "unsealed": report.unsealed,
        "head": {"batch": report.head.batch, "hash": report.head.hash.hex()} if report.head else None,
        "kept_head": {"batch": kept.batch, "hash": kept.hash, "signature": result.worth.value} if kept else None,
        "compared_up_to": report.compared, "found": report.found,
        "findings": [
            {"kind": one.kind.value, "batch": one.batch, "row": one.row, "text": one.text} for one in report.findings
        ],
    }  # fmt: skip


def _tell(result: Verified, seconds: float) -> None:
    report, kept = result.report, result.head
    counts = f"{report.rows} rows, {report.batches} batches, {report.unsealed} not sealed yet ({seconds:.1f} s)"
    if report.sound:
        typer.echo(f"OK: {counts}")
    else:
        typer.echo(f"BROKEN: {report.findings[0].kind.value}: {report.findings[0].text}")
        for one in report.findings[1:_SHOWN]:
            typer.echo(f"  also {one.kind.value}: {one.text}")
        if report.found > _SHOWN:
            typer.echo(f"  and {report.found - _SHOWN} more")
        typer.echo(f"looked at {counts}")
    if report.head is not None:
        typer.echo(f"head {report.head.batch}:{report.head.hash.hex()}")
    if kept is None:
        typer.echo(
            "no head is kept outside the database, so a cut at the end would not show; `perennial audit seal` keeps one"
        )
    else:
        typer.echo(f"compared with the head kept for batch {kept.batch}, {_PROOFS[result.worth.value]}")
