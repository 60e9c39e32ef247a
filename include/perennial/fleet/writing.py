"""An agent's file as text, and how it comes to lie in the fleet folder: whole, new, and never over another one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from uuid import uuid4

from perennial.domain.names import dag_problem, name_problem
from perennial.domain.words import TaskKind
from perennial.errors import FleetError
from perennial.fleet import loader
from perennial.fleet.draft import Draft, DraftTask

_PLAIN = re.compile(r"^[\w][\w.-]{0,60}$", re.ASCII)


def fleet_file(draft: Draft, *, owner: str, source: str) -> str:
    """The text of ``<name>.py``: names, labels and numbers of the draft, never an example. ``source`` is the data file's name.

    Formatted as ruff formats it.
    """
    told = source if _PLAIN.match(source) else "a file"
    names = ", ".join(task.name for task in draft.tasks)
    given = draft.suggestion
    words = ["from perennial.domain.words import TaskKind"] if any(_scores(task) for task in draft.tasks) else []
    held = f"about {given.holdout_rows} rows of the smallest task"
    lines = [
        f'"""{draft.name} answers for each text: {names}.',
        "",
        f"Written by `perennial agent new` from {draft.rows} rows of {told}. It is yours: change what you like.",
        "`perennial agent check` says what is wrong with it, file and line.",
        '"""',
        "",
        *words,
        "from perennial.fleet import Agent, Gates, Selection, Task",
        "from perennial.trainers.ewc_text import EwcText",
        "",
        "AGENT = Agent(",
        f'    name="{draft.name}",  # its DAGs: train_{draft.name}, rollout_{draft.name}',
        f"    owner={quoted(owner)},  # shown in Airflow",
        "    # one model for each task; requests and records name it",
        "    tasks=(",
        *(line for task in draft.tasks for line in _task(task)),
        "    ),",
        "    # how it learns: a small head per task on a shared sentence encoder",
        "    trainer=EwcText(),",
        f"    update_threshold={given.update_threshold},  # so many new rows start a training",
        f"    max_buffer_size={given.max_buffer_size},  # beyond it the least valuable waiting rows leave",
        "    selection=Selection(",
        f"        batch={given.batch},  # rows that one training takes at most",
        f"        holdout_share={given.holdout_share},  # kept for measuring, never trained: {held}",
        "    ),",
        "    # a candidate must hold against the champion on the holdout;",
        "    # with fewer holdout rows than this a person decides about it",
        "    gates=Gates(min_holdout=100),",
        ")",
    ]
    return "\n".join(lines) + "\n"


def _scores(task: DraftTask) -> bool:
    return task.kind is TaskKind.SCORE


def _task(task: DraftTask) -> list[str]:
    if _scores(task):
        return [
            "        Task(",
            f'            name="{task.name}",',
            f"            kind=TaskKind.SCORE,  # a number from 0 to 1; {task.rows} rows have one",
            "        ),",
        ]
    return [
        "        Task(",
        f'            name="{task.name}",',
        "            # a row with another label waits in quarantine; leave `labels` out to learn new ones from the data",
        "            labels=(",
        *(f"                {quoted(label)},  # {rows} rows" for label, rows in task.labels.items()),
        "            ),",
        "        ),",
    ]


def quoted(text: str) -> str:
    """A string as Python source, as ruff quotes it.

    >>> print(quoted("sci/tech"), quoted('say "yes"'))
    "sci/tech" 'say "yes"'
    """
    if '"' in text and "'" not in text and "\\" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def write_fleet_file(folder: Path, name: str, text: str) -> Path:
    """Let ``folder/name.py`` appear, whole; FleetError when the name is no name, is taken, or the file would not load.

    Runs in the CLI. Killed at any point it leaves the file or nothing that the loader reads.
    """
    if problem := name_problem(name) or dag_problem(name):
        raise FleetError(f"the agent name {name[:48]!r} {problem}")
    target = folder / f"{name}.py"
    check_free(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{name}.{uuid4().hex}"  # not *.py: the loader passes it over
    try:
        aside.write_text(text, encoding="utf-8")
        _check_loads(aside, name)
        os.link(aside, target)  # unlike a rename it never replaces
    except FileExistsError as error:
        raise FleetError(f"{target} is there already; choose another name, or edit that file") from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def check_free(folder: Path, name: str) -> None:
    """FleetError when a file of that name is there, or another file declares that agent."""
    target = folder / f"{name}.py"
    if target.exists() or target.is_symlink():
        raise FleetError(f"{target} is there already; choose another name, or edit that file")
    for member in loader.load(folder).members:
        if member.agent.name == name:
            raise FleetError(f"{member.file} declares an agent {name} already; choose another name")


def _check_loads(file: Path, name: str) -> None:
    found = loader.load_file(file)
    if isinstance(found, loader.FleetFileError):
        raise FleetError(f"the file for {name} would not load: {found.message}; please report this")
