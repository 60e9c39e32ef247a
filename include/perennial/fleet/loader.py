"""Reads the user's fleet files: returns agents and errors, never raises for one bad file."""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from perennial.errors import NotConfigured
from perennial.fleet.agent import Agent
from perennial.fleet.overrides import Override

REMEMBERED_SECONDS = 60.0  # a file may read what lies beside it (labels from a list): so late such a change is seen


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetFileError:
    """What is wrong with one fleet file, and where."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One loaded agent with the file it came from. ``agent`` is what counts, with the ``overrides`` that hold now; ``declared`` is
    what the file says, None where that is the same."""

    agent: Agent
    file: Path
    digest: str  # sha256 of the file, hex
    declared: Agent | None = None
    overrides: tuple[Override, ...] = ()

    @property
    def as_declared(self) -> Agent:
        """The agent as its file says, without any override."""
        return self.agent if self.declared is None else self.declared


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """All agents that loaded, in order of their names, and every error of those that did not."""

    members: tuple[Member, ...]
    errors: tuple[FleetFileError, ...]

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The agents alone."""
        return tuple(member.agent for member in self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """The agents' names, in order."""
        return tuple(member.agent.name for member in self.members)

    def agent(self, name: str) -> Agent:
        """The agent of that name; NotConfigured when no file declares it."""
        return self.member(name).agent

    def member(self, name: str) -> Member:
        """The agent of that name with its file."""
        for member in self.members:
            if member.agent.name == name:
                return member
        known = ", ".join(self.names) or "none"
        raise NotConfigured(f"agent {name!r}", f"the fleet has: {known}; add include/fleet/{name}.py")


def load(folder: Path) -> Fleet:
    """Load every ``*.py`` of the folder that does not begin with an underscore; each must hold one ``AGENT = Agent(...)``.

    Runs in every process that parses DAG files, so fleet files must stay light: trainers import their libraries inside their verbs.
    """
    members: dict[str, Member] = {}
    errors: list[FleetFileError] = []
    files = sorted(folder.glob("[!_]*.py")) if folder.is_dir() else []
    for file in files:
        found = load_file(file)
        if isinstance(found, FleetFileError):
            errors.append(found)
        elif found.agent.name in members:
            first = members[found.agent.name].file.name
            errors.append(
                FleetFileError(file=str(file), line=1, message=f"agent {found.agent.name} is declared in {first} too")
            )
        else:
            members[found.agent.name] = found
    return Fleet(members=tuple(members[name] for name in sorted(members)), errors=tuple(errors))


def find(folder: Path, name: str) -> Member | None:
    """The member of that name, or None; reads the file that bears its name alone, and all files when that is not it.

    For a task's process, which needs one agent of the fleet. Of two files that declare one agent, this takes the one named after it.
    """
    own = load_file(folder / f"{name}.py") if (folder / f"{name}.py").is_file() else None
    if isinstance(own, Member) and own.agent.name == name:
        return own
    return next((member for member in load(folder).members if member.agent.name == name), None)


def load_file(file: Path) -> Member | FleetFileError:
    """One fleet file: its agent, or what is wrong with it and where. The same bytes are not run again within a minute."""
    name = f"perennial_fleet_{file.stem}"
    try:
        source = file.read_bytes()
        digest = hashlib.sha256(source).hexdigest()
        seen = _remembered.get(file)
        if seen is not None and seen[0] == digest and time.monotonic() - seen[1] < REMEMBERED_SECONDS:
            return seen[2]
        module = ModuleType(name)
        module.__file__ = str(file)
        sys.modules[name] = module  # dataclasses look their module up
        # compiled from the bytes just read: a cached .pyc of the same second could be stale
        exec(compile(source, str(file), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's file may raise anything; the fleet must go on
        return FleetFileError(file=str(file), line=_line_of(error, file), message=f"{type(error).__name__}: {error}")
    finally:
        sys.modules.pop(name, None)
    agent = module.__dict__.get("AGENT")
    if not isinstance(agent, Agent):
        return FleetFileError(file=str(file), line=1, message="has no AGENT = Agent(...); see include/fleet/scout.py")
    member = Member(agent=agent, file=file, digest=digest)
    _remembered[file] = (digest, time.monotonic(), member)
    return member


# by file: digest, when it ran, and what came of it; a task, a page and the data plane ask for the fleet many times
_remembered: dict[Path, tuple[str, float, Member]] = {}


def _line_of(error: BaseException, file: Path) -> int:
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    line, frame = 1, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(file):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line
