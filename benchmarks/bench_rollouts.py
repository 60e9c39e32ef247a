"""A thousand simulated rollouts through the real flows and verdicts, and a hundred thousand requests over fifty swaps.

    PYTHONPATH=include:. python benchmarks/bench_rollouts.py [--bad 100] [--identical 1000] [--requests 100000] [--only WORD] [--json OUT]

Stores are in memory and the clock is simulated; ``flows.rollout.begin_step``, ``look``, ``full``, ``revert`` and ``flows.watch.look``
are the ones that Airflow's tasks call. 100 requests a second (5 of them to a 5 % canary; 10 while it bakes), the truth of
half of the answers comes in, a look every second; a
controller dies in one of ten calls, before or after any of its writes, and is started anew a second later.

A check interval is what a person waits for news: a canary step (30 s here) and the minute of ``rollout_watch``. The time to revert
counts from the moment when the fault meets traffic; without data there is nothing to see before patience (150 s) ends, so there it
counts from that end, and with late outcomes from the moment when the first can come.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.machine import machine, table

from perennial.domain.words import ReportKind, RolloutState
from perennial.fleet.agent import Rollout
from perennial.flows import rollout, watch
from perennial.rollout.machine import ENDED, Plan
from perennial.rollout.rows import GatewayRow, Report, RolloutRow
from tests.rollout_world import START, Behaviour, Killed, RolloutWorld, make_rollout_world
from tests.unit.serving.world import World as GatewayWorld

INTERVAL = 30.0
WATCH = 60.0
PATIENCE = 150.0
PER_SECOND = 100
BAKE_PER_SECOND = 10
BAKE_SECONDS = 600.0
DIES = 0.1  # share of the controller's calls in which it dies
CHAMPION, CANDIDATE = "1.0.0", "1.0.1"
SOUND = Behaviour()


@dataclass(frozen=True)
class Kind:
    """One class of rollouts. ``bake``: the behaviour after 100 %; ``share`` of the usual traffic; ``delay`` of outcomes."""

    canary: Behaviour = SOUND
    bake: Behaviour | None = None
    share: float = 1.0
    delay: float = 0.0
    refused: bool = False  # a gateway refuses the bundle
    reported: bool = False  # five people complain
    bad: bool = True

    @property
    def interval(self) -> float:
        return WATCH if self.bake is not None else INTERVAL


KINDS: dict[str, Kind] = {
    "errors: one answer in ten fails": Kind(canary=Behaviour(errors=0.10)),
    "errors: every answer fails": Kind(canary=Behaviour(errors=1.0)),
    "latency: four times slower": Kind(canary=Behaviour(milliseconds=160.0)),
    "quality: 85 % right to 55 %": Kind(canary=Behaviour(right=0.55)),
    "slice: one label of four 85 % to 20 %": Kind(canary=Behaviour(by_label={"sports": 0.20})),
    "quality, outcomes 20 s late": Kind(canary=Behaviour(right=0.55), delay=20.0),
    "no data": Kind(share=0.0),
    "too few samples": Kind(share=0.008),
    "health probe: a gateway refuses it": Kind(refused=True),
    "five people report it": Kind(reported=True),
    "bake: one answer in ten fails": Kind(bake=Behaviour(errors=0.10)),
    "bake: quality 85 % to 55 %": Kind(bake=Behaviour(right=0.55)),
    "bake: one label of four 85 % to 20 %": Kind(bake=Behaviour(by_label={"sports": 0.20})),
    "identical": Kind(bad=False),
    "identical, outcomes 20 s late": Kind(delay=20.0, bad=False),
}  # fmt: skip


@dataclass
class Run:
    """How one rollout ended. ``seconds``: from the fault to the revert."""

    state: RolloutState
    seconds: float
    kills: int
    broken: list[str] = field(default_factory=list)
    reason: str = ""


class Controller:
    """What Airflow does: calls the flows, and calls them again when a task died."""

    def __init__(self, world: RolloutWorld, row: RolloutRow, dice: random.Random, dies: float) -> None:
        self.world, self.ref, self.dice, self.dies = world, {"rollout_id": row.id}, dice, dies
        self.index, self.begun, self.kills = 0, False, 0

    def alive(self, act: Callable[[], Any]) -> Any:
        """The call's result, or None when the controller died in it."""
        fuse = self.world.fuse
        fuse.blown, fuse.calls, fuse.after = False, 0, self.dice.random() < 0.5
        fuse.at = self.dice.randrange(30) if self.dice.random() < self.dies else None
        try:
            return act()
        except Killed:
            self.kills += 1
            return None
        finally:
            fuse.at = None

    def tick(self) -> str:
        """One second of the canary: begin the step, or look at it. The word of the last look."""
        ports, shares = self.world.ports, len(self.world.plan.shares)
        if not self.begun:
            self.begun = self.alive(lambda: rollout.begin_step(ports, self.ref, self.index)) is not None
            return "hold"
        said = self.alive(lambda: rollout.look(ports, self.ref, self.index)) or {"action": "hold"}
        if said["action"] == "promote":
            self.index, self.begun = self.index + 1, False
            if self.index == shares:
                while self.alive(lambda: rollout.full(ports, self.ref)) is None:
                    self.world.clock.move(1.0)
        if said["action"] == "rollback":  # the DAG's teardown
            while self.alive(lambda: rollout.revert(ports, self.ref, "a step failed")) is None:
                self.world.clock.move(1.0)
        return str(said["action"])


def simulate(kind: Kind, seed: int, *, dies: float = DIES, bake_seconds: float = BAKE_SECONDS) -> Run:
    """One rollout to its end."""
    settings = Rollout(
        step_seconds=INTERVAL, max_hold_seconds=PATIENCE, bake_seconds=bake_seconds, label_delay_seconds=kind.delay,
        targets=("gateway",),
    )  # fmt: skip
    world = make_rollout_world(seed=seed, rollout=settings)
    dice = random.Random(seed + 1)
    world.champion(CHAMPION)
    for _ in range(30):
        world.clock.move(1.0)
        world.traffic(20, delay=kind.delay)
    row = world.candidate(CANDIDATE)
    world.agreed(row, 0.9)
    world.behaviours[CANDIDATE] = kind.canary
    controller, since = Controller(world, row, dice, dies), world.clock()
    while world.state(row) not in ENDED | {RolloutState.BAKING}:
        world.clock.move(1.0)
        world.traffic(_requests(dice, kind.share * PER_SECOND), delay=kind.delay)
        _faults(world, kind, (world.clock() - since).total_seconds())
        controller.tick()
    if world.state(row) is RolloutState.BAKING and kind.bake is not None:
        for _ in range(3):
            _minute(world, controller, kind)
        world.behaviours[CANDIDATE], since = kind.bake, world.clock()
    while world.state(row) is RolloutState.BAKING:
        _minute(world, controller, kind)
    ended = world.rollouts.get(row.id)
    seconds = ((ended.ended_at or world.clock()) - since).total_seconds()
    seconds -= PATIENCE if kind.share < 1.0 else kind.delay  # before that there was nothing to see
    for _ in range(3):  # whatever a kill left open, the watch finishes
        _minute(world, controller, kind)
    return Run(ended.state, seconds, controller.kills, broken(world, ended), ended.reason)


def _requests(dice: random.Random, mean: float) -> int:
    whole = int(mean)
    return whole + (dice.random() < mean - whole)


def _faults(world: RolloutWorld, kind: Kind, elapsed: float) -> None:
    now = world.clock()
    if kind.refused:
        beat = GatewayRow(
            instance="g1", agent="scout", champion=CHAMPION, previous=None, candidate=None, weight=0.0, epoch=1,
            error=f"{CANDIDATE} refused: the model answers no probe",
        )  # fmt: skip
        world.rollouts.heartbeats["g1", "scout"] = (now, beat)
    if kind.reported and elapsed <= 10:
        report = Report(
            report_id=UUID(int=int(elapsed)), agent="scout", kind=ReportKind.WRONG, reporter=bytes([int(elapsed) // 2]),
            version=CANDIDATE,
        )  # fmt: skip
        world.rollouts.report(report)


def _minute(world: RolloutWorld, controller: Controller, kind: Kind) -> None:
    for _ in range(int(WATCH)):
        world.clock.move(1.0)
        world.traffic(BAKE_PER_SECOND, delay=kind.delay)
    for _ in range(3):  # Airflow tries a task twice again, seconds later
        if controller.alive(lambda: watch.look(world.ports)) is not None:
            return
        world.clock.move(2.0)


def broken(world: RolloutWorld, row: RolloutRow) -> list[str]:
    """What must hold whatever died where: nobody half serves, and the record is whole and written once."""
    serving, wrong = world.rollouts.serving("scout"), []
    good = CANDIDATE if row.state is RolloutState.DONE else CHAMPION
    if (serving.champion, serving.candidate, serving.weight) != (good, None, 0.0):
        wrong.append(f"serves {serving.champion} and {serving.candidate} at {serving.weight}")
    if world.aliases.get("champion") != good:
        wrong.append(f"the alias says {world.aliases.get('champion')}")
    said = Counter(word for word in world.audited(CANDIDATE) if word in rollout.REVERSALS)
    if said.total() != (row.state is RolloutState.REVERTED):
        wrong.append(f"audited {dict(said)}")
    flagged = [one for one in world.buffer.performance("scout", 100) if one.version == CANDIDATE]
    if len(flagged) != (row.state is RolloutState.REVERTED):
        wrong.append(f"{len(flagged)} entries in the history")
    return wrong


def requests_over_swaps(requests: int, swaps: int, callers: int = 4) -> dict[str, Any]:
    """Callers ask one gateway while its champion changes; every fifth version is not genuine and must never answer."""
    with tempfile.TemporaryDirectory() as name:
        world = GatewayWorld(Path(name))
        world.champion("1.0.0")
        guard, place, failed, allowed = threading.Lock(), iter(range(requests)), 0, [requests // swaps]
        answered: Counter[str] = Counter()

        def call() -> None:
            nonlocal failed
            mine: Counter[str] = Counter()
            bad = 0
            while (number := _next(place, guard, requests, allowed)) is not None:
                try:
                    (answer,) = world.gateway.predict("scout", "topic", [f"text {number}"], key=f"k{number}")
                    mine[answer.version] += 1
                except Exception:  # noqa: BLE001 - any failure counts
                    bad += 1
            with guard:
                answered.update(mine)
                failed += bad

        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        approved, took = {"1.0.0"}, []
        for number in range(1, swaps + 1):
            allowed[0] = requests * number // swaps  # callers never run ahead of the swaps
            version = f"1.0.{number}"
            if number % 5 == 0:  # a bundle that is not what was signed: the gateway refuses it and the rollout reverts
                world.shelf.tampered.add(version)
            world.shelf.put(version)
            began = time.perf_counter()
            row = world.rollouts.open(agent="scout", version=version, plan=Plan(steps=(0.5, 1.0)), run_id=version)
            world.settle()
            if world.rollouts.gateway_error("scout", version):
                world.rollouts.revert(row.id, reason="refused", actor="bench")
            else:
                approved.add(version)
                world.rollouts.set_step(row.id, step=0, weight=0.5, actor="bench")
                world.settle()
                world.rollouts.promote_full(row.id, actor="bench", reason="bench")
            world.settle()
            took.append(time.perf_counter() - began)
            while answered_enough(place, requests, number / swaps) is False:
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        world.close()
    return {
        "requests": sum(answered.values()) + failed, "swaps": swaps, "refused versions": swaps // 5, "failed": failed,
        "answered by an unapproved version": sum(count for version, count in answered.items() if version not in approved),
        "versions that answered": len(answered), "worst swap ms": round(1000 * max(took), 1),
    }  # fmt: skip


def _next(place: Any, guard: threading.Lock, requests: int, allowed: list[int]) -> int | None:
    while True:
        with guard:
            taken = requests - int(place.__length_hint__())
            if taken < allowed[0] or taken == requests:
                return next(place, None)
        time.sleep(0.0005)


def answered_enough(place: Any, requests: int, share: float) -> bool:
    """Whether the callers are as far as the swaps, so that the swaps spread over all requests."""
    return requests - int(place.__length_hint__()) >= share * requests * 0.98


def main() -> None:
    """Run all and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bad", type=int, default=100, help="rollouts of each bad kind")
    parser.add_argument(
        "--identical",
        type=int,
        default=1000,
        help="rollouts of identical models; a fifth of it again with late outcomes",
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--only", default="", help="kinds whose name has this word in it, without the swaps")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    kinds = {name: kind for name, kind in KINDS.items() if given.only in name}
    if not kinds:
        parser.error(f"no kind has {given.only!r} in its name; there are: {'; '.join(KINDS)}")
    gc.disable()
    found: dict[str, Any] = {"machine": machine(), "began": str(START)}
    rows = []
    for name, kind in kinds.items():
        runs = []
        count = given.bad if kind.bad else given.identical // (5 if kind.delay else 1)
        for seed in range(count):
            runs.append(simulate(kind, 1000 * seed))
            gc.collect(1)
        facts = summary(kind, runs)
        found[name] = facts
        rows.append([name, *facts.values()])
        print(name, facts, flush=True)
    heads = ["kind", "rollouts", "reverted", "within two intervals", "median s", "worst s", "kills", "broken"]
    table("Simulated rollouts", heads, rows)
    if not given.only:
        found["requests over swaps"] = requests_over_swaps(given.requests, 50)
        table("Requests over swaps", list(found["requests over swaps"]), [list(found["requests over swaps"].values())])
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def summary(kind: Kind, runs: list[Run]) -> dict[str, Any]:
    """Counts of one kind."""
    reverted = [run for run in runs if run.state is RolloutState.REVERTED]
    times = sorted(run.seconds for run in reverted)
    return {
        "rollouts": len(runs), "reverted": len(reverted),
        "in time": sum(seconds <= 2 * kind.interval for seconds in times),
        "median s": times[len(times) // 2] if times else "", "worst s": times[-1] if times else "",
        "kills": sum(run.kills for run in runs), "broken": sum(bool(run.broken) for run in runs),
    }  # fmt: skip


if __name__ == "__main__":
    main()
