"""What one gateway process answers with a real model: latency over HTTP, requests per second, swaps under load, the split.

    PYTHONPATH=include:. python benchmarks/bench_gateway.py [--data FILE.jsonl] [--seconds 10] [--json OUT]

Trains a small model on generated news (or on a JSON Lines file with ``text`` and ``label``), serves it with uvicorn on a free
port in a process of its own, with stores in memory, and asks as agents do. Every text is new, so no embedding is remembered;
``known texts`` asks the same ones again. Absolute figures move with the machine and its load; the ratios move less.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from benchmarks.machine import machine, table

from perennial.domain.words import Arm
from perennial.serving.router import arm_for

_words = str.split
TOPICS = {
    "sports": _words("match team goal season coach league striker final penalty stadium"),
    "world": _words("election minister treaty border vote parliament summit sanctions envoy coalition"),
    "business": _words("shares profit market bank inflation merger revenue investor bond retailer"),
    "science": _words("study cells planet telescope protein climate species researchers quantum fossil"),
}
FILLER = _words("the a of in on after before said new two over under while with from last year week people report")


def article(label: str, source: random.Random, words: int = 60) -> str:
    """A text of about 60 words, of the length of a news summary."""
    own = TOPICS[label]
    return " ".join(source.choice(own if source.random() < 0.3 else FILLER) for _ in range(words))


def rows_of(data: Path | None, count: int) -> list[tuple[str, str]]:
    """Texts with labels, from the file or made up."""
    if data is not None:
        lines = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()[:count]]
        return [(line["text"], str(line["label"])) for line in lines]
    source = random.Random(7)
    labels = list(TOPICS)
    return [(article(labels[number % 4], source), labels[number % 4]) for number in range(count)]


def trained(folder: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A component of ``ewc_text`` on the bundled encoder."""
    from perennial.domain.example import TrainingRow
    from perennial.domain.model import TaskBatch, Workbench
    from perennial.domain.words import Mode, TaskKind
    from perennial.trainers.bases import LocalBaseStore
    from perennial.trainers.ewc_text import EwcText

    out = folder / "tasks" / "topic"
    out.mkdir(parents=True)
    new = tuple(TrainingRow(example_id=uuid4(), task="topic", text=text, label=label) for text, label in rows)
    batch = TaskBatch(
        agent="scout", task="topic", kind=TaskKind.CLASSIFICATION, labels=tuple(sorted({label for _, label in rows})),
        new=new, replay=(), mode=Mode.ONLINE,
    )  # fmt: skip
    EwcText().fit(batch, None, out, seed=7, bench=Workbench(bases=LocalBaseStore(folder=folder.parent / "bases")))
    return folder


def serve(root: Path, port: int, plan: Any) -> None:
    """The gateway's process: two versions with the same files; ``plan`` tells it when to swap and reports back."""
    import uvicorn

    from perennial.api.app import create_app
    from perennial.api.data_plane import tune_threads
    from perennial.api.intake import Intake
    from perennial.api.reports import Reports
    from perennial.api.services import Limits, Services
    from perennial.domain.model import Workbench
    from perennial.ingest.door import Door
    from perennial.ingest.memory import MemoryBuffer
    from perennial.rollout.machine import Plan
    from perennial.rollout.memory import MemoryRollouts
    from perennial.serving.feedback import Outcomes
    from perennial.serving.gateway import Gateway
    from perennial.serving.memory import MemoryServing
    from perennial.serving.metrics import Metrics
    from perennial.serving.recorder import Recorder
    from perennial.trainers.bases import LocalBaseStore, MemoryEmbeddings
    from perennial.trainers.ewc_text import EwcText

    bench = Workbench(bases=LocalBaseStore(folder=root / "bases"), embeddings=MemoryEmbeddings())

    class Source:
        def fetch(self, agent: str, version: str) -> Path:
            return root / "bundle"

        def load(self, folder: Path) -> Any:
            return EwcText().load(folder, bench)

    task = {
        "agent": "scout",
        "name": "topic",
        "task": "topic",
        "kind": "classification",
        "max_length": 20_000,
        "holdout_share": 0.0,
    }
    rollouts, metrics, buffer = MemoryRollouts(), Metrics(), MemoryBuffer()
    store = MemoryServing(rollouts, [task])
    recorder = Recorder(store, None, metrics)
    gateway = Gateway(
        store=store, source=Source(), loader=Source(), recorder=recorder, metrics=metrics, instance="bench"
    )
    services = Services(
        gateway=gateway, metrics=metrics, outcomes=Outcomes(store, recorder, None, metrics),
        intake=Intake(buffer, Door(buffer)), roll_back=lambda agent, **_: {"agent": agent}, parts=(recorder, gateway),
        reports=Reports(rollouts.report, key=b"bench"), limits=Limits(),
    )  # fmt: skip
    tune_threads(services.limits.predict_threads)

    def swaps() -> None:
        version = 0
        while plan.recv() == "swap":
            version += 1
            row = rollouts.open(agent="scout", version=f"1.0.{version}", plan=Plan(), run_id=str(version))
            rollouts.promote_full(row.id, actor="bench", reason="bench")
            gateway.wake()
            while gateway.agents().get("scout", {}).get("champion") != f"1.0.{version}":
                time.sleep(0.001)
            plan.send(version)
        os._exit(0)

    threading.Thread(target=swaps, daemon=True).start()
    uvicorn.run(create_app(services), host="127.0.0.1", port=port, log_level="warning", access_log=False)


def ask(client: httpx.Client, text: str, key: str) -> tuple[float, int]:
    """Milliseconds and status of one request."""
    began = time.perf_counter()
    answer = client.post("/v1/predict", json={"agent": "scout", "task": "topic", "inputs": [text], "key": key})
    return (time.perf_counter() - began) * 1000, answer.status_code


def measure(url: str, texts: Sequence[str], callers: int, seconds: float) -> dict[str, Any]:
    """Callers ask without a pause for some seconds."""
    taken: list[float] = []
    failed = 0
    guard, deadline = threading.Lock(), time.monotonic() + seconds
    places = iter(range(10**9))

    def call() -> None:
        nonlocal failed
        mine, bad = [], 0
        with httpx.Client(base_url=url, timeout=30) as client:
            while time.monotonic() < deadline:
                place = next(places)
                milliseconds, status = ask(client, texts[place % len(texts)], f"k{place}")
                mine.append(milliseconds)
                bad += status != 200
        with guard:
            taken.extend(mine)
            failed += bad

    threads = [threading.Thread(target=call) for _ in range(callers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(taken, n=100)
    return {
        "requests": len(taken), "failed": failed, "per_second": round(len(taken) / (time.monotonic() - began), 1),
        "p50_ms": round(cuts[49], 2), "p95_ms": round(cuts[94], 2), "p99_ms": round(cuts[98], 2),
    }  # fmt: skip


def share_measured(keys: int = 100_000) -> dict[str, float]:
    """The split's error at each default step, in points."""
    found = {}
    for weight in (0.05, 0.25, 0.5):
        met = sum(arm_for(f"key-{number}", "scout", weight) is Arm.CANDIDATE for number in range(keys))
        found[f"{weight:.0%}"] = round(abs(met / keys - weight) * 100, 3)
    return found


def swaps_under_load(url: str, pipe: Any, texts: Sequence[str], count: int = 50) -> dict[str, Any]:
    """Fifty changes of the champion while four callers ask."""
    result: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: result.update(measure(url, texts, 4, count * 0.15 + 1)))
    thread.start()
    took = []
    for _ in range(count):
        began = time.perf_counter()
        pipe.send("swap")
        pipe.recv()
        took.append((time.perf_counter() - began) * 1000)
        time.sleep(0.05)
    thread.join()
    return {
        "swaps": count,
        "median_swap_ms": round(statistics.median(took), 1),
        "worst_swap_ms": round(max(took), 1),
        **result,
    }


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="JSON Lines with text and label")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = rows_of(given.data, 4000)
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        root = Path(name)
        trained(root / "bundle", rows[:400])
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(root, port, there), daemon=True)
        process.start()
        here.send("swap")
        here.recv()
        url = f"http://127.0.0.1:{port}"
        texts = [f"{number} {text}" for number in range(20) for text, _ in rows]
        measure(url, texts[-200:], 2, 2.0)  # warm up
        found: dict[str, Any] = {"machine": machine(), "split_error_points": share_measured()}
        place = 0
        for callers in (1, 2, 8):
            found[f"{callers} callers, new texts"] = measure(url, texts[place : place + 20_000], callers, given.seconds)
            place += 20_000
        found["1 caller, known texts"] = measure(url, [text for text, _ in rows[:20]], 1, given.seconds)
        found["swaps under load"] = swaps_under_load(url, here, texts[-20_000:])
        here.send("end")
        process.join(5)
    runs = [(name, run) for name, run in found.items() if isinstance(run, dict) and "p50_ms" in run]
    columns = ["requests", "failed", "per_second", "p50_ms", "p95_ms", "p99_ms"]
    table(
        "One gateway process", ["run", *columns], [[name, *(run[column] for column in columns)] for name, run in runs]
    )
    swaps = found["swaps under load"]
    print(f"\n{swaps['swaps']} swaps, median {swaps['median_swap_ms']} ms, worst {swaps['worst_swap_ms']} ms")
    print(f"error of the split in points at each step: {found['split_error_points']}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
