"""kill -9 in the middle of everything: at each named point of the loop, so many times, on a stack of its own that nobody helps.

    PYTHONPATH=include:. python benchmarks/bench_faults.py [--count 10] [--points claim,train,...] [--json OUT]

Boots a stack in a folder of its own, makes a first champion from generated news and keeps readers asking. Then, round by round and for
each point: causes a training or a rollback, waits until exactly that point is being worked on, kills the process that works on it, and
takes no hand. It measures the seconds until the point is done again and until the loop has come to its end, and asks the books
(`tests/acceptance/faults.py`) whether anything was lost, trained twice or is half visible. Moments are drawn over the whole length of
each task as a run without a kill had it: early, middle and late. A kill that came too late, when the task had ended, does not count and
is repeated. About 30 s a kill on a quiet machine. Exits 1 when a promise is broken, a point got no kill, or one was not done again within
120 s.

Rounds come before points, so a run that is stopped has about equally many kills of each; `--json` is written after every kill, and
`--add FILE` goes on from such a file. `rollback` takes turns: the task `revert`, the task of `rollout_watch`, and `perennial rollback`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import psycopg
from benchmarks.machine import spread, table
from psycopg.rows import dict_row

from perennial import wiring
from perennial.demo.material import as_examples, generated
from perennial.demo.plane import Plane, RequiredActions, Traffic, Truth
from perennial.errors import PerennialError
from perennial.flows.rollout import is_settled
from perennial.registry.signing import verify_bundle
from tests.acceptance.faults import Books, Harm, violations
from tests.stack_fixture import Stack, make_stack, remove

AGENT, TASK = "scout", "news_classification"
TRAIN, ROLLOUT, WATCH = "train_scout", "rollout_scout", "rollout_watch"
MOST_SECONDS = 120.0  # until the point is done again
PATIENCE = 420.0  # until the loop has ended; longer is a violation
TRIES = 4  # kills that came too late, before a point is given up for this round
ROWS = 14  # of a training that is asked for
BATCH = "train batch"  # the task ``train`` when it moves the encoder too
LENGTH = {BATCH: 20.0, "claim": 0.8, "train": 3.0, "evaluate": 3.0, "register": 1.5, "canary": 2.5, "full": 0.8, "revert": 0.8, "look": 1.5,
          "fast_lane": 3.0, "rollback": 4.0}  # fmt: skip
FLEET = """
from perennial.fleet import TRUSTED, Agent, Gates, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="scout", owner="drills", max_buffer_size=20_000, trainer=EwcText(),
    tasks=(Task(name="news_classification"),),
    selection=Selection(batch=400, replay=100, holdout_share=0.25, holdout_max=200, trusted_sources=(*TRUSTED, "*/archive", "*/bench")),
    # gates are measured elsewhere; here as many candidates as possible must go on, also on a machine that does other things
    gates=Gates(min_holdout=60, rollback_threshold=0.3, max_slice_drop=0.6, corrections_learned=0.5, stress_rows=20),
    rollout=Rollout(
        steps=(0.3, 0.6, 1.0), step_seconds=1.0, min_samples=3, max_latency_ratio=80.0, latency_slack_ms=3000.0, shadow_requests=10,
        max_slice_drop=0.8, max_agreement_drop=0.3,
    ),
)
"""


@dataclass(kw_only=True)
class Strike:
    """One kill and what came of it. Seconds count from the kill; None: nothing had begun, so nothing was to resume."""

    point: str
    variant: str
    moment: float  # 0: at the start of the task, 1: at its end
    at: str = ""
    pid: int = 0
    task: str = ""
    inside: bool = False
    resumed: float | None = None
    ended: float | None = None
    note: str = ""
    broken: list[dict[str, str]] = field(default_factory=list)


@dataclass(kw_only=True)
class Target:
    """A running task of Airflow, and the process that works on it."""

    dag: str
    run: str
    task: str
    index: int
    attempt: int
    pid: int
    began: datetime

    @property
    def key(self) -> tuple[str, str, str, int]:
        return (self.dag, self.run, self.task, self.index)


class Late(Exception):
    """The task had ended before the kill; the kill does not count."""


class Drill:
    """A running stack with a champion and readers, and the hand that kills."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack, self.random = stack, random.Random(seed)
        self.ports = wiring.ports_from(stack.settings())
        where = urlsplit(stack.url())
        secrets = json.loads((stack.home / "secrets.json").read_text())
        self.airflow_db = psycopg.connect(
            host=where.hostname, port=where.port, dbname="airflow", user="airflow", password=secrets["airflow"],
            autocommit=True, row_factory=dict_row,
        )  # fmt: skip
        self.db = psycopg.connect(stack.url(), autocommit=True, row_factory=dict_row)
        self.plane = Plane(stack.connections["data_plane_url"], AGENT)
        self.airflow_url = stack.connections["airflow_url"]
        self.editor = RequiredActions(self.airflow_url, "editor", stack.logins["editor"])
        self.material = generated(seed, TASK)
        self.fresh: Iterator[Truth] = iter(self.material.drift)
        self.acknowledged: list[str] = []
        self.lengths = dict(LENGTH)
        self.asked = 0
        self.failed_before = 0

    # -- the loop, as agents and people use it

    def first_champion(self) -> None:
        """Send the start set and wait until its model serves."""

        def sent() -> bool:
            with suppress(PerennialError):
                self._keep(self.plane.examples(as_examples(TASK, self.material.start[:420], source_id="archive")))
                return True
            return False

        self.wait("the data plane to take the start set", sent, 60, every=1.0)
        self.wait("the first champion", lambda: self.champion() is not None and self.quiet(), 600)

    def correct(self, priority: int = 2) -> None:
        """One correction that nobody asked about before."""
        truth = next(self.fresh)
        self._keep(self.plane.correct(TASK, truth.text, "nothing", truth.label, priority=priority, source_id="bench"))

    def ask_for_training(self, mode: str) -> None:
        """Rows below the threshold, and a request for a training of them through the steps of the slow lane."""
        rows = [next(self.fresh) for _ in range(ROWS)]
        self._keep(self.plane.examples(as_examples(TASK, rows, source_id="bench")))
        self.trigger(TRAIN, {"mode": mode, "reason": "request", "force": True, "why": "a drill"})

    def trigger(self, dag: str, conf: dict[str, Any] | None = None) -> None:
        """Start a run as the machine's user."""
        with self.stack.airflow() as airflow:
            airflow.post(
                f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None, "conf": conf or {}}
            ).raise_for_status()

    def _keep(self, answer: Any) -> None:
        found: list[str] = []

        def walk(value: Any) -> None:
            if isinstance(value, dict):
                if isinstance(value.get("example_id"), str):
                    found.append(value["example_id"])
                for inner in value.values():
                    walk(inner)
            elif isinstance(value, list):
                for inner in value:
                    walk(inner)

        walk(answer)
        if not found:
            raise AssertionError(f"an answer of the data plane names no example: {str(answer)[:200]}")
        self.acknowledged += found

    # -- what goes on

    def sql(self, text: str, *values: Any) -> list[dict[str, Any]]:
        return self.db.execute(text, values).fetchall()

    def champion(self) -> str | None:
        found = self.sql("SELECT champion FROM perennial.serving WHERE agent = %s", AGENT)
        return found[0]["champion"] if found else None

    def quiet(self) -> bool:
        """Whether nothing trains, rolls out, is due or waits to be finished, and the gateway serves what the ledger says."""
        running = self.airflow_db.execute(
            "SELECT 1 FROM dag_run WHERE dag_id = ANY (%s) AND state IN ('queued', 'running') LIMIT 1",
            ([TRAIN, ROLLOUT],),
        ).fetchone()
        if running is not None or AGENT in self.ports.buffer.running():
            return False
        if self.ports.buffer.due(AGENT).due or self.ports.ledger.newest_unserved(AGENT) is not None:
            return False
        if any(not is_settled(self.ports, row) for row in self.ports.rollouts.reverted_lately(3600.0)):
            return False
        with suppress(httpx.HTTPError):
            entry = self.plane.agents()["agents"].get(AGENT) or {}
            return bool(entry.get("champion") == self.champion())
        return False

    def wait(self, what: str, ready: Callable[[], Any], seconds: float, every: float = 0.25) -> Any:
        """Until ``ready`` says something true; AssertionError after ``seconds``. A question for a person is answered with yes."""
        deadline, look = time.monotonic() + seconds, time.monotonic() + 20.0
        while not (found := ready()):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds:.0f} s for {what}")
            if time.monotonic() > look:
                look = time.monotonic() + 10.0
                with suppress(httpx.HTTPError):
                    for detail in self.editor.waiting(TRAIN):
                        self.editor.answer(detail, "Approve")
                        self.asked += 1
            time.sleep(every)
        return found

    def running(self, dag: str, task: str, since: datetime) -> Target | None:
        """The newest running task of that name (or name with a number) with its process."""
        row = self.airflow_db.execute(
            "SELECT dag_id, run_id, task_id, map_index, try_number, pid, start_date FROM task_instance "
            "WHERE dag_id = %s AND (task_id = %s OR task_id LIKE %s) AND state = 'running' AND pid IS NOT NULL "
            "AND start_date >= %s ORDER BY start_date DESC LIMIT 1",
            (dag, task, f"{task}\\_%", since),
        ).fetchone()
        if row is None:
            return None
        return Target(
            dag=row["dag_id"], run=row["run_id"], task=row["task_id"], index=row["map_index"], attempt=row["try_number"],
            pid=row["pid"], began=row["start_date"],
        )  # fmt: skip

    def instance(self, target: Target) -> dict[str, Any]:
        found = self.airflow_db.execute(
            "SELECT state, pid, try_number, start_date, end_date FROM task_instance "
            "WHERE (dag_id, run_id, task_id, map_index) = (%s, %s, %s, %s)",
            target.key,
        ).fetchone()
        assert found is not None
        return found

    def learn_lengths(self) -> None:
        """How long the tasks take here and now: the median of the last that ended well in their first try."""
        for name in LENGTH:
            deep = name == BATCH
            rows = self.airflow_db.execute(
                "SELECT extract(epoch FROM t.end_date - t.start_date)::float8 AS seconds "
                "FROM task_instance t JOIN dag_run r USING (dag_id, run_id) WHERE dag_id = ANY (%s) "
                "AND (t.task_id = %s OR t.task_id LIKE %s) AND t.state = 'success' AND t.try_number = 1 "
                "AND (coalesce(r.conf ->> 'mode', '') = 'batch') = %s ORDER BY t.end_date DESC LIMIT 5",
                ([TRAIN, ROLLOUT, WATCH], "train" if deep else name, "train\\_%" if deep else f"{name}\\_%", deep),
            ).fetchall()
            seconds = sorted(row["seconds"] for row in rows)
            if seconds:
                self.lengths[name] = seconds[(len(seconds) - 1) // 2]

    # -- the kill

    def hit(
        self, strike: Strike, dag: str, task: str, since: datetime, when: Callable[[Target], None] | None = None
    ) -> Target:
        """Wait for the task, let its share pass (or ``when`` decide), and kill its process. Late when it was over."""
        look = time.monotonic() + 10.0

        def found() -> Target | None:
            nonlocal look
            if (target := self.running(dag, task, since)) is None and time.monotonic() > look:
                look = time.monotonic() + 1.0
                if dag != WATCH and self.quiet():
                    raise Late(f"the loop ended without {task}")
            return target

        target: Target = self.wait(f"{task} to run", found, 240, every=0.01)
        if when is not None:
            when(target)
        else:
            length = self.lengths[BATCH if strike.variant == "batch" else task.rstrip("_0123456789")]
            passed = (datetime.now(UTC) - target.began).total_seconds()
            time.sleep(max(strike.moment * length - passed, 0.0))
        now = self.instance(target)
        strike.inside = (now["state"], now["pid"]) == ("running", target.pid) and psutil.pid_exists(target.pid)
        if not strike.inside:
            raise Late(f"{target.task} had ended")
        strike.task = target.task
        self.strike(strike, target.pid)
        after = self.wait("the kill to be noticed", lambda: self._ended(target), 180)
        if after["try_number"] == target.attempt and after["state"] in {"success", "skipped"}:
            strike.inside = False
            raise Late(f"{target.task} had said its last word")
        return target

    def strike(self, strike: Strike, pid: int) -> None:
        strike.pid, strike.at = pid, datetime.now(UTC).isoformat()
        os.kill(pid, signal.SIGKILL)

    def _ended(self, target: Target) -> dict[str, Any] | None:
        now = self.instance(target)
        return now if now["try_number"] != target.attempt or now["state"] != "running" else None

    def recovers(self, strike: Strike, target: Target) -> None:
        """Seconds until the task is done again, and until the loop has ended."""
        killed = datetime.fromisoformat(strike.at)
        over = {"success", "skipped", "failed", "upstream_failed", "removed"}
        done = self.wait(
            f"{target.task} to be done again",
            lambda: now if (now := self.instance(target))["state"] in over and now["end_date"] else None,
            PATIENCE,
        )
        strike.resumed = (done["end_date"] - killed).total_seconds()
        if done["state"] == "failed" and target.task != "look":
            strike.broken.append({"harm": Harm.LOST, "name": "the point was not done again", "subject": target.task})
        self.ends(strike)

    def ends(self, strike: Strike) -> None:
        """Seconds from the kill to the loop's end."""
        killed = datetime.fromisoformat(strike.at)
        strike.ended = (self.settled() - killed).total_seconds()

    def settled(self) -> datetime:
        """Wait for the loop's end, which must last a second; when it began."""
        while True:
            self.wait("the loop to end", self.quiet, PATIENCE)
            ended = datetime.now(UTC)
            time.sleep(1.0)
            if self.quiet():
                return ended

    # -- the books

    def books(self, traffic: Traffic) -> Books:
        """Everything that ``violations`` asks about, as it is now."""
        from mlflow import MlflowClient

        mlflow = MlflowClient(tracking_uri=self.stack.connections["mlflow_url"])
        stored = mlflow.search_model_versions(f"name = '{AGENT}'", max_results=1000)
        serving = self.ports.rollouts.serving(AGENT)
        failed, self.failed_before = traffic.failed - self.failed_before, traffic.failed
        return Books(
            acknowledged=frozenset(self.acknowledged),
            examples=self.sql(
                "SELECT example_id::text, state::text, model_version, job_id::text, reason, superseded_by::text "
                "FROM perennial.examples WHERE agent = %s", AGENT,
            ),
            jobs=self.sql("SELECT job_id::text, status::text, version FROM perennial.jobs WHERE agent = %s", AGENT),
            versions=self.sql("SELECT version, digest, job_id::text FROM perennial.versions WHERE agent = %s", AGENT),
            taught=[
                (row["version"], row["example_id"])
                for row in self.sql(
                    "SELECT version, unnest(ids)::text AS example_id FROM perennial.version_examples WHERE agent = %s AND role = 'new'",
                    AGENT,
                )
            ],
            store=[(one.tags.get("perennial.version", "?"), one.tags.get("perennial.digest", "?")) for one in stored],
            rollouts=self.sql("SELECT id, version, state, full_at FROM perennial.rollouts WHERE agent = %s", AGENT),
            history=self.sql(
                "SELECT job_id::text, version, rollback_triggered AS rollback FROM perennial.performance_history WHERE agent_name = %s",
                AGENT,
            ),
            moves=self.sql(
                "SELECT version, actor, reason FROM perennial.alias_moves WHERE agent = %s AND alias = 'champion'", AGENT
            ),
            audit=self.sql("SELECT actor, action, subject, detail FROM perennial.audit WHERE agent = %s ORDER BY id", AGENT),
            champion=serving.champion, candidate=serving.candidate,
            gateway=(self.plane.agents()["agents"].get(AGENT) or {}).get("champion"),
            aliases=self.ports.models.aliases(AGENT), genuine=self.verify(serving.champion), failed_requests=failed,
            workspaces=[folder.name for folder in (self.ports.settings.home / "work").glob("*")],
        )  # fmt: skip

    def verify(self, version: str | None) -> str:
        """What `perennial verify` would say against the champion's bundle; empty when it is genuine."""
        row = self.ports.ledger.version(AGENT, version) if version else None
        key = self.ports.settings.verify_key_file
        if row is None or key is None:
            return "no champion or no key"
        try:
            with tempfile.TemporaryDirectory() as room:
                folder, signature = self.ports.models.fetch(
                    AGENT, row.version, Path(room) / "fetched", digest=row.digest
                )
                verify_bundle(folder, signature, key, row, into=Path(room))
        except PerennialError as error:
            return str(error)
        return ""


# -- the points: each causes its run and kills in it


def claim(drill: Drill, strike: Strike, number: int) -> None:
    """The task that claims rows for a correction, every fourth a critical one."""
    drill.recovers(strike, in_correction(drill, strike, "claim", priority=3 if number % 4 == 3 else 2))


def fast_lane(drill: Drill, strike: Strike, number: int) -> None:
    """Everything from validate to gate of a correction."""
    drill.recovers(strike, in_correction(drill, strike, "fast_lane", priority=3 if number % 4 == 1 else 2))


def in_correction(drill: Drill, strike: Strike, task: str, *, priority: int = 2, when: Any = None) -> Target:
    """Kill one task of the training of a new correction."""
    since = datetime.now(UTC)
    drill.correct(priority)
    return drill.hit(strike, TRAIN, task, since, when)


def register(drill: Drill, strike: Strike, number: int) -> None:
    """The task that assembles, signs, publishes and records a version."""
    drill.recovers(strike, in_correction(drill, strike, "register"))


def sign(drill: Drill, strike: Strike, number: int) -> None:
    """Between the manifest and the signature of a bundle, which lie in the job's work folder."""
    work = drill.ports.settings.home / "work"
    found: list[Path] = []

    def unsigned(target: Target) -> None:
        until = time.monotonic() + 60.0
        while not found:
            found.extend(one for one in work.glob("*/*/release") if (one / "manifest.json").is_file())
            if time.monotonic() > until or not psutil.pid_exists(target.pid):
                raise Late("register ended without a bundle")
            time.sleep(0.001)
        over = time.monotonic() + strike.moment * 0.02
        while time.monotonic() < over and not signature().exists():
            time.sleep(0.001)
        if signature().exists():
            raise Late("it was signed already")

    def signature() -> Path:
        return found[0].with_name("release.sig")

    target = in_correction(drill, strike, "register", when=unsigned)
    strike.note = "unsigned when it died"
    drill.recovers(strike, target)


def train(drill: Drill, strike: Strike, number: int) -> None:
    """The training of the slow lane; every third moves the encoder too."""
    drill.recovers(strike, in_training(drill, strike, "train", "batch" if number % 3 == 2 else "online"))


def evaluate(drill: Drill, strike: Strike, number: int) -> None:
    """Champion and candidate on the same rows, slow lane."""
    drill.recovers(strike, in_training(drill, strike, "evaluate", "online"))


def in_training(drill: Drill, strike: Strike, task: str, mode: str) -> Target:
    """Kill one task of a training that was asked for."""
    since = datetime.now(UTC)
    drill.ask_for_training(mode)
    strike.variant = mode
    return drill.hit(strike, TRAIN, task, since)


def canary(drill: Drill, strike: Strike, number: int) -> None:
    """A step of the canary, the first and the second in turn."""
    since = datetime.now(UTC)
    drill.correct()
    strike.variant = f"step {1 + number % 2}"
    drill.recovers(strike, drill.hit(strike, ROLLOUT, f"canary_{1 + number % 2}", since))


def promote(drill: Drill, strike: Strike, number: int) -> None:
    """The task that makes the candidate the champion."""
    since = datetime.now(UTC)
    drill.correct()
    drill.recovers(strike, drill.hit(strike, ROLLOUT, "full", since))


def rollback(drill: Drill, strike: Strike, number: int) -> None:
    """The three ways back, in turn."""
    (by_task, by_watch, by_hand)[number % 3](drill, strike, number // 3)


def by_task(drill: Drill, strike: Strike, number: int) -> None:
    """A canary step is stopped by hand in Airflow; the task ``revert`` takes the candidate out and is killed."""
    strike.variant = "revert"
    since = datetime.now(UTC)
    drill.correct()
    step: Target = drill.wait("a canary", lambda: drill.running(ROLLOUT, "canary_1", since), 240, every=0.05)
    with drill.stack.airflow() as airflow:
        airflow.patch(
            f"/api/v2/dags/{ROLLOUT}/dagRuns/{step.run}/taskInstances/{step.task}", json={"new_state": "failed"}
        ).raise_for_status()
    drill.recovers(strike, drill.hit(strike, ROLLOUT, "revert", since))


def by_watch(drill: Drill, strike: Strike, number: int) -> None:
    """The champion turns bad in its bake; the task that puts its predecessor back is killed, every second time as it does."""
    strike.variant = "watch"
    drill.correct()
    drill.settled()
    bad = drill.champion()
    if not any(row.version == bad for row in drill.ports.rollouts.baking()):
        raise Late("nothing bakes")
    drill.plane.plant_fault(str(bad), "wrong", 1.0)
    try:
        time.sleep(10.0)  # what readers say of it
        since = datetime.now(UTC)
        drill.trigger(WATCH)

        def as_it_reverts(target: Target) -> None:
            while drill.champion() == bad:
                if not psutil.pid_exists(target.pid):
                    raise Late("the watch left it for its next look")
                time.sleep(0.001)

        target = drill.hit(strike, WATCH, "look", since, as_it_reverts if number % 2 else None)
        strike.note = "reverted when it died" if drill.champion() != bad else "not reverted when it died"
        drill.wait("the predecessor to come back", lambda: drill.champion() != bad, PATIENCE)
        drill.recovers(strike, target)
    finally:
        drill.plane.plant_fault(str(bad), "none", 0.0)


def by_hand(drill: Drill, strike: Strike, number: int) -> None:
    """`perennial rollback` itself dies: as the move is made, or anywhere before."""
    strike.variant = "command"
    drill.correct()
    drill.settled()
    before = drill.champion()
    if drill.ports.rollouts.previous_champion(AGENT) is None:
        raise Late("there is nothing to go back to")
    words = ["rollback", AGENT, "--actor", "drill", "--reason", f"drill {uuid4().hex[:8]}"]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "perennial.cli", *words], env=drill.stack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        if number % 2 == 0:
            while drill.champion() == before and process.poll() is None:
                time.sleep(0.0005)
            drill.lengths["rollback"] = time.monotonic() - began
        else:
            time.sleep(strike.moment * drill.lengths["rollback"])
        strike.inside = process.poll() is None
        if not strike.inside:
            raise Late("the command had ended")
        strike.task = "perennial rollback"
        drill.strike(strike, process.pid)
    finally:
        process.kill()
        process.wait()
    moved = drill.champion() != before
    strike.note = "moved when it died" if moved else "nothing was moved when it died"
    drill.ends(strike)
    if moved:
        strike.resumed = strike.ended
    elif drill.champion() != before:
        strike.broken.append(
            {"harm": Harm.HALF, "name": "a rollback came back after its death", "subject": str(before)}
        )


POINTS: dict[str, Callable[[Drill, Strike, int], None]] = {
    "claim": claim, "train": train, "evaluate": evaluate, "sign": sign, "register": register, "canary": canary, "promote": promote,
    "rollback": rollback, "fast_lane": fast_lane,
}  # fmt: skip


# -- the run


def main() -> int:
    """Kill, wait, ask the books; 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="kills per point that count")
    parser.add_argument("--points", default=",".join(POINTS), help="names, with commas between them")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--json", type=Path, help="facts of every kill; written after each")
    parser.add_argument("--add", type=Path, help="facts of an earlier run, to go on from")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no round after so many")
    chosen = parser.parse_args()
    names = [name for name in chosen.points.split(",") if name]
    unknown = [name for name in names if name not in POINTS]
    if unknown:
        parser.error(f"no point is named {', '.join(unknown)}; there are {', '.join(POINTS)}")
    strikes = [Strike(**one) for one in json.loads(chosen.add.read_text())] if chosen.add else []
    with deployment(chosen.seed + len(strikes)) as drill, readers(drill) as traffic:
        until = time.monotonic() + chosen.minutes * 60.0
        for number in range(chosen.count):
            for name in names:
                done = sum(one.inside for one in strikes if one.point == name)
                if done > number or time.monotonic() > until:
                    continue
                strikes += attempts(drill, traffic, name, number, chosen.count)
                if chosen.json:
                    chosen.json.write_text(json.dumps([asdict(one) for one in strikes], indent=1))
        print(drill.stack.perennial("verify", AGENT, str(drill.champion())).stdout)
        print(
            f"{traffic.answered} requests answered, {traffic.failed} failed; {drill.asked} questions answered by the script"
        )
    report(strikes, names)
    return 0 if kept(strikes, names) else 1


def attempts(drill: Drill, traffic: Traffic, name: str, number: int, count: int) -> list[Strike]:
    """Kills at one point until one counts; the others are kept too, as not in the task."""
    made: list[Strike] = []
    for _ in range(TRIES):
        moment = ((number * 7) % count + drill.random.random()) / count  # 7 spreads early and late over the rounds
        strike = Strike(point=name, variant="", moment=round(moment, 3))
        try:
            drill.learn_lengths()
            POINTS[name](drill, strike, number)
        except Late as late:
            strike.inside, strike.note = False, str(late)
            drill.settled()
        except (AssertionError, PerennialError, httpx.HTTPError) as error:
            strike.broken.append({"harm": Harm.HALF, "name": "it never came to its end", "subject": str(error)})
        strike.broken += [asdict(one) for one in violations(drill.books(traffic))]
        print(f"{datetime.now(UTC):%H:%M:%S} {told(strike)}", flush=True)
        if strike.pid or strike.broken:
            made.append(strike)
        if strike.inside or strike.broken:
            break
    return made


def told(strike: Strike) -> str:
    """One line about one kill."""
    seconds = ", ".join(
        f"{word} {value:.1f} s"
        for word, value in (("again", strike.resumed), ("end", strike.ended))
        if value is not None
    )
    broken = "; ".join(f"{one['harm']}: {one['name']} ({one['subject']})" for one in strike.broken)
    inside = "in the task" if strike.inside else "does not count"
    return f"{strike.point} {strike.variant} at {strike.moment:.2f}: {inside}; {seconds or '-'}; {strike.note or '-'}; {broken or 'whole'}"


def report(strikes: Sequence[Strike], names: Sequence[str]) -> None:
    """One row per point, and what was broken."""
    rows: list[tuple[object, ...]] = []
    for name in names:
        mine = [one for one in strikes if one.point == name]
        inside = [one for one in mine if one.inside]
        again = [one.resumed for one in inside if one.resumed is not None]
        ended = [one.ended for one in inside if one.ended is not None]
        harms = [sum(broken["harm"] == harm for one in mine for broken in one.broken) for harm in Harm]
        rows.append(
            (name, len(mine), len(inside), spread(again, 1) if again else "", spread(ended, 1) if ended else "", *harms)
        )
    header = ("point", "kills", "in the task", "resumed, s", "loop ended, s", *(harm.value for harm in Harm))
    table(f"{len(strikes)} times kill -9, nobody helped", header, rows)
    for one in strikes:
        for broken in one.broken:
            print(f"{one.point} {one.variant}: {broken['harm']}: {broken['name']}: {broken['subject']}")


def kept(strikes: Sequence[Strike], names: Sequence[str]) -> bool:
    """Whether every point was hit, came back in time, and nothing was broken."""
    hit = {one.point for one in strikes if one.inside}
    late = any((one.resumed or 0.0) > MOST_SECONDS for one in strikes if one.inside)
    return not late and not any(one.broken for one in strikes) and set(names) <= hit


@contextmanager
def readers(drill: Drill) -> Iterator[Traffic]:
    """A little steady traffic with outcomes."""
    drill.first_champion()
    url = drill.stack.connections["data_plane_url"]
    with Traffic(
        Plane(url, AGENT), TASK, drill.material.start[:150], heard=lambda *_: None, per_second=15.0
    ) as traffic:
        # once without a kill, to know how long things take
        drill.correct()
        drill.settled()
        drill.ask_for_training("online")
        time.sleep(3.0)
        drill.settled()
        drill.learn_lengths()
        print("typical seconds:", {name: round(value, 2) for name, value in drill.lengths.items()}, flush=True)
        found = violations(drill.books(traffic))
        if found:
            raise SystemExit(f"broken before any kill: {found}")
        yield traffic


@contextmanager
def deployment(seed: int) -> Iterator[Drill]:
    """A stack of its own with one agent, gone at the end."""
    stack = make_stack(PERENNIAL_FAULTS="1")
    for file in stack.fleet.glob("*.py"):
        file.unlink()
    (stack.fleet / "scout.py").write_text(FLEET)
    try:
        stack.perennial("up")
        yield Drill(stack, seed)
    finally:
        remove(stack)


if __name__ == "__main__":
    sys.exit(main())
