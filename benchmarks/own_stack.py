"""A stack of a benchmark's own, with a fleet of small agents: home, ports and fleet folder are temporary, and `down` always follows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perennial.demo.material import Material, as_examples
from perennial.demo.plane import Plane, RequiredActions, wait_for
from perennial.flows.ports import Ports
from perennial.flows.training_switch import train_dag_id
from perennial.settings import load_settings
from perennial.stack.files import read_json
from perennial.stack.home import Home
from perennial.wiring import ports

TASK = "news_classification"
PORT_BASE = "24720"

SMALL = '''"""A small agent: one task, quick rollout steps."""

from perennial.fleet import TRUSTED, Agent, Gates, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="{name}",
    owner="bench",
    tasks=(Task(name="{task}", labels=("world", "business", "sports", "science", "culture")),),
    trainer=EwcText(),
    update_threshold={threshold},
    max_buffer_size=20_000,
    selection=Selection(batch=3000, replay=200, holdout_share=0.25, holdout_max=600, trusted_sources=(*TRUSTED, "*/archive")),
    gates=Gates(min_holdout=100),
    rollout=Rollout(steps=(0.25, 1.0), min_samples=20, step_seconds=2.0),
)
'''


def write_agent(folder: Path, name: str, *, threshold: int = 50) -> None:
    """One agent's file; the DAGs follow by themselves."""
    (folder / f"{name}.py").write_text(SMALL.format(name=name, task=TASK, threshold=threshold))


@contextmanager
def own_stack(*agents: str) -> Iterator[tuple[Home, Path]]:
    """Start a stack whose fleet is ``agents``; its home and its fleet folder. Ends it whatever happens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an ended benchmark leaves no stack behind
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as root:
        place, fleet = Home(root=Path(root) / "home"), Path(root) / "fleet"
        fleet.mkdir()
        for name in agents:
            write_agent(fleet, name)
        os.environ |= {"PERENNIAL_HOME": str(place.root), "PERENNIAL_FLEET_FOLDER": str(fleet)}
        os.environ.setdefault("PERENNIAL_PORT_BASE", PORT_BASE)
        try:
            perennial("up")
            yield place, fleet
        finally:
            perennial("down")


def perennial(word: str) -> float:
    """Seconds of one command."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "perennial.cli", word], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def world_of() -> Ports:
    """The ports of the stack that the environment names."""
    return ports(load_settings())


def editor(place: Home) -> RequiredActions:
    """Who answers required actions."""
    passwords = read_json(place.passwords_file)
    return RequiredActions(str(read_json(place.connections_file)["airflow_url"]), "editor", passwords["editor"])


def first_champion(place: Home, world: Ports, plane: Plane, material: Material, *, seconds: float = 900.0) -> float:
    """Send the start set and wait until the agent's first version serves; the seconds that it took."""
    began, agent, person = time.monotonic(), plane.agent, editor(place)
    known = [truth for truth in material.start if truth.label in ("world", "business", "sports", "science", "culture")]
    for index in range(0, len(known), 200):
        plane.examples(as_examples(TASK, known[index : index + 200], source_id="archive"))

    def served() -> bool:
        for detail in person.waiting(train_dag_id(agent)):
            person.answer(detail, "Approve")
        entry = plane.agents()["agents"].get(agent) or {}
        champion = world.ledger.champion(agent)
        return champion is not None and entry.get("champion") == champion

    wait_for(f"the first champion of {agent}", served, seconds=seconds, every=1.0)
    return time.monotonic() - began
