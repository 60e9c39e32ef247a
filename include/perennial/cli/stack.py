"""`perennial up`, `down`, `status` and `doctor`: the embedded stack."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from perennial.stack.control import Running
    from perennial.stack.findings import Verdict
    from perennial.stack.state import StackState
    from perennial.stack.status import StackStatus


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("doctor")(doctor)


def up() -> None:
    """Start PostgreSQL, Airflow, MLflow and the data plane; what already runs is reused."""
    from perennial.stack import control
    from perennial.stack.home import home

    console = _console()
    with _Progress(console) as progress:
        running = control.up(home(), tell=progress.show)
    _print_addresses(console, running)


class _Progress:
    """One line per part, with its seconds, as it becomes well."""

    def __init__(self, console: Console) -> None:
        from rich.status import Status

        self._console = console
        self._spinner = Status("starting", console=console)
        self._shown: set[str] = set()

    def __enter__(self) -> _Progress:
        self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()

    def show(self, state: StackState) -> None:
        """Print what became well since the last call, and name what is under way."""
        from perennial.stack.state import PartState

        under_way = []
        for part in state.parts.values():
            if part.state in (PartState.RUNNING, PartState.DONE, PartState.SKIPPED):
                if part.name not in self._shown:
                    self._shown.add(part.name)
                    skipped = part.state is PartState.SKIPPED
                    mark = "[yellow]left out[/yellow]" if skipped else "[green]ok[/green]"
                    self._console.print(
                        f"{part.name:<18}{mark}  {part.detail if skipped else f'{part.seconds:5.1f} s'}"
                    )
            elif part.state in (PartState.STARTING, PartState.BACKING_OFF):
                under_way.append(part.name if not part.detail else f"{part.name} ({part.detail})")
        self._spinner.update(", ".join(under_way) or "starting")


def _print_addresses(console: Console, running: Running) -> None:
    from rich.table import Table

    verb = "was already up; checked" if running.reused else "is up"
    console.print(f"\nPerennial {verb} in {running.seconds:.1f} s. State: {running.home.root}")
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("Airflow", running.airflow_url)
    for name, password in running.logins.items():
        table.add_row("", f"{name} / {password}")
    table.add_row("MLflow", running.mlflow_url)
    table.add_row("Ingest API and gateway", running.data_plane_url)
    table.add_row("PostgreSQL", f"127.0.0.1:{running.ports.postgres} (URLs in {running.home.connections_file})")
    console.print(table)
    console.print("This PostgreSQL and these logins are for development. `perennial down` stops everything.")


def down() -> None:
    """Stop everything that `up` started, also when its supervisor was killed."""
    from perennial.stack import control
    from perennial.stack.home import home

    console = _console()
    with console.status("stopping"):
        orphans = control.down(home())
    console.print(f"Stopped. {orphans} processes had outlived their supervisor." if orphans else "Stopped.")


def status(
    json: Annotated[bool, typer.Option("--json", help="as data")] = False,
) -> None:
    """Show what runs, where, since when and with how much memory. Exit code 1 when a part is not well."""
    from perennial.stack.home import home
    from perennial.stack.status import status as look

    found = look(home())
    overrides = _overrides() if found.phase == "running" else []
    if json:
        typer.echo(json_format.dumps({**found.record(), "overrides": overrides}, indent=2))
    else:
        console = _console()
        _print_status(console, found)
        for line in overrides:
            console.print(f"OVERRIDE {line}", markup=False)
    raise typer.Exit(0 if found.well else 1)


def _overrides() -> list[str]:
    """What people set of agents for a while, in a line each."""
    from perennial.cli.common import ports
    from perennial.errors import PerennialError

    try:
        store = ports().overrides
        return [] if store is None else [f"{one.agent}: {one}" for one in store.active()]
    except PerennialError as error:  # the table above says which part is not well
        return [f"not known: {error}"]


def _print_status(console: Console, found: StackStatus) -> None:
    from rich.table import Table

    if not found.parts:
        console.print(
            f"Nothing was ever started in {found.home}; `perennial up` starts it, PERENNIAL_HOME names another home."
        )
        return
    table = Table(title=f"{found.home}: {found.phase}, {found.memory_bytes / 1e6:,.0f} MB")
    for heading in ("part", "state", "pid", "port", "restarts", "up", "processes", "MB", ""):
        table.add_column(heading, justify="left" if heading in ("part", "state", "") else "right")
    for part in found.parts:
        table.add_row(
            part.name, part.state, str(part.pid or ""), str(part.port or ""), str(part.restarts or ""),
            _duration(part.uptime_seconds), str(part.processes or ""),
            f"{part.memory_bytes / 1e6:,.0f}" if part.memory_bytes else "", part.detail,
        )  # fmt: skip
    console.print(table)
    if found.phase == "unsupervised":
        console.print(
            "[yellow]The supervisor was killed; `perennial up` starts anew, `perennial down` stops the rest.[/yellow]"
        )
    if found.problem:
        console.print(f"[red]{found.problem}[/red]")


def doctor(
    json: Annotated[bool, typer.Option("--json", help="as data")] = False,
) -> None:
    """Check machine, parts, DAGs and agents, and say what to do; names the cause when training does not start."""
    from dataclasses import asdict

    from rich.table import Table

    from perennial.stack.doctor import examine, is_well
    from perennial.stack.home import home

    findings = list(examine(home()))
    if json:
        typer.echo(json_format.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("check", "", "finding", "what to do"):
            table.add_column(heading, overflow="fold")
        for finding in findings:
            table.add_row(finding.check, _coloured(finding.verdict), finding.detail, finding.remedy)
        _console().print(table)
    raise typer.Exit(0 if is_well(findings) else 1)


def _coloured(verdict: Verdict) -> str:
    colour = {"ok": "green", "note": "cyan", "warning": "yellow", "wrong": "red"}[verdict]
    return f"[{colour}]{verdict}[/{colour}]"


def _console() -> Console:
    """A console that is wide enough for tables also where there is no terminal."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


def _duration(seconds: float | None) -> str:
    """
    >>> _duration(3700.0)
    '1 h 1 min'
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
