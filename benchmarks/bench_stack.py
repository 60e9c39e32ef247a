"""Boot, rest, a task and stop of the embedded stack: seconds, memory by part, and the processor's time at rest.

    PYTHONPATH=include:. python benchmarks/bench_stack.py [--cold]

Uses a home and ports of its own. ``--cold`` turns warm workers off. Wall times need a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx
from benchmarks.machine import spread, table

from perennial.stack import processes
from perennial.stack.files import read_json
from perennial.stack.home import Home
from perennial.stack.state import read_state
from perennial.stack.status import status


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds at rest")
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an ended benchmark leaves no stack behind
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as root:
        place = Home(root=Path(root) / "home")
        os.environ |= {"PERENNIAL_HOME": str(place.root), "PERENNIAL_PORT_BASE": "24680"}
        os.environ["PERENNIAL_WARM_WORKERS"] = "0" if arguments.cold else "1"
        try:
            measure(place, arguments)
        finally:
            perennial("down")


def measure(place: Home, arguments: argparse.Namespace) -> None:
    """First boot, stop, second boot, rest, tasks, stop."""
    workers = "cold" if arguments.cold else "warm"
    first, stop = perennial("up"), perennial("down")
    second = perennial("up")
    wait_for_dags(place)
    time.sleep(10)
    memory = {part.name: part.memory_bytes for part in status(place).parts if part.memory_bytes}
    total = status(place).memory_bytes
    before = processor_seconds(place)
    time.sleep(arguments.rest)
    spent = {name: seconds - before[name] for name, seconds in processor_seconds(place).items()}
    table(
        f"The embedded stack at rest, {workers} workers",
        ["part", "MB (proportional)", "% of one core"],
        [[name, f"{size / 1e6:.0f}", f"{100 * spent[name] / arguments.rest:.1f}"] for name, size in memory.items()]
        + [["all", f"{total / 1e6:.0f}", f"{100 * sum(spent.values()) / arguments.rest:.1f}"]],
    )
    runs = [one_run(place, "fleet_check") for _ in range(arguments.runs)]
    after = status(place).memory_bytes
    table(
        f"The embedded stack, {workers} workers",
        ["what", "value"],
        [
            ["first `up` (initdb, every migration)", f"{first:.1f} s"],
            ["second `up`", f"{second:.1f} s"],
            ["`down`", f"{stop:.1f} s"],
            ["a run of one task, first after boot", f"{runs[0][0]:.2f} s"],
            [f"a run of one task, {len(runs) - 1} more", f"{spread([whole for whole, _ in runs[1:]])} s"],
            ["of which the task, scheduled to ended", f"{spread([task for _, task in runs[1:]])} s"],
            ["memory after these runs", f"{after / 1e6:.0f} MB"],
        ],
    )


def perennial(word: str) -> float:
    """Seconds of one command."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "perennial.cli", word], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def airflow(place: Home) -> httpx.Client:
    """A logged-in client."""
    base = str(read_json(place.connections_file)["airflow_url"])
    login = {"username": "machine", "password": read_json(place.passwords_file)["machine"]}
    token = httpx.post(f"{base}/auth/token", json=login, timeout=30).raise_for_status().json()["access_token"]
    return httpx.Client(base_url=base, timeout=30, headers={"Authorization": f"Bearer {token}"})


def wait_for_dags(place: Home) -> None:
    """Until the DAG that is measured is there."""
    with airflow(place) as link:
        deadline = time.monotonic() + 120
        while link.get("/api/v2/dags/fleet_check").status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.5)


def one_run(place: Home, dag: str) -> tuple[float, float]:
    """Seconds from the request to the end of the run, and of its task from being scheduled to its end."""
    with airflow(place) as link:
        began = time.monotonic()
        run = (
            link.post(f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None})
            .raise_for_status()
            .json()["dag_run_id"]
        )
        while link.get(f"/api/v2/dags/{dag}/dagRuns/{run}").json()["state"] not in ("success", "failed"):
            time.sleep(0.05)
        whole = time.monotonic() - began
        (one,) = link.get(f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances").json()["task_instances"]
        began_at, ended_at = (datetime.fromisoformat(one[name]) for name in ("scheduled_when", "end_date"))
        return whole, (ended_at - began_at).total_seconds()


def processor_seconds(place: Home) -> dict[str, float]:
    """User and system time so far, by part, with children that ended."""
    rows = processes.snapshot()
    found = {}
    for part in read_state(place).parts.values():
        pids = processes.members(rows, [part.session]) if part.session else set()
        ticks = 0
        for pid in pids:
            text = Path(f"/proc/{pid}/stat").read_text()
            ticks += sum(map(int, text[text.rindex(")") + 2 :].split()[11:15]))
        found[part.name] = ticks / os.sysconf("SC_CLK_TCK")
    return found


if __name__ == "__main__":
    main()
