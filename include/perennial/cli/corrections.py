"""`perennial corrections AGENT`: what became of every correction, without their texts."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perennial.flows.corrections import Correction


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("corrections")(show_corrections)


def show_corrections(
    agent: Annotated[str, typer.Argument(help="An agent of the fleet.")],
    missed: Annotated[
        bool, typer.Option("--missed", help="Only those that were not learned or are wrong now.")
    ] = False,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Let the present champion answer each of them now (seconds).")
    ] = True,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show each correction: learned in which version or why not, and whether it is answered right now."""
    from perennial.errors import UnknownAgent
    from perennial.flows.corrections import corrections
    from perennial.wiring import ports

    world = ports()
    fleet = world.buffer.fleet()
    if agent not in fleet:
        raise UnknownAgent(agent, list(fleet))
    found = corrections(world, agent, ask=ask, limit=limit)
    shown = [one for one in found if _is_missed(one)] if missed else found
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in shown], indent=1))
        return
    _print(shown, found, agent)


def _is_missed(one: Correction) -> bool:
    from perennial.domain.words import CorrectionOutcome

    return one.outcome is CorrectionOutcome.NOT_LEARNED or (
        one.outcome is CorrectionOutcome.LEARNED and one.right_now is False
    )


def _print(shown: list[Correction], found: list[Correction], agent: str) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    if shown:
        table = Table(box=None, pad_edge=False)
        for name in ("correction", "task", "made", "priority", "outcome", "in", "right now", "why"):
            table.add_column(name, overflow="fold", no_wrap=name in {"made", "in", "outcome"})
        for one in shown:
            right = {True: "yes", False: "no", None: ""}[one.right_now]
            made = one.made.isoformat(sep=" ", timespec="seconds")[:19] if one.made else ""
            table.add_row(
                str(one.example_id),
                one.task,
                made,
                str(one.priority),
                one.outcome.value,
                one.version or "",
                right,
                one.why,
            )
        out.print(table)
    counts = Counter(one.outcome.value for one in found)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
    out.print(f"corrections of {agent}: {told}")
