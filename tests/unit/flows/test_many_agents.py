"""What goes over all agents reads the fleet's files once, however many agents there are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perennial.domain.words import Reason
from perennial.fleet import Agent, Task
from perennial.fleet.loader import Fleet, Member
from perennial.flows import harvest
from perennial.flows.due import due_agents
from perennial.flows.ports import Ports
from tests.dags.fleet import Nothing
from tests.unit.flows.desk import Desk
from tests.unit.registry.samples import Keys

NAMES = [f"agent_{number}" for number in range(20)]


class Reads:
    """A fleet of twenty that counts how often it is read."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Fleet:
        self.times += 1
        made = [Agent(name=name, owner="me", tasks=(Task(name="tone"),), trainer=Nothing()) for name in NAMES]
        return Fleet(
            members=tuple(Member(agent=one, file=Path(f"{one.name}.py"), digest="0") for one in made), errors=()
        )


class Due:
    """A buffer in which some agents are due."""

    def __init__(self, due: list[str]) -> None:
        self._due = due

    def due_agents(self) -> list[tuple[str, Reason]]:
        return [(name, Reason.THRESHOLD) for name in self._due]

    def release_new_labels(self, *_: Any) -> int:
        return 0


class Admits:
    """An admission that notes for whom it was asked."""

    def __init__(self, waiting: list[str]) -> None:
        self._waiting = waiting
        self.looks = 0
        self.admitted: list[str] = []

    def waiting(self, agents: Any) -> list[str]:
        self.looks += 1
        return [name for name in agents if name in self._waiting]

    def run(self, agent: str, *_how: Any) -> Any:
        from perennial.ingest.admit import AdmitOutcome

        self.admitted.append(agent)
        return AdmitOutcome(admitted=1)

    def redact_again(self, agent: str, *_how: Any, **_more: Any) -> int:
        return 0


@pytest.fixture
def world(tmp_path: Path, keys: Keys) -> tuple[Ports, Reads]:
    reads = Reads()
    return replace(Desk(tmp_path, keys).ports, fleet=reads), reads


@pytest.mark.parametrize(("due", "reads"), [(NAMES, 1), (NAMES[:1], 1), ([], 0)], ids=["all", "one", "none"])
def test_who_is_due_reads_the_fleet_once_or_not_at_all(world: tuple[Ports, Reads], due: list[str], reads: int) -> None:
    ports, counted = world
    found = due_agents(replace(ports, buffer=Due(due)))  # type: ignore[arg-type]
    assert [name for name, _ in found] == due
    assert counted.times == reads


def test_a_harvest_opens_only_the_agents_with_something_to_admit(world: tuple[Ports, Reads]) -> None:
    ports, counted = world
    admits = Admits(["agent_3", "agent_7"])
    told = harvest.admit_waiting(replace(ports, buffer=Due([]), admission=admits))  # type: ignore[arg-type]
    assert set(told) == set(admits.admitted) == {"agent_3", "agent_7"}
    assert (admits.looks, counted.times) == (1, 1)
