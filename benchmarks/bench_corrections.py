"""Priority-2 correction committed -> a canary-keyed request answered with the corrected label, on a running stack.

    .venv/bin/python benchmarks/bench_corrections.py [--count 10]

Needs a champion (run `perennial demo` first). Each correction waits for its rollout to reach 100 % before the next begins.
The work itself (training, evaluation, gate arithmetic) is taken from the job's record; the rest is orchestration.
"""

from __future__ import annotations

import argparse
import time

from machine import spread, table

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
    parser.add_argument("--seed", type=int, default=101)
    arguments = parser.parse_args()
    settings = load_settings()
    world = ports(settings)
    plane = Plane(settings.data_plane_url, "scout")
    material = generated(arguments.seed, TASK)
    wrong = (truth for truth in material.drift if plane.predict(TASK, truth.text, "desk")["output"] != truth.label)
    rows = [measure(world, plane, next(wrong), material.start[:150]) for _ in range(arguments.count)]
    total, work = [row[0] for row in rows], [row[1] for row in rows]
    rest = [whole - part for whole, part in rows]
    table(
        f"Correction to corrected canary answer, {len(rows)} times",
        ("what", "seconds, median [min..max]"),
        [
            ("whole", spread(total)),
            ("training, evaluation, gate arithmetic", spread(work)),
            ("everything else", spread(rest)),
        ],
    )


def measure(world: Ports, plane: Plane, truth: Truth, pool: tuple[Truth, ...]) -> tuple[float, float]:
    """Whole seconds, and those of the work itself."""
    share = world.fleet().agent("scout").rollout.steps[0]
    key = next(f"vip-{n}" for n in range(100_000) if arm_for(f"vip-{n}", "scout", share).value == "candidate")
    before = world.ledger.champion("scout")
    wrong = plane.predict(TASK, truth.text, "desk")["output"]
    with Traffic(plane, TASK, pool, heard=lambda right, version: None):
        began = time.monotonic()
        plane.correct(TASK, truth.text, wrong, truth.label, priority=2, source_id="bench")

        def answered() -> str | None:
            answer = plane.predict(TASK, truth.text, key)
            return answer["version"] if answer["version"] != before and answer["output"] == truth.label else None

        version = wait_for("the corrected answer", answered, seconds=300, every=0.1)
        whole = time.monotonic() - began
        wait_for("100 %", lambda: world.ledger.champion("scout") == version, seconds=300)
    job = world.jobs.of_version("scout", version)
    return whole, sum(float(value) for value in job.cost.values()) if job else 0.0


if __name__ == "__main__":
    main()
