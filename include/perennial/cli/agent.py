"""`perennial agent new`, `check`, `show`, `set` and `unset`: an agent from a file of examples, and its settings for a while."""

from __future__ import annotations

import json as json_format
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perennial.cli.common import Actor, Agent, Json, Reason, who, why
from perennial.cli.common import ports as _ports

if TYPE_CHECKING:
    from rich.console import Console

    from perennial.fleet.draft import Draft, DraftTask
    from perennial.fleet.loader import FleetFileError

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd])$")
# names that say nothing about the question
_GENERIC = ("label", "expected_output", "actual_output", "class_name", "target", "category")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Write an agent's file, check the fleet, set settings for a while.")
    group.command("new")(new)
    group.command("check")(check)
    group.command("show")(show)
    group.command("set")(set_)
    group.command("unset")(unset)
    app.add_typer(group, name="agent")


def new(
    name: Annotated[str, typer.Argument(help="Name of the new agent: small letters, digits and _.")],
    data: Annotated[Path, typer.Option(help="Examples: JSON Lines (.jsonl) or CSV (.csv), one per line.")],
    text_column: Annotated[str | None, typer.Option(help="The column with the texts, if not `text`.")] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(help="A column with labels, if not `label`; repeated, each is a task of its own."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="The task's name, if not its column's; repeated as --label-column is.")
    ] = None,
    owner: Annotated[str, typer.Option(help="Who answers for it; your login name when left out.")] = "",
    json: Json = False,
) -> None:
    """Write the fleet file of a new agent, with the tasks and labels found in a file of examples. Nothing is imported yet."""
    from perennial.domain.names import dag_problem, name_problem
    from perennial.errors import FleetError, SourceError
    from perennial.events.files import read_records
    from perennial.fleet.draft import draft_of
    from perennial.fleet.writing import check_free, fleet_file, write_fleet_file
    from perennial.settings import load_settings

    if problem := name_problem(name) or dag_problem(name):
        raise FleetError(f"the agent name {name[:48]!r} {problem}")
    folder = load_settings().fleet_folder
    check_free(folder, name)
    if not data.is_file():
        raise SourceError(f"{data} is not there; give the path of a .jsonl or .csv file")
    draft = draft_of(
        name, read_records(data), text_column=text_column, label_columns=label_column or (), tasks=task or ()
    )  # fmt: skip
    path = write_fleet_file(folder, name, fleet_file(draft, owner=who(owner), source=data.name))
    if json:
        typer.echo(json_format.dumps(_facts(draft, path), indent=1))
    else:
        _print_draft(draft, path, _import_command(draft, data))


def _facts(draft: Draft, path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    tasks = [{**asdict(task), "kind": task.kind.value, "rare": task.rare} for task in draft.tasks]
    return {**asdict(draft), "tasks": tasks, "file": str(path)}


def _import_command(draft: Draft, data: Path) -> str:
    """How these rows are brought in, with the columns that are not called as `import` expects."""
    from perennial.domain.names import as_name
    from perennial.ingest.door import NAMES

    words = ["perennial", "import", str(data), "--agent", draft.name]
    if draft.text_column not in NAMES["input_text"]:
        words += ["--text-column", draft.text_column]
    usual = all(task.column in NAMES["expected_output"] or as_name(task.column) == task.name for task in draft.tasks)
    if not usual:
        for task in draft.tasks:
            words += ["--label-column", task.column]
        if len(draft.tasks) == 1:
            words += ["--task", draft.tasks[0].name]
    return " ".join(f'"{word}"' if " " in word else word for word in words)


def _print_draft(draft: Draft, path: Path, then: str) -> None:
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True, markup=False)
    out.print(f"{path} is written: {draft.rows} rows, {len(draft.tasks)} task{'s' if len(draft.tasks) != 1 else ''}.")
    for task in draft.tasks:
        _print_task(out, task)
    if draft.repeated:
        out.print(f"  {draft.repeated} rows repeat another one; they are counted once")
    if draft.contradictory:
        out.print(f"  {draft.contradictory} texts have more than one label; look at them before you import")
    given = draft.suggestion
    out.print(
        f"  for this size: an update after {given.update_threshold} new rows, {given.holdout_share:.0%} of the texts kept for "
        f"measuring (about {given.holdout_rows} of the smallest task)"
    )
    if given.holdout_rows < 100:
        out.print(
            "    fewer than 100 holdout rows: a person decides about its versions, in Airflow under Required Actions; with more rows "
            "the gates decide alone"
        )
    for problem in draft.broken:
        out.print(f"  {problem}")
    if draft.unusable > len(draft.broken):
        out.print(f"  and {draft.unusable - len(draft.broken)} more rows that cannot be used")
    generic = [one.name for one in draft.tasks if one.name in _GENERIC]
    if generic:
        out.print(
            f"  the task {generic[0]} is called like its column; --task NAME gives it a name that says more, before rows come in"
        )
    out.print(f"Next: look at the file, start Perennial with `perennial up` if it is not up, then\n  {then}")
    out.print(
        "The first training starts by itself some seconds later; `perennial buffer` and Airflow show how far it is."
    )


def _print_task(out: Console, task: DraftTask) -> None:
    if task.labels:
        shown = ", ".join(
            f"{label} {rows}" for label, rows in sorted(task.labels.items(), key=lambda one: -one[1])[:20]
        )
        more = f" and {len(task.labels) - 20} more" if len(task.labels) > 20 else ""
        out.print(f"  {task.name}: {len(task.labels)} labels in {task.rows} rows: {shown}{more}")
    else:
        out.print(f"  {task.name}: a score from {task.lowest:g} to {task.highest:g} in {task.rows} rows")
    if task.unlabelled:
        out.print(f"    {task.unlabelled} rows have no label; they wait in the buffer for one")
    if task.rare:
        names = ", ".join(f"{label} {rows}" for label, rows in task.rare.items())
        out.print(
            f"    rare, hardly learnt and hardly measured: {names}; collect more, or join them with another label"
        )


def check(
    name: Annotated[str | None, typer.Argument(help="One agent; all files of the fleet when left out.")] = None,
    json: Json = False,
) -> None:
    """Say what is wrong with the fleet files, with file and line; exits 1 when anything is."""
    from perennial.errors import FleetError
    from perennial.fleet import loader
    from perennial.fleet.check import check_file
    from perennial.settings import load_settings

    folder = load_settings().fleet_folder
    fleet = loader.load(folder)
    files = [member.file for member in fleet.members] + [Path(error.file) for error in fleet.errors]
    if name is not None:
        named = [member.file for member in fleet.members if member.agent.name == name]
        files = named or [file for file in files if file.stem == name]
        if not files:
            raise FleetError(f"no file of {folder} declares an agent {name[:48]!r}; `perennial agent new` writes one")
    found = [error for file in dict.fromkeys(files) for error in check_file(file)]
    twice = [error for error in fleet.errors if "is declared in" in error.message and Path(error.file) in files]
    _tell(found + twice, len(dict.fromkeys(files)), folder, json)


def _tell(found: list[FleetFileError], files: int, folder: Path, json: bool) -> None:
    if json:
        typer.echo(
            json_format.dumps([{"file": one.file, "line": one.line, "message": one.message} for one in found], indent=1)
        )
    elif found:
        typer.echo("\n".join(str(one) for one in found))
    else:
        typer.echo(f"{files} fleet file{'s' if files != 1 else ''} in {folder}: nothing is wrong")
    if found:
        raise typer.Exit(1)


def show(agent: Agent, json: Json = False) -> None:
    """Show the settings of an agent as they hold now; what a person set for a while is marked, with its end."""
    from perennial.fleet.overrides import settings_of

    ports = _ports()
    member = ports.fleet().member(agent)
    overrides = {one.key: one for one in member.overrides}
    values = settings_of(member.agent)
    if json:
        records = [one.as_record(member.as_declared) for one in member.overrides]
        typer.echo(
            json_format.dumps(
                {"agent": agent, "file": str(member.file), "settings": values, "overrides": records},
                indent=1,
                default=str,
            )
        )
        return
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True, markup=False)
    out.print(f"{agent}, from {member.file}")
    declared = settings_of(member.as_declared)
    for key, value in values.items():
        told = "the deployment's" if value is None else value
        out.print(
            f"  {key}: {told}"
            + (f"   OVERRIDE of {_told(declared[key])}, {overrides[key]}" if key in overrides else "")
        )
    for one in ports.fleet().errors:
        if one.file == str(member.file):
            out.print(f"  {one.message}")


def _told(value: Any) -> Any:
    return "the deployment's" if value is None else value


def set_(
    agent: Agent,
    setting: Annotated[str, typer.Argument(help="key=value, such as update_threshold=20 or gates.min_holdout=200")],
    until: Annotated[str, typer.Option(help="how long: 30m, 24h, 7d; at most 30d")],
    reason: Reason = "",
    actor: Actor = "",
    json: Json = False,
) -> None:
    """Let one setting hold for a while, whatever the file says; audited. Runs that are under way keep what they began with."""
    from perennial.flows.overrides import set_override

    key, sign, text = setting.partition("=")
    if not sign:
        raise typer.BadParameter("write it as key=value, such as update_threshold=20")
    told = why(reason, "a new topic comes in today")
    made = set_override(
        _ports(), agent, key.strip(), text.strip(), seconds=duration(until), actor=who(actor), reason=told
    )  # fmt: skip
    typer.echo(json_format.dumps(made.as_record(), indent=1) if json else f"{agent}: {made}")


def unset(
    agent: Agent,
    key: Annotated[str, typer.Argument(help="such as update_threshold")],
    reason: Reason = "",
    actor: Actor = "",
) -> None:
    """End what `set` let hold, before its time; audited."""
    from perennial.flows.overrides import unset_override

    ended = unset_override(_ports(), agent, key, actor=who(actor), reason=why(reason, "a new topic comes in today"))
    typer.echo(f"{agent}: {key} is as its file says" if ended else f"{agent}: no override of {key} holds")


def duration(text: str) -> float:
    """Seconds of a time span as people write it; BadParameter for anything else.

    >>> duration("24h"), duration("30m"), duration("1.5d")
    (86400.0, 1800.0, 129600.0)
    """
    found = _DURATION.match(text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no time span like 30m, 24h or 7d")
    return float(found[1]) * _SECONDS[found[2]]
