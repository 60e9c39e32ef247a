"""The doctor tells what it found also where a part is down or not yet recorded: then above all."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from perennial.stack import doctor
from perennial.stack.files import exclusive, write_private
from perennial.stack.findings import Finding, Verdict
from perennial.stack.home import Home
from perennial.stack.state import PartRecord, PartState, Phase, StackState


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose supervisor runs."""
    home = Home(root=tmp_path / "home")
    home.make()
    monkeypatch.setenv("PERENNIAL_HOME", str(home.root))
    monkeypatch.setattr(doctor, "_PATIENCE", 0.5)
    with exclusive(home.supervisor_lock):
        yield home


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parts(**states: PartState) -> dict[str, PartRecord]:
    return {name: PartRecord(name=name, state=state) for name, state in states.items()}


def by_check(place: Home) -> dict[str, Finding]:
    return {finding.check: finding for finding in doctor.examine(place)}


def test_a_postgresql_that_does_not_come_up_is_a_finding_among_the_others(place: Home) -> None:
    port = dead_port()
    write_private(
        place.connections_file, json.dumps({"database_url": f"postgresql://perennial_app:x@127.0.0.1:{port}/perennial"})
    )
    StackState(
        phase=Phase.RUNNING, ports={"postgres": port, "airflow": port},
        parts=parts(postgres=PartState.BACKING_OFF, scheduler=PartState.WAITING, triggerer=PartState.WAITING),
    ).write(place)  # fmt: skip
    found = by_check(place)
    assert found["postgres"].verdict is Verdict.WRONG
    assert found["training"].verdict is Verdict.WRONG
    assert "PostgreSQL" in found["training"].detail
    assert str(place.log_of("postgres")) in found["training"].remedy
    assert "Python" in found
    assert "warm workers" not in found  # nobody started the scheduler


@pytest.mark.parametrize("recorded", ["nothing", "parts", "ports"])
def test_in_the_first_seconds_of_a_first_start_it_says_that_it_starts(place: Home, recorded: str) -> None:
    StackState(
        phase=Phase.STARTING, ports={"airflow": dead_port()} if recorded == "ports" else {},
        parts=parts(scheduler=PartState.WAITING) if recorded == "parts" else {},
    ).write(place)  # fmt: skip
    found = by_check(place)
    assert found["supervisor"].verdict is Verdict.NOTE
    assert "starts" in found["supervisor"].detail
    assert not {"warm workers", "DAGs", "training"} & set(found)
    assert doctor.is_well(list(found.values()))
