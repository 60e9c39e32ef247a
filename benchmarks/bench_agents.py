"""What many agents cost: parsing the DAG files, connections that listen, and the seconds of a correction, beside one agent's.

    PYTHONPATH=include:. .venv/bin/python benchmarks/bench_agents.py [--agents 100] [--corrections 5] [--parse-only] [--json OUT]

The DAG files are parsed as Airflow's DAG processor does (`DagBag`) in a fresh process, with its serialization, which the processor does
after each parse; and once more as a task's process does, for one DAG alone. Then a stack of its own starts with one agent, which
gets a champion and corrections; the other agents' files are added while it runs, and the same agent gets as many corrections again.
Wall times need a machine that does nothing else; processor seconds and ratios depend less on it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from benchmarks.bench_corrections import measure as correct
from benchmarks.bench_stack import airflow, processor_seconds
from benchmarks.machine import machine, spread, table
from benchmarks.own_stack import TASK, first_champion, own_stack, world_of, write_agent

from perennial.demo.material import Material, generated
from perennial.demo.plane import Plane, wait_for
from perennial.flows.fleet_sync import sync
from perennial.flows.harvest import admit_waiting
from perennial.flows.ports import Ports
from perennial.settings import load_settings
from perennial.stack.home import Home, project_folder
from perennial.stack.status import status

AGENT = "agent_000"

LISTENING = """SELECT query, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query ILIKE 'LISTEN %' GROUP BY query"""

# what tests/dags/test_parse.py measures, with seconds by file and the serialization
PROBE = """
import json, sys, time
from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, Param, TriggerRule, task  # noqa: what any DAG file imports
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
if sys.argv[2]:
    from perennial.bridge import factory
    class Wanted:
        dag_id = sys.argv[2]
    factory.get_parsing_context = Wanted
def timed(work):
    wall, busy = time.monotonic(), time.process_time()
    found = work()
    return found, time.monotonic() - wall, time.process_time() - busy
bag, wall, busy = timed(lambda: DagBag(sys.argv[1]))
texts, ser_wall, ser_busy = timed(lambda: [json.dumps(DagSerialization.to_dict(dag)) for dag in bag.dags.values()])
assert not bag.import_errors, bag.import_errors
print("RESULT " + json.dumps({
    "dags": len(bag.dags), "wall": wall, "busy": busy, "serialize_wall": ser_wall, "serialize_busy": ser_busy,
    "bytes": sum(map(len, texts)), "files": {one.file: one.duration.total_seconds() for one in bag.dagbag_stats},
}))
"""


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--corrections", type=int, default=5, help="per number of agents")
    parser.add_argument("--rest", type=float, default=30.0, help="seconds at rest")
    parser.add_argument("--parse-only", action="store_true", help="no stack")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    facts: dict[str, Any] = {"machine": machine(), "agents": arguments.agents, "parse": parse_table(arguments.agents)}
    if not arguments.parse_only:
        with own_stack(AGENT) as (place, fleet):
            facts |= grow(place, fleet, arguments.agents, arguments.corrections, arguments.rest)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1))


def parse_table(agents: int) -> dict[str, Any]:
    """Seconds of parsing all DAG files, with one agent and with many, and of a task's process."""
    with tempfile.TemporaryDirectory() as room:
        fleet = Path(room) / "fleet"
        fleet.mkdir()
        write_agent(fleet, AGENT)
        one = parse(Path(room), fleet)
        for number in range(1, agents):
            write_agent(fleet, name_of(number))
        many, alone = parse(Path(room), fleet), parse(Path(room), fleet, f"train_{AGENT}")
    files = sorted(many["files"], key=many["files"].__getitem__, reverse=True)[:3]
    rows = [
        ("DAGs", one["dags"], many["dags"], ""),
        ("all DAG files, seconds", f"{one['wall']:.2f}", f"{many['wall']:.2f}", "5"),
        ("the same, processor seconds", f"{one['busy']:.2f}", f"{many['busy']:.2f}", ""),
        *((f"{Path(file).name}, seconds", f"{one['files'][file]:.2f}", f"{many['files'][file]:.2f}", "") for file in files),
        ("serialization, processor seconds", f"{one['serialize_busy']:.2f}", f"{many['serialize_busy']:.2f}", ""),
        ("serialized, kB", f"{one['bytes'] / 1e3:.0f}", f"{many['bytes'] / 1e3:.0f}", ""),
        ("DAGs built by a task's process", "", alone["dags"], "1"),
        ("the same, processor seconds", "", f"{alone['busy']:.2f}", ""),
    ]  # fmt: skip
    table(f"Parsing with {agents} agents", ("what", "1 agent", f"{agents} agents", "asked"), rows)
    return {"one": one, "many": many, "task": alone}


def parse(room: Path, fleet: Path, dag_id: str = "") -> dict[str, Any]:
    """One fresh process; ``dag_id``: as a task of that training DAG parses, which reads its own file alone."""
    environment = {
        **os.environ, "AIRFLOW_HOME": str(room / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PERENNIAL_FLEET_FOLDER": str(fleet), "PERENNIAL_HOME": str(room / "perennial"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project_folder() / "plugins"),
    }  # fmt: skip
    file = project_folder() / "dags" / ("train.py" if dag_id else "")
    words = [sys.executable, "-c", PROBE, str(file), dag_id]
    done = subprocess.run(words, env=environment, cwd=room, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(line.removeprefix("RESULT ")))


def name_of(number: int) -> str:
    """Names in one order."""
    return f"agent_{number:03d}"


def grow(place: Home, fleet: Path, agents: int, count: int, rest: float) -> dict[str, Any]:
    """The stack with one agent, then with many."""
    world, plane = world_of(), Plane(load_settings().data_plane_url, AGENT)
    material = generated(101, TASK)
    said(f"first champion after {first_champion(place, world, plane, material):.0f} s")
    wrong = (truth for truth in material.drift if plane.predict(TASK, truth.text, "desk")["output"] != truth.label)
    one = look(place, world, rest) | {"corrections": corrected(world, plane, wrong, material, count)}
    began = time.monotonic()
    for number in range(1, agents):
        write_agent(fleet, name_of(number))
    last = f"train_{name_of(agents - 1)}"
    with airflow(place) as link:
        wait_for(
            "the last agent's DAG",
            lambda: link.get(f"/api/v2/dags/{last}").status_code == 200,
            seconds=900,
            every=1.0,
        )
    joined = time.monotonic() - began
    said(f"{agents} agents after {joined:.0f} s")
    time.sleep(30)  # so that every watcher has its trigger
    many = look(place, world, rest) | {"corrections": corrected(world, plane, wrong, material, count)}
    report(one, many, agents, joined)
    return {"one": one, "many": many, "joined_seconds": joined}


def corrected(world: Ports, plane: Plane, wrong: Any, material: Material, count: int) -> list[float]:
    """Seconds from each correction to the corrected answer."""
    found = []
    for _ in range(count):
        found.append(correct(world, plane, next(wrong), material.start[:150], 0.0)[0])
        said(f"a correction: {found[-1]:.1f} s")
    return found


def look(place: Home, world: Ports, rest: float) -> dict[str, Any]:
    """What the deployment holds and does at rest."""
    listening: dict[str, int] = {}
    with psycopg.connect(load_settings().app_url(), autocommit=True) as connection:
        for query, number in connection.execute(LISTENING):
            listening[query] = number
    before = processor_seconds(place)
    time.sleep(rest)
    spent = {name: (seconds - before.get(name, seconds)) / rest for name, seconds in processor_seconds(place).items()}
    memory = {part.name: part.memory_bytes for part in status(place).parts if part.memory_bytes}
    return {
        "listening": listening, "cores": spent, "memory": memory, "due_ms": milliseconds(world.buffer.due_agents),
        "sync_ms": milliseconds(lambda: sync(world)), "harvest_ms": milliseconds(lambda: admit_waiting(world)),
        "page_ms": milliseconds(lambda: fleet_page(place)),
    }  # fmt: skip


def fleet_page(place: Home) -> None:
    """The fleet page in Airflow's web server."""
    with airflow(place) as link:
        link.get("/perennial/fleet").raise_for_status()


def milliseconds(work: Any, times: int = 7) -> float:
    """Median of a few calls after a first one."""
    taken = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken[1:])


def report(one: dict[str, Any], many: dict[str, Any], agents: int, joined: float) -> None:
    """The tables."""
    bells = sorted({*one["listening"], *many["listening"]})
    medians = [statistics.median(found["corrections"]) for found in (one, many)]
    rows: list[tuple[object, ...]] = [
        ("correction -> corrected canary answer, s", spread(one["corrections"]), spread(many["corrections"]), ""),
        ("of one agent's median", "1", f"{medians[1] / medians[0]:.2f}", "1.5"),
        *((f"connections with {bell}", one["listening"].get(bell, 0), many["listening"].get(bell, 0), "1") for bell in bells),
        ("seconds until the last new agent's DAG is there", "", f"{joined:.0f}", ""),
        ("which agents are due, ms", f"{one['due_ms']:.1f}", f"{many['due_ms']:.1f}", ""),
        ("telling the database of the fleet, ms", f"{one['sync_ms']:.1f}", f"{many['sync_ms']:.1f}", ""),
        ("a harvest with nothing to admit, ms", f"{one['harvest_ms']:.1f}", f"{many['harvest_ms']:.1f}", ""),
        ("the fleet page with its login, ms", f"{one['page_ms']:.0f}", f"{many['page_ms']:.0f}", ""),
    ]  # fmt: skip
    for name in sorted({*one["cores"], *many["cores"]}):
        cores = [f"{100 * found['cores'].get(name, 0.0):.0f}" for found in (one, many)]
        sizes = [f"{found['memory'].get(name, 0) / 1e6:.0f}" for found in (one, many)]
        rows.append(
            (f"{name}: % of one core at rest, MB", *(", ".join(pair) for pair in zip(cores, sizes, strict=True)), "")
        )
    table(f"One agent and {agents}", ("what", "1 agent", f"{agents} agents", "asked"), rows)


def said(text: str) -> None:
    """Progress, beside the tables."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
