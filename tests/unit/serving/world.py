"""A small world for the gateway: bundles that are folders, predictors that say their version, stores in memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from perennial.domain.example import Example
from perennial.domain.model import Prediction, Predictor
from perennial.errors import StoreUnavailable, UntrustedBundle
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts
from perennial.serving.faults import Faults
from perennial.serving.gateway import Gateway
from perennial.serving.memory import MemoryServing
from perennial.serving.metrics import Metrics
from perennial.serving.orders import Order, Orders
from perennial.serving.recorder import Recorder

PLAN = Plan(steps=(0.05, 0.5, 1.0))
TASKS = [
    {
        "agent": "scout",
        "name": "topic",
        "task": "topic",
        "kind": "classification",
        "max_length": 1000,
        "holdout_share": 0.0,
    },
    {
        "agent": "scout",
        "name": "news_topic",
        "task": "topic",
        "kind": "classification",
        "max_length": 1000,
        "holdout_share": 0.0,
    },
    {"agent": "scout", "name": "quality", "task": "quality", "kind": "score", "max_length": 1000, "holdout_share": 0.0},
]


class Fixed:
    """Answers ``output`` with ``confidence``; what it was told may be changed while it serves."""

    def __init__(self, output: Any, confidence: float = 0.9) -> None:
        self.output, self.confidence = output, confidence
        self.raises: type[Exception] | None = None
        self.asked = 0

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        self.asked += 1
        if self.raises is not None:
            raise self.raises("no answer")
        scores = {"sports": self.confidence, "world": 1 - self.confidence}
        return [Prediction(output=self.output, confidence=self.confidence, scores=scores) for _ in texts]


class Shelf:
    """A ``BundleSource`` and ``ComponentLoader`` in one: versions on a shelf, some of them spoilt or slow."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models: dict[Path, Predictor] = {}
        self.tampered: set[str] = set()
        self.away: set[str] = set()
        self.seconds: dict[str, float] = {}
        self.fetched: list[str] = []

    def put(self, version: str, agent: str = "scout", **tasks: Predictor) -> None:
        for task, model in (tasks or {"topic": Fixed("sports"), "quality": Fixed(0.7)}).items():
            folder = self.root / agent / version / "tasks" / task
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "component.json").write_text(json.dumps({"version": version}))
            self.models[folder] = model

    def fetch(self, agent: str, version: str) -> Path:
        self.fetched.append(version)
        time.sleep(self.seconds.get(version, 0.0))
        if version in self.tampered:
            raise UntrustedBundle(f"the signature of {agent} {version} does not match its files")
        if version in self.away:
            raise StoreUnavailable("the registry is away")
        return self.root / agent / version

    def load(self, folder: Path) -> Predictor:
        return self.models[folder]


class Sink:
    """The buffer's door, in a list; ``away`` plays an outage."""

    def __init__(self) -> None:
        self.examples: dict[Any, Example] = {}
        self.withdrawn: set[Any] = set()
        self.calls = 0
        self.away = False

    def add_many(self, examples: Sequence[Example]) -> None:
        if self.away:
            raise StoreUnavailable("the buffer is away")
        self.calls += 1
        for example in examples:
            self.examples.setdefault(example.example_id, example)

    def withdraw(self, ids: Collection[Any], *, back: Collection[Any] = ()) -> None:
        if self.away:
            raise StoreUnavailable("the buffer is away")
        self.withdrawn = (self.withdrawn | set(ids)) - set(back)

    @property
    def waiting(self) -> list[Example]:
        return [example for identity, example in self.examples.items() if identity not in self.withdrawn]


class World:
    """Everything a gateway needs, in memory; ``settle`` refreshes until the loads are done."""

    def __init__(self, root: Path, *, faults: bool = False, carry_out: Callable[[Order], None] | None = None) -> None:
        self.rollouts = MemoryRollouts()
        self.store = MemoryServing(self.rollouts, TASKS)
        self.shelf = Shelf(root / "bundles")
        self.sink = Sink()
        self.metrics = Metrics()
        self.recorder = Recorder(self.store, self.sink, self.metrics)
        self.gateway = Gateway(
            store=self.store, source=self.shelf, loader=self.shelf, recorder=self.recorder, metrics=self.metrics,
            instance="g1", faults=Faults(enabled=faults), orders=Orders(root / "orders.json"), carry_out=carry_out,
        )  # fmt: skip
        self.recorder.start()

    def champion(self, version: str, **tasks: Predictor) -> int:
        self.shelf.put(version, **tasks)
        row = self.rollouts.open(agent="scout", version=version, plan=PLAN, run_id=f"run-{version}")
        self.settle()
        self.rollouts.promote_full(row.id, actor="test", reason="test")
        self.settle()
        return row.id

    def candidate(self, version: str, weight: float = 0.0, **tasks: Predictor) -> int:
        self.shelf.put(version, **tasks)
        plan = Plan(steps=(weight, 1.0)) if weight else PLAN
        row = self.rollouts.open(agent="scout", version=version, plan=plan, run_id=f"run-{version}")
        if weight:
            self.rollouts.set_step(row.id, step=0, weight=weight, actor="test")
        self.settle()
        return row.id

    def restarted(self) -> Gateway:
        """A process that starts now, over the same store and shelf; it has not looked at them yet."""
        return Gateway(
            store=self.store, source=self.shelf, loader=self.shelf, recorder=self.recorder, metrics=self.metrics,
            instance="g1",
        )  # fmt: skip

    def settle(self, seconds: float = 10.0) -> None:
        settle(self.gateway, seconds)

    def close(self) -> None:
        self.gateway.stop()
        self.recorder.stop(1.0)


def settle(gateway: Gateway, seconds: float = 10.0) -> None:
    """Refresh until nothing loads."""
    deadline = time.monotonic() + seconds
    gateway.refresh()
    while gateway._loading and time.monotonic() < deadline:
        time.sleep(0.002)
        gateway.refresh()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work`` in threads at once and wait for all."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def rolled_back_while_away(folder: Path) -> World:
    """A gateway that took 1.0.1 back while the store was away, and then ended."""
    world = World(folder)
    world.champion("1.0.0")
    world.champion("1.0.1")
    world.store.away = True
    world.gateway.roll_back_here("scout", actor="ana", reason="bad")
    world.close()
    return world
