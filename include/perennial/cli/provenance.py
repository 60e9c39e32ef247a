"""`perennial explain`, `reproduce` and `trace`: why a model served, whether it can be made again, and what each example did."""

from __future__ import annotations

import getpass
import json as json_format
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from perennial.cli.common import Agent, Json, moment
from perennial.cli.common import ports as _ports

if TYPE_CHECKING:
    from rich.console import Console

    from perennial.flows.explain import Explanation, Moment, Period, Rolled, Trained
    from perennial.flows.reproduce import Reproduction
    from perennial.registry.rows import ExampleUse


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("explain")(explain)
    app.command("reproduce")(reproduce)
    app.command("trace")(trace)


# --- explain --------------------------------------------------------------------------------------------------------------------


def explain(
    agent: Agent,
    version: Annotated[
        str | None, typer.Argument(help="such as 1.4.2, or the id of a refused job; what serves when left out")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="explain what served at this time (ISO 8601, UTC when no zone)")
    ] = None,
    chain: Annotated[bool, typer.Option("--chain", help="list its ancestors back to the first version")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="list the ids of its examples")] = False,
    json: Json = False,
) -> None:
    """Say on one page why a version served: when, trained on what, after which trigger, past which gates, approved by whom."""
    from perennial.flows.explain import explain as gather

    if version is not None and at is not None:
        raise typer.BadParameter("name a version or --at a time, not both")
    found = gather(_ports(), agent, version, at=moment(at) if at else None, chain=chain)
    if json:
        typer.echo(json_format.dumps(_without_ids(found.as_dict(), ids), indent=1, default=_plain))
        return
    console = _console()
    for title, rows in _page(found, ids):
        _section(console, title, rows)


_Rows = list[tuple[str, str]]


def _page(found: Explanation, ids: bool) -> list[tuple[str, _Rows]]:
    """The sections of the page: a title and lines of a name and what is to be said."""
    pages: list[tuple[str, _Rows]] = []
    if found.moment:
        pages.append((f"{found.agent} at {_when(found.moment.time)}", _moment_rows(found.moment)))
    if found.version is None and found.trigger is None:
        return pages or [(found.agent, [("", found.outcome)])]
    subject = found.version or f"candidate of job {found.trigger.job_id if found.trigger else ''}"
    head: _Rows = [("outcome", found.outcome)]
    if found.released_at:
        head += [("released", _when(found.released_at)), ("digest", found.digest), ("signature", found.signature)]
    pages.append((f"{found.agent} {subject}", head))
    if found.version:
        pages.append(
            ("served", [_period_row(period) for period in found.periods] or [("", "never champion nor candidate")])
        )
    pages.append(("trigger", _trigger_rows(found)))
    if found.trained:
        pages.append(("trained on", [row for task in found.trained for row in _trained_rows(task, ids)]))
    elif found.version:
        pages.append(
            (
                "trained on",
                [("", f"not noted for this version; `perennial trace {found.agent} --fill` reads it from its bundle")],
            )
        )
    pages.append(("gates", _gate_rows(found)))
    pages.append(("approved by", _approval_rows(found)))
    if found.version:
        rollouts = [row for rollout in found.rollouts for row in _rollout_rows(rollout)]
        pages.append(("rollout", rollouts or [("", "none")]))
    if found.links:
        pages.append(("links", list(found.links.items())))
    if found.chain:
        pages.append(
            ("ancestors", [
                (one.version, f"released {_when(one.released_at)}, {one.reason}, {one.mode}, {one.examples} examples, gate {one.gate}, "
                 + (f"from {one.base}" if one.base else "the first"))
                for one in found.chain
            ])
        )  # fmt: skip
    return pages


def _moment_rows(moment: Moment) -> _Rows:
    if moment.champion is None:
        first = moment.first
        rest = f"; the first version, {first[0]}, serves since {_when(first[1])}" if first else "; nothing ever did"
        return [("served", f"nothing{rest}")]
    rows = [
        ("served", f"{moment.champion}, from {_when(moment.since)} until {_when(moment.until)}"),
        ("decided by", f"{moment.actor}: {moment.reason}"),
    ]
    if moment.candidate:
        share = "a share that was not on record yet" if moment.share is None else f"{moment.share:.0%} of the keys"
        rows.append(("beside it", f"candidate {moment.candidate} with {share}"))
    return rows


def _period_row(period: Period) -> tuple[str, str]:
    shares = "; ".join(f"{share:.0%} from {_when(since)}" for since, share in period.shares)
    told = f"{_when(period.since)} until {_when(period.until)}, by {period.actor or 'nobody named'}: {period.reason}"
    return period.alias, told + (f"; {shares}" if shares else "")


def _trigger_rows(found: Explanation) -> _Rows:
    trigger = found.trigger
    if trigger is None:
        return [("", "none on record")]
    rows = [
        (
            "why",
            f"{trigger.reason or 'not on record'}{', forced' if trigger.forced else ''}; mode {trigger.mode or 'not on record'}",
        )
    ]
    rows += [_override_row(one) for one in found.overrides]
    if trigger.missing:
        return [*rows, ("job", f"{trigger.job_id}: {trigger.missing}")]
    rows.append(("asked by", trigger.requested_by or "nobody: the buffer was due"))
    rows.append(("run", trigger.run_id))
    rows.append(
        ("job", f"{trigger.job_id}, {trigger.status}, {_when(trigger.started_at)} to {_when(trigger.completed_at)}")
    )
    return [*rows, ("note", trigger.note)] if trigger.note else rows


def _override_row(one: Mapping[str, Any]) -> tuple[str, str]:
    declared = "the deployment's setting" if one["declared"] is None else one["declared"]
    return (
        "override",
        f"{one['key']} {one['value']} instead of {declared}, until {one['until']}, by {one['actor']}: {one['reason']}",
    )


def _trained_rows(task: Trained, ids: bool) -> _Rows:
    if task.how != "trained":
        return [(task.task, task.how)]
    told = f"{task.new} new, {task.replay} replayed; judged on {task.holdout}; from {task.base or 'nothing'}"
    sources = ", ".join(f"{count} {name}" for name, count in sorted(task.sources.items()))
    priorities = ", ".join(f"{count} of {name}" for name, count in task.priorities.items())
    rows = [(task.task or "(task unknown)", told)]
    if sources:
        rows.append(("", f"by source: {sources}; by priority: {priorities}"))
    if task.gone:
        rows.append(("", f"{task.gone} of them are not in the buffer any more"))
    if ids:
        rows += [("", f"{role}: {identity}") for role, listed in task.ids.items() for identity in listed]
    return rows


def _gate_rows(found: Explanation) -> _Rows:
    rows = [
        ("verdict", f"{found.gate_action.upper()}  {found.gate_summary}" if found.gate_action else found.gate_summary)
    ]
    rows += [(answer.gate, f"{answer.action.upper()}  {answer.reason}") for answer in found.gates]
    candidates = {name: value for name, value in sorted(found.metrics.items()) if name.endswith(".candidate")}
    for name, value in candidates.items():
        task = name.removesuffix(".candidate")
        before = found.metrics.get(f"{task}.champion")
        told = f"{value:.1%} right" if before is None else f"{before:.1%} -> {value:.1%} right"
        rows.append((task, f"{told} on {found.metrics.get(f'{task}.holdout_rows', 0):.0f} rows"))
    return rows


def _approval_rows(found: Explanation) -> _Rows:
    rows = [
        (one.actor, f"{one.decision} at {_when(one.at)}, good until {_when(one.expires_at)}" + (f": {one.comment}" if one.comment else ""))
        for one in found.decisions
    ]  # fmt: skip
    if rows:
        return rows
    return [
        ("", "a person had to, and nobody did" if found.approval_needed else "nobody had to: the gates alone decided")
    ]


def _rollout_rows(rollout: Rolled) -> _Rows:
    steps = ", ".join(f"{step:.0%}" for step in rollout.steps)
    end = f", ended {_when(rollout.ended_at)}" if rollout.ended_at else ""
    full = f", everything from {_when(rollout.full_at)}" if rollout.full_at else ""
    because = f": {rollout.reason}" if rollout.reason else ""
    rows = [
        (f"rollout {rollout.id}", f"{rollout.state}{because}"),
        ("", f"plan {steps}; against {rollout.previous or 'nothing'}; began {_when(rollout.started_at)}{full}{end}"),
    ]
    return rows + [("", f"{_when(look.at)}  {look.state} {look.action}: {look.reason}") for look in rollout.looks]


# --- reproduce ------------------------------------------------------------------------------------------------------------------


def reproduce(agent: Agent, version: Annotated[str, typer.Argument(help="such as 1.4.2")], json: Json = False) -> None:
    """Train a version again from its signed manifest and compare the digests: exits 0 equal, 1 different, 2 not possible."""
    from perennial.errors import PerennialError
    from perennial.flows.reproduce import EXIT_CODES, Outcome
    from perennial.flows.reproduce import reproduce as train_again

    try:
        ports = _ports()
        found = train_again(ports, agent, version)
        ports.audit.append(
            actor=getpass.getuser(), action="reproduced", agent=agent, subject=version,
            detail={"outcome": found.outcome.value, "recorded": found.recorded, "found": found.found},
        )  # fmt: skip
    except PerennialError as error:  # 1 would say that the digests differ
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(EXIT_CODES[Outcome.IMPOSSIBLE]) from error
    if json:
        typer.echo(json_format.dumps(found.as_dict(), indent=1))
    else:
        console = _console()
        for title, rows in _reproduction_page(found):
            _section(console, title, rows)
    raise typer.Exit(found.exit_code)


def _reproduction_page(found: Reproduction) -> list[tuple[str, _Rows]]:
    words = {"equal": "EQUAL: the same bytes", "different": "DIFFERENT", "impossible": "CANNOT BE REPRODUCED"}
    rows: _Rows = [("result", words[found.outcome.value]), ("recorded", found.recorded or "unknown")]
    rows += [("trained now", found.found)] if found.found else []
    rows.append(("seconds", f"{found.seconds:.1f}"))
    pages = [(f"{found.agent} {found.version}", rows)]
    tasks: _Rows = []
    for task in found.tasks:
        answer = {True: "equal", False: "different", None: "not trained again"}[task.equal]
        counts = f", {task.new} new and {task.replay} replayed rows" if task.how == "trained" else ""
        tasks.append((task.task, f"{answer} ({task.how}{counts})"))
        tasks += [("", line) for line in task.differences]
    pages += [("tasks", tasks)] if tasks else []
    pages += [("why", [("", reason) for reason in found.reasons])] if found.reasons else []
    return pages + ([("note", [("", note) for note in found.notes])] if found.notes else [])


# --- trace ----------------------------------------------------------------------------------------------------------------------


def trace(
    subject: Annotated[str, typer.Argument(help="the id of an example, or an agent")],
    version: Annotated[str | None, typer.Argument(help="a version of the agent")] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="note the examples of an agent's older releases from their bundles")
    ] = False,
    json: Json = False,
) -> None:
    """List the versions that an example made or judged, or the examples of a version."""
    from perennial.flows import trace as flow

    ports = _ports()
    if fill:
        noted = flow.fill(ports, subject)
        typer.echo(
            json_format.dumps(noted) if json else f"noted the examples of {len(noted)} older releases of {subject}"
        )
        return
    if version is not None:
        uses = flow.trace_version(ports, subject, version)
        if json:
            typer.echo(json_format.dumps([asdict(use) for use in uses], indent=1, default=_plain))
            return
        console = _console()
        for title, rows in _uses_page(subject, version, uses):
            _section(console, title, rows)
        return
    found = flow.trace_example(ports, _example_id(subject))
    if json:
        typer.echo(json_format.dumps(asdict(found), indent=1, default=_plain))
        return
    where = f"{found.state}{f' ({found.reason})' if found.reason else ''}"
    facts = [("agent", f"{found.agent}, task {found.task}"), ("state", where)]
    if found.priority is not None:
        facts.append(("came as", f"{found.source}, priority {found.priority}"))
    console = _console()
    _section(console, f"example {found.example_id}", facts)
    told = {"new": "trained on it", "replay": "replayed it", "holdout": "was judged on it"}
    uses_rows = [
        (use.version, f"{told[use.role.value]} ({use.task or 'task unknown'}), released {_when(use.released_at)}")
        for use in found.uses
    ]
    _section(console, "versions", uses_rows or [("", "no version used it")])


def _example_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not the id of an example; to list a version's, name AGENT and VERSION"
        ) from error


def _uses_page(agent: str, version: str, uses: Sequence[ExampleUse]) -> list[tuple[str, _Rows]]:
    """One section per task and role, ids in training order."""
    found: dict[tuple[str, str], _Rows] = {}
    for use in uses:
        found.setdefault((use.task or "(task unknown)", use.role.value), []).append(("", str(use.example_id)))
    pages = [(f"{agent} {version}, {task}: {role} ({len(rows)})", rows) for (task, role), rows in found.items()]
    nothing = f"no examples are noted for it; `perennial trace {agent} --fill` reads them from its bundle"
    return pages or [(f"{agent} {version}", [("", nothing)])]


# --- shared ---------------------------------------------------------------------------------------------------------------------


def _section(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A title, and below it names on the left and what is to be said on the right, folded where the terminal is narrow."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(title, style="bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", max_width=24)
    table.add_column(overflow="fold", ratio=1)
    for name, told in rows:
        table.add_row(Text(f"  {name}"), Text(told))
    console.print(table)
    console.print()


def _console() -> Console:
    from rich.console import Console

    told = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console(highlight=False, width=None if told else 110)


def _when(time: datetime | None) -> str:
    """A time to the second, UTC; the end of what has not ended is now.

    >>> _when(datetime(2026, 11, 21, 14, 2, 9, 5, tzinfo=UTC)), _when(None)
    ('2026-11-21 14:02:09', 'now')
    """
    return "now" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _without_ids(record: dict[str, Any], ids: bool) -> dict[str, Any]:
    if ids:
        return record
    return {
        **record,
        "trained": [{key: value for key, value in task.items() if key != "ids"} for task in _tasks(record)],
    }


def _tasks(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return list(record["trained"])
