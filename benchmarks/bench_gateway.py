"""The gateway with a real model: what it adds to the model, MLflow's server beside it, swaps under load, a laggard.

    PYTHONPATH=include:. python benchmarks/bench_gateway.py [--data FILE.jsonl] [--seconds 5] [--rounds 4] [--swaps 1000] [--json OUT]

Trains a small model on generated news (or on a JSON Lines file with ``text`` and ``label``), serves it with uvicorn on a free
port in a process of its own, with stores in memory, and asks as agents do. ``mlflow models serve`` serves the same signed bundle
beside it, and the two are asked in turn. Every text is new. Absolute figures move with the machine and its load; the ratios,
taken in alternate short rounds, move less. About six minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

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


def trained(root: Path, rows: Sequence[tuple[str, str]]) -> Path:
    """A signed bundle, made as a release is, with one task by ``ewc_text`` on the bundled encoder; its folder."""
    from perennial.domain.example import TrainingRow
    from perennial.domain.model import TaskBatch, Workbench
    from perennial.domain.words import Mode, TaskKind
    from perennial.registry.bundle import assemble
    from perennial.registry.signing import sign
    from perennial.trainers.bases import LocalBaseStore
    from perennial.trainers.ewc_text import EwcText
    from tests.unit.registry.samples import PASSWORD, REPORT, Keys, manifest

    out = root / "candidate" / "tasks" / "topic"
    out.mkdir(parents=True)
    new = tuple(TrainingRow(example_id=uuid4(), task="topic", text=text, label=label) for text, label in rows)
    batch = TaskBatch(
        agent="scout", task="topic", kind=TaskKind.CLASSIFICATION, labels=tuple(sorted({label for _, label in rows})),
        new=new, replay=(), mode=Mode.ONLINE,
    )  # fmt: skip
    EwcText().fit(batch, None, out, seed=7, bench=Workbench(bases=LocalBaseStore(folder=root / "home" / "bases")))
    keys = Keys.make(root)
    folder = assemble(out.parent, manifest(root / "candidate"), REPORT, root / "bundle")
    sign(folder, keys.private, PASSWORD)
    return folder


class Laggard:
    """Answers the probe of its loading at once, and everybody else after ten seconds."""

    def __init__(self) -> None:
        self._asked = 0

    def predict(self, texts: Sequence[str]) -> list[Any]:
        from perennial.domain.model import Prediction

        self._asked += 1
        if self._asked > 1:
            time.sleep(10)
        return [Prediction(output="sports", confidence=0.9) for _ in texts]


def bench_of(root: Path, workers: int) -> Any:
    """The workbench of a gateway: its encoders, no memory of embeddings."""
    from perennial.domain.model import Workbench
    from perennial.serving.batching import BatchLimits
    from perennial.serving.encoders import ServingEncoders
    from perennial.trainers.bases import LocalBaseStore

    bases = LocalBaseStore(folder=root / "home" / "bases")
    return Workbench(bases=bases, encoders=ServingEncoders(BatchLimits(workers=workers)))


def changes(pipe: Any, rollouts: Any, gateway: Any) -> None:
    """In the gateway's process: change what is wanted when the pipe says so, and report when it serves."""
    from perennial.rollout.machine import Plan

    def until(agent: str, version: str) -> None:
        gateway.wake()
        while gateway.agents().get(agent, {}).get("champion") != version:
            time.sleep(0.001)

    def full(agent: str, version: str) -> None:
        row = rollouts.open(agent=agent, version=version, plan=Plan(), run_id=f"{agent} {version}")
        rollouts.promote_full(row.id, actor="bench", reason="bench")
        until(agent, version)

    number = 0
    try:
        while (word := pipe.recv()) in {"swap", "laggard"}:
            number += 1
            if word == "laggard":
                full("analyst", "1.0.0")
            elif number % 5 == 0:  # a way back: what was champion before
                back = rollouts.serving("scout").previous
                rollouts.rollback("scout", back, actor="bench", reason="bench")
                until("scout", back)
            else:
                # a candidate that gets no share and is overtaken: it may answer nobody
                rollouts.open(agent="scout", version=f"1.{number}.0", plan=Plan(), run_id=f"unapproved {number}")
                gateway.wake()
                full("scout", f"1.{number}.1")
            pipe.send(number)
    finally:
        os._exit(0)  # the end of this process is what the other end of the pipe notices


def serve(root: Path, port: int, plan: Any) -> None:
    """The gateway's process: every version has the same files; ``plan`` tells it what to change."""
    import uvicorn

    from perennial.api.app import create_app
    from perennial.api.data_plane import tune_threads
    from perennial.api.intake import Intake
    from perennial.api.reports import Reports
    from perennial.api.services import Limits, Services
    from perennial.ingest.door import Door
    from perennial.ingest.memory import MemoryBuffer
    from perennial.rollout.memory import MemoryRollouts
    from perennial.serving.feedback import Outcomes
    from perennial.serving.gateway import Gateway
    from perennial.serving.memory import MemoryServing
    from perennial.serving.metrics import Metrics
    from perennial.serving.recorder import Recorder
    from perennial.trainers.ewc_text import EwcText

    limits = Limits()
    bench = bench_of(root, limits.predict_workers)

    class Source:
        def fetch(self, agent: str, version: str) -> Path:
            return root / ("bundle" if agent == "scout" else "laggard")

        def load(self, folder: Path) -> Any:
            return Laggard() if "laggard" in str(folder) else EwcText().load(folder, bench)

    (root / "laggard" / "tasks" / "topic").mkdir(parents=True)
    task = {"name": "topic", "task": "topic", "kind": "classification", "max_length": 20_000, "holdout_share": 0.0}
    tasks = [{**task, "agent": agent} for agent in ("scout", "analyst")]
    rollouts, metrics, buffer = MemoryRollouts(), Metrics(), MemoryBuffer()
    store = MemoryServing(rollouts, tasks)
    recorder = Recorder(store, None, metrics)
    gateway = Gateway(
        store=store, source=Source(), loader=Source(), recorder=recorder, metrics=metrics, instance="bench"
    )
    services = Services(
        gateway=gateway, metrics=metrics, outcomes=Outcomes(store, recorder, None, metrics),
        intake=Intake(buffer, Door(buffer)), roll_back=lambda agent, **_: {"agent": agent}, parts=(recorder, gateway),
        reports=Reports(rollouts.report, recorder.find, key=b"bench"), limits=limits,
    )  # fmt: skip
    tune_threads(limits.predict_workers)

    threading.Thread(target=changes, args=(plan, rollouts, gateway), daemon=True).start()
    uvicorn.run(create_app(services), host="127.0.0.1", port=port, log_level="warning", access_log=False)


def ours(text: str, key: str, agent: str = "scout") -> tuple[str, dict[str, Any]]:
    """A request of the gateway."""
    return "/v1/predict", {"agent": agent, "task": "topic", "inputs": [text], "key": key}


def mlflows(text: str, key: str) -> tuple[str, dict[str, Any]]:
    """The same request of MLflow's server."""
    return "/invocations", {"inputs": [text]}


class Caller:
    """One connection that stays open; as little work of its own as possible, since it shares the cores with what it measures."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path: str, body: dict[str, Any]) -> tuple[float, int, bytes]:
        """Milliseconds, status and body of one answer; ConnectionError when it is cut off."""
        sent = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
        began = time.perf_counter()
        self._socket.sendall(head.encode() + sent)
        told, content = self._head()
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", told)
        if length is None:
            raise SystemExit(f"an answer without a length: {told[:200]!r}")
        while len(content) < int(length[1]):
            content += self._more()
        return (time.perf_counter() - began) * 1000, int(told.split(b" ", 2)[1]), content

    def _head(self) -> tuple[bytes, bytes]:
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._more()
        head, _, rest = got.partition(b"\r\n\r\n")
        return head, rest

    def _more(self) -> bytes:
        got = self._socket.recv(65536)
        if not got:
            raise ConnectionError("the server closed the connection")
        return got


class Texts:
    """Texts that nobody asked before, handed to any thread."""

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        self._rows, self._guard, self._place = rows, threading.Lock(), 0

    def __call__(self) -> tuple[str, str]:
        """A text and a key."""
        with self._guard:
            self._place += 1
            place = self._place
        return f"{place} {self._rows[place % len(self._rows)][0]}", f"k{place}"


def measure(
    port: int, texts: Texts, callers: int, seconds: float, request: Callable[..., Any] = ours,
    look: Callable[[bytes], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Callers ask without a pause for some seconds."""
    taken: list[float] = []
    failed = 0
    guard, deadline = threading.Lock(), time.monotonic() + seconds

    def call() -> None:
        nonlocal failed
        mine, bad, caller = [], 0, Caller(port)
        while time.monotonic() < deadline:
            milliseconds, status, content = caller.ask(*request(*texts()))
            mine.append(milliseconds)
            bad += status != 200
            if look is not None and status == 200:
                look(content)
        with guard:
            taken.extend(mine)
            failed += bad

    threads = [threading.Thread(target=call) for _ in range(callers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not taken:
        raise SystemExit("no caller was answered")
    return {"taken": taken, "failed": failed, "seconds": time.monotonic() - began}


def summed(*rounds: dict[str, Any]) -> dict[str, Any]:
    """Rounds of one kind as one row."""
    taken = [value for one in rounds for value in one["taken"]]
    cuts = statistics.quantiles(taken, n=100)
    return {
        "requests": len(taken), "failed": sum(one["failed"] for one in rounds),
        "per_second": round(len(taken) / sum(one["seconds"] for one in rounds), 1),
        "p50_ms": round(cuts[49], 2), "p95_ms": round(cuts[94], 2), "p99_ms": round(cuts[98], 2),
    }  # fmt: skip


def above_the_model(root: Path, port: int, texts: Texts, seconds: float) -> dict[str, Any]:
    """The model asked directly and through the gateway, in turn, each time with a new text; medians and their difference."""
    import torch

    from perennial.trainers.ewc_text import EwcText

    torch.set_num_threads(1)
    model = EwcText().load(root / "bundle" / "tasks" / "topic", bench_of(root, 1))
    caller, direct, through = Caller(port), [], []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        text, _ = texts()
        began = time.perf_counter()
        model.predict([text])
        direct.append((time.perf_counter() - began) * 1000)
        through.append(caller.ask(*ours(*texts()))[0])
    one, two = statistics.median(direct), statistics.median(through)
    return {
        "pairs": len(direct), "direct_ms": round(one, 2), "through_ms": round(two, 2), "above_ms": round(two - one, 2),
    }  # fmt: skip


@contextmanager
def mlflow_server(root: Path) -> Iterator[int]:
    """``mlflow models serve`` with the same bundle, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {
        **os.environ, "PERENNIAL_HOME": str(root / "home"), "PERENNIAL_VERIFY_KEY_FILE": str(root / "key.pub"),
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(root / "bundle"), "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with (root / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if Caller(port).ask(*mlflows("A short text.", ""))[1] == 200:
                    break
            except OSError:
                time.sleep(0.5)
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"MLflow's server did not start: {(root / 'mlflow.log').read_text()[-2000:]}")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def beside_mlflow(root: Path, port: int, texts: Texts, seconds: float, rounds: int) -> dict[str, Any]:
    """Sixteen callers of the one, then of the other, again and again."""
    callers = 16
    with mlflow_server(root) as other:
        measure(other, texts, callers, 2.0, mlflows)  # warm up
        measure(port, texts, callers, 2.0)
        mine, theirs = [], []
        for _ in range(rounds):
            theirs.append(measure(other, texts, callers, seconds, mlflows))
            mine.append(measure(port, texts, callers, seconds))
    ratios = [
        (len(one["taken"]) / one["seconds"]) / (len(two["taken"]) / two["seconds"])
        for one, two in zip(mine, theirs, strict=True)
    ]
    return {
        "gateway": summed(*mine), "mlflow": summed(*theirs), "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }  # fmt: skip


def with_a_laggard(port: int, pipe: Any, texts: Texts, seconds: float) -> dict[str, Any]:
    """Four callers of one agent, without and with sixteen callers of another whose model sleeps for ten seconds."""
    pipe.send("laggard")
    pipe.recv()
    before = measure(port, texts, 4, seconds)
    slow = [
        threading.Thread(target=lambda: Caller(port).ask(*ours("a", "k", agent="analyst")), daemon=True)
        for _ in range(16)
    ]
    for thread in slow:
        thread.start()
    time.sleep(0.5)
    during = measure(port, texts, 4, seconds)
    if not all(thread.is_alive() for thread in slow):
        raise SystemExit("the laggard answered before the measurement ended; take fewer --seconds")
    for thread in slow:
        thread.join()
    after = measure(port, texts, 4, seconds)
    return {"without": summed(before, after), "beside a laggard": summed(during)}


def share_measured(keys: int = 100_000) -> dict[str, float]:
    """The split's error at each default step, in points."""
    found = {}
    for weight in (0.05, 0.25, 0.5):
        met = sum(arm_for(f"key-{number}", "scout", weight) is Arm.CANDIDATE for number in range(keys))
        found[f"{weight:.0%}"] = round(abs(met / keys - weight) * 100, 3)
    return found


def swaps_under_load(port: int, pipe: Any, texts: Texts, count: int) -> dict[str, Any]:
    """Changes of the champion, each fifth of them back, while four callers ask and candidates without a share are loaded."""
    versions: Counter[str] = Counter()
    rounds: list[dict[str, Any]] = []
    took: list[float] = []
    ended = threading.Event()

    def look(content: bytes) -> None:
        versions[json.loads(content)["predictions"][0]["version"]] += 1

    def load() -> None:
        while not ended.is_set():
            rounds.append(measure(port, texts, 4, 1.0, look=look))

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(count):
        began = time.perf_counter()
        pipe.send("swap")
        pipe.recv()
        took.append((time.perf_counter() - began) * 1000)
    ended.set()
    thread.join()
    return {
        "swaps": count, "median_swap_ms": round(statistics.median(took), 1), "worst_swap_ms": round(max(took), 1),
        "versions_met": len(versions), "by_unapproved": sum(n for name, n in versions.items() if name.endswith(".0")),
        **summed(*rounds),
    }  # fmt: skip


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="JSON Lines with text and label")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement or round; 8 at most")
    parser.add_argument("--rounds", type=int, default=4, help="turns of the gateway and MLflow")
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = rows_of(given.data, 4000)
    found: dict[str, Any] = {"machine": machine(), "split_error_points": share_measured()}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        trained(root, rows[:120])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        here, there = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(root, port, there), daemon=True)
        process.start()
        for _ in range(2):  # so that there is a way back
            here.send("swap")
            here.recv()
        texts = Texts(rows)
        measure(port, texts, 2, 2.0)  # warm up
        found["above the model"] = above_the_model(root, port, texts, 2 * given.seconds)
        for callers in (1, 2, 8):
            found[f"{callers} callers"] = summed(measure(port, texts, callers, given.seconds))
        found["16 callers, in turn"] = beside_mlflow(root, port, texts, given.seconds, given.rounds)
        found["laggard"] = with_a_laggard(port, here, texts, min(8.0, given.seconds))
        found["swaps under load"] = swaps_under_load(port, here, texts, given.swaps)
        here.send("end")
        process.join(5)
    shown(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def shown(found: dict[str, Any]) -> None:
    """Print the tables."""
    beside = found["16 callers, in turn"]
    runs = [(name, run) for name, run in found.items() if isinstance(run, dict) and "p50_ms" in run]
    runs += [(f"16 callers, {name}", beside[name]) for name in ("gateway", "mlflow")]
    runs += [(f"4 callers, {name}", run) for name, run in found["laggard"].items()]
    columns = ["requests", "failed", "per_second", "p50_ms", "p95_ms", "p99_ms"]
    table(
        "One gateway process", ["run", *columns], [[name, *(run[column] for column in columns)] for name, run in runs]
    )
    swaps, above = found["swaps under load"], found["above the model"]
    print(
        f"\nmodel alone {above['direct_ms']} ms, through the gateway {above['through_ms']} ms: {above['above_ms']} ms above it"
        f"\n16 callers: {beside['ratio']} times MLflow's predictions per second (by round {beside['ratios']})"
        f"\n{swaps['swaps']} swaps, median {swaps['median_swap_ms']} ms, worst {swaps['worst_swap_ms']} ms: {swaps['failed']} failed of"
        f" {swaps['requests']} requests, {swaps['by_unapproved']} answers by an unapproved version"
        f"\nerror of the split in points at each step: {found['split_error_points']}"
    )


if __name__ == "__main__":
    main()
