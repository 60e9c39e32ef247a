"""`perennial demo`: the story of the README on a running stack."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from perennial.stack.control import Running

MARK = "demo.json"  # a home that the demo made, and may set aside
AGENT = "scout"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="JSON Lines file with `text` and `label`; default: news that the demo writes itself"),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="write the facts to this file too")] = None,
    ask: Annotated[bool, typer.Option(help="leave approvals to you, at Airflow's Required Actions")] = False,
    seed: Annotated[int, typer.Option(help="of the generated stream and of shuffling")] = 7,
) -> None:
    """Tell the whole loop: first champion, feedback, retraining, canary, a correction, a held poison, a rollback."""
    from rich.console import Console

    from perennial.demo.bars import Bars
    from perennial.demo.material import from_file, generated
    from perennial.demo.plane import Plane, RequiredActions
    from perennial.demo.report import print_links, print_table, write_json, write_picture
    from perennial.demo.story import Story
    from perennial.errors import PromiseBroken
    from perennial.settings import load_settings
    from perennial.wiring import ports

    # a log has no width of its own, and a narrow table is hard to read there
    console = Console(width=None if sys.stdout.isatty() else 150)
    task = "news_classification"
    material = from_file(data, seed, task) if data else generated(seed, task)
    running = prepare(console)
    settings = load_settings()
    token = settings.data_plane_token
    plane = Plane(settings.data_plane_url, AGENT, token.get_secret_value() if token else None)
    editor = RequiredActions(settings.airflow_url, "editor", running.logins["editor"])
    ours = ports(settings)
    story = Story(ours, plane, material, say=console.print, bars=Bars(console, ours, AGENT), editor=editor, ask=ask)
    story.tell()
    console.print()
    print_table(console, story.facts)
    picture = write_picture(story.facts, settings.home / "demo")
    if json is not None:
        write_json(story.facts, json)
    print_links(console, settings, picture)
    broken = story.facts.broken_promises()
    if broken:
        raise PromiseBroken("this run did not show that " + "; ".join(broken) + ". The stack is up: look at the runs")


def prepare(console: Console) -> Running:
    """A running stack whose agent has no version yet.

    An earlier demo's home is set aside, never deleted; a home that anything else filled is refused.
    """
    from perennial.errors import StackError
    from perennial.settings import load_settings
    from perennial.stack import control
    from perennial.stack.home import home
    from perennial.wiring import ports

    place = home()
    if (place.root / MARK).is_file():
        control.down(place)
        aside = place.root.with_name(f"{place.root.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        shutil.move(place.root, aside)
        console.print(f"The earlier demo's state was set aside: {aside}")
    os.environ["PERENNIAL_FAULTS"] = (
        "1"  # chapter 6 plants one; a gateway allows that only when it is started for drills
    )
    running = bring_up(console)
    if not plane_drills():
        console.print("The stack that ran was not started for drills; it is started again.")
        control.down(place)
        running = bring_up(console)
    if ports(load_settings()).ledger.versions(AGENT):
        raise StackError(
            f"{place.root} already holds versions of {AGENT}; the demo needs a home of its own: "
            "PERENNIAL_HOME=.perennial-demo perennial demo"
        )
    (place.root / MARK).write_text('{"made_by": "perennial demo"}\n', encoding="utf-8")
    return running


def plane_drills() -> bool:
    """Whether the gateway that runs lets a fault be planted."""
    from perennial.demo.plane import Plane
    from perennial.settings import load_settings

    settings = load_settings()
    token = settings.data_plane_token
    plane = Plane(settings.data_plane_url, AGENT, token.get_secret_value() if token else None)
    return bool(plane.agents()["drills"])


def bring_up(console: Console) -> Running:
    """`perennial up` with its progress."""
    from perennial.cli.stack import _Progress
    from perennial.stack import control
    from perennial.stack.home import home

    with _Progress(console) as progress:
        return control.up(home(), tell=progress.show)
