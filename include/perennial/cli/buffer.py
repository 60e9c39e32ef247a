"""`perennial import FILE` and `perennial buffer AGENT`: put examples in, and see where they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_examples)
    app.command("buffer")(show_buffer)


def import_examples(
    file: Annotated[Path, typer.Argument(help="JSON Lines (.jsonl) or CSV (.csv), one example per line.")],
    agent: Annotated[str | None, typer.Option(help="The agent of records that name none.")] = None,
    task: Annotated[
        str | None, typer.Option(help="The task of records that name none; not needed when the agent has one.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="The column with the texts, if not `text`.")] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(help="A column with labels, if not `label` or called like a task; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Add the examples of a file to the buffer; importing it again adds nothing twice."""
    from dataclasses import asdict

    from rich.console import Console

    from perennial.client import import_file

    if agent is not None:
        _introduce(agent)
    result = import_file(file, agent, task, text_column=text_column, label_columns=label_column or ())
    if as_json:
        typer.echo(json.dumps(asdict(result)))
    else:
        out = Console(highlight=False)
        out.print(f"{result.added} added, {result.duplicates} known already, {result.quarantined} in quarantine")
        if result.evicted:
            out.print(f"{result.evicted} rows of the least worth left a full buffer")
        for problem in result.problems:
            out.print(f"  {problem}", markup=False)
        if result.rejected > len(result.problems):
            out.print(f"  and {result.rejected - len(result.problems)} more")
    if result.rejected:
        raise typer.Exit(2)


def _introduce(agent: str) -> None:
    """Tell the database of an agent whose file is new; the data plane would within seconds."""
    from perennial.client.connection import connection

    if agent not in connection().buffer.fleet():
        from perennial.cli.common import ports
        from perennial.flows.fleet_sync import sync

        sync(ports())


def show_buffer(
    agent: Annotated[str, typer.Argument(help="An agent of the fleet.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Show how many examples of an agent stand where, by task and state."""
    from rich.console import Console
    from rich.table import Table

    from perennial.client.connection import connection
    from perennial.errors import UnknownAgent

    buffer = connection().buffer
    fleet = buffer.fleet()
    if agent not in fleet:
        raise UnknownAgent(agent, list(fleet))
    paused = _paused(agent)
    counts, due, counters = buffer.counts(agent), buffer.due(agent), buffer.counters().get(agent, {})
    if as_json:
        tasks: dict[str, dict[str, int]] = {}
        for (task, state), count in sorted(counts.items()):
            tasks.setdefault(task, {})[state] = count
        reason = due.reason.value if due.reason else None
        typer.echo(json.dumps({"agent": agent, "tasks": tasks, "due": reason, "paused": paused, "counters": counters}))
        return
    table = Table("task", "state", "examples", title=f"buffer of {agent}")
    for (task, state), count in sorted(counts.items()):
        table.add_row(task, state, str(count))
    out = Console(highlight=False)
    out.print(table)
    why = f"due: {due.reason.value}" if due.reason else f"not due: {due.waiting} of {due.threshold} waiting"
    if paused is not None:
        why = f"{why}; {paused}"
    out.print(
        f"{why}; counted: " + (", ".join(f"{value} {name}" for name, value in sorted(counters.items())) or "nothing")
    )


def _paused(agent: str) -> str | None:
    """Why the agent does not train by itself although enough may be waiting; None when nothing keeps it."""
    from perennial.flows.pause import pause_of
    from perennial.wiring import ports

    found = pause_of(ports(), agent)
    return None if found is None else found.reason
