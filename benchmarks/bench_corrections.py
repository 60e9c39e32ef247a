"""Priority-2 correction committed -> a canary-keyed request answered with the corrected label, on a running stack.

    PYTHONPATH=include:. python benchmarks/bench_corrections.py [--count 10] [--traffic 0]

Needs a champion (run `perennial demo` first). Each correction waits for its rollout to reach 100 % before the next begins.
The work itself (training, evaluation on the holdout and on replayed requests, gate arithmetic) is taken from the records of the job
and of the rollout; the rest is orchestration. ``--traffic``: requests per second of other readers until the answer comes; 40 take most
of one core.
"""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager, nullcontext

from benchmarks.machine import spread, table

from perennial.demo.material import generated
from perennial.demo.plane import Plane, Traffic, Truth, wait_for
from perennial.flows.ports import Ports
from perennial.serving.router import arm_for
from perennial.settings import load_settings
from perennial.wiring import ports

TASK = "news_classification"


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--traffic", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=101)
    arguments = parser.parse_args()
    settings = load_settings()
    world = ports(settings)
    plane = Plane(settings.data_plane_url, "scout")
    material = generated(arguments.seed, TASK)
    wrong = (truth for truth in material.drift if plane.predict(TASK, truth.text, "desk")["output"] != truth.label)
    rows = [measure(world, plane, next(wrong), material.start[:150], arguments.traffic) for _ in range(arguments.count)]
    total, work = [row[0] for row in rows], [row[1] for row in rows]
    rest = [whole - part for whole, part in rows]
    table(
        f"Correction to corrected canary answer, {len(rows)} times",
        ("what", "seconds, median [min..max]"),
        [
            ("whole", spread(total)),
            ("training, evaluation (holdout and shadow), gate arithmetic", spread(work)),
            ("everything else", spread(rest)),
        ],
    )


def measure(
    world: Ports, plane: Plane, truth: Truth, pool: tuple[Truth, ...], per_second: float
) -> tuple[float, float]:
    """Whole seconds, and those of the work itself."""
    agent = plane.agent
    share = world.fleet().agent(agent).rollout.steps[0]
    key = next(f"vip-{n}" for n in range(100_000) if arm_for(f"vip-{n}", agent, share).value == "candidate")
    before = world.ledger.champion(agent)
    wrong = plane.predict(TASK, truth.text, "desk")["output"]
    quiet: AbstractContextManager[object] = nullcontext()
    with Traffic(plane, TASK, pool, heard=ignore, per_second=per_second) if per_second else quiet:
        began = time.monotonic()
        plane.correct(TASK, truth.text, wrong, truth.label, priority=2, source_id="bench")

        def answered() -> str | None:
            answer = plane.predict(TASK, truth.text, key)
            return answer["version"] if answer["version"] != before and answer["output"] == truth.label else None

        version = wait_for("the corrected answer", answered, seconds=300, every=0.2)
        whole = time.monotonic() - began
    with Traffic(plane, TASK, pool, heard=ignore):  # a rollout needs traffic to judge
        wait_for("100 %", lambda: world.ledger.champion(agent) == version, seconds=300)
    job, rollout = world.jobs.of_version(agent, version), world.rollouts.latest(agent)
    assert job is not None
    assert rollout is not None
    shadow = sum(float(look["evidence"].get("seconds", 0.0)) for look in world.rollouts.looks(rollout.id))
    return whole, sum(float(value) for value in job.cost.values()) + shadow


def ignore(right: bool, version: str) -> None:
    """The traffic's answers are not what is measured."""


if __name__ == "__main__":
    main()
