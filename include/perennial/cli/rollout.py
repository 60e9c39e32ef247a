"""`perennial rollout AGENT`, and its `abort`, `promote` and `reset`: where a rollout stands, and a person's word on it."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from perennial.cli.common import Actor, Agent, Json, Reason, who, why
from perennial.cli.common import ports as _ports
from perennial.domain.words import RolloutDecision

if TYPE_CHECKING:
    pass

SHOW = "show"
_Version = Annotated[
    str, typer.Option(help="the version that you mean; nothing happens when another one is open by now")
]


class _ShowsByDefault(TyperGroup):
    """`perennial rollout scout` is `perennial rollout show scout`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in that was left out."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = [SHOW, *args]
        return list(super().parse_args(ctx, args))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=_ShowsByDefault,
        no_args_is_help=True,
        help="Where a rollout stands: `perennial rollout AGENT`; abort, promote, reset.",
    )
    group.command(SHOW)(show)
    group.command("abort")(abort)
    group.command("promote")(promote)
    group.command("reset")(reset)
    app.add_typer(group, name="rollout")


def show(agent: Agent, json: Json = False) -> None:
    """Arms, samples, interval, the reason of a hold, the next check and the frozen plan of the newest rollout."""
    from perennial.flows.rollout_status import rollout_status

    status = rollout_status(_ports(), agent)
    if json:
        typer.echo(json_format.dumps(status, indent=1))
    else:
        _print(status)


def abort(
    agent: Agent, reason: Reason = "", actor: Actor = "", version: _Version = "", json: Json = False
) -> None:  # fmt: skip
    """Take the candidate out of traffic; the champion keeps serving."""
    _decide(agent, RolloutDecision.ABORT, reason, actor, version, json)


def promote(
    agent: Agent, reason: Reason = "", actor: Actor = "", version: _Version = "", json: Json = False
) -> None:  # fmt: skip
    """Serve the candidate to everybody now; the bake keeps watching. Only a released, judged, genuine version."""
    _decide(agent, RolloutDecision.PROMOTE, reason, actor, version, json)


def reset(agent: Agent, reason: Reason = "", actor: Actor = "") -> None:
    """Close the circuit breaker: let the agent train by itself again."""
    from perennial.flows.pause import reset_breaker

    reset_breaker(_ports(), agent, actor=who(actor), reason=why(reason))
    typer.echo(f"{agent} trains by itself again.")


def _decide(agent: str, decision: RolloutDecision, reason: str, actor: str, version: str, json: bool) -> None:
    from perennial.flows.decide import decide

    done = decide(_ports(), agent, decision, actor=who(actor), reason=why(reason), version=version)
    typer.echo(json_format.dumps(done, indent=1) if json else done["note"])


def _print(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from perennial.flows.rollout_status import arms

    out = Console(highlight=False, soft_wrap=True)
    for name in ("freeze", "breaker"):
        if status[name]:
            out.print(f"{name}: {status[name]}", markup=False)
    row = status["rollout"]
    if row is None:
        out.print(f"{status['agent']} serves {status['serving'] or 'nothing yet'}; there was no rollout")
        return
    out.print(
        f"{status['agent']} {row['version']}: {row['state']} at {row['share']:.0%} of the keys; champion {status['serving']}"
    )
    rows = arms(status)
    if rows:
        table = Table(box=None, pad_edge=False)
        for name in rows[0]:
            table.add_column(name)
        for one in rows:
            table.add_row(*(str(value) for value in one.values()))
        out.print(table)
    _print_lines(out, row)


def _print_lines(out: Any, row: dict[str, Any]) -> None:
    evidence = row.get("evidence") or {}
    if "quality_drop_95_always" in evidence:
        low, high = evidence["quality_drop_95_always"]
        out.print(f"drop of quality {evidence['quality_drop']:+.1%}, 95 % at all looks: {low:+.1%} to {high:+.1%}")
    if "says" in row:
        out.print(f"verdict now: {row['says']}: {row['because']}", markup=False)
    elif row["reason"]:
        out.print(f"reason: {row['reason']}", markup=False)
    if row["reported_by"]:
        out.print(f"reported by {row['reported_by']} people within {row['plan']['reports_window_seconds']:.0f} s")
    out.print(f"next: {row['next']}", markup=False)
    plan = ", ".join(f"{name} {value}" for name, value in row["plan"].items())
    out.print(f"plan: {plan}", markup=False)
