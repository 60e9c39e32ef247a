"""The drills of docs/operations.md on real stacks: what operating Perennial promises, done once in earnest.

    PYTHONPATH=include:. .venv/bin/python benchmarks/drill.py [--only keys alerts backup bundle upgrade] [--json] [--keep]

It starts two stacks of its own, one after the other, on free ports and in a folder of its own. "Staging" gets a champion and a
correction; its key is rotated while readers ask; things go wrong there and a webhook hears of them; it is backed up, lost, and restored.
"Production" takes over what staging exported, and is upgraded. Prints a table of step, asked, found, met; exit code 1 when a promise was
not kept. Needs some fifteen minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
from benchmarks.machine import machine

from perennial.demo.material import as_examples
from perennial.demo.plane import Plane, Traffic, Truth
from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from tests.stack_fixture import REPOSITORY, Stack, make_stack, wait_until

AGENT, TASK = "desk", "topic"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
PARTS = ("keys", "alerts", "backup", "bundle", "upgrade")
QUIET_HOURS = 0.03  # 108 s: a drill does not wait a day
PATIENCE = 600.0  # seconds for a training and its rollout on a machine with other work
FLEET = """
from perennial.fleet import TRUSTED, Agent, Gates, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="desk", owner="drill", tasks=(Task(name="topic"),), trainer=EwcText(), update_threshold={threshold},
    selection=Selection(
        batch=400, replay=60, holdout_share=0.4, holdout_max=200, trusted_sources=(*TRUSTED, "*/archive", "*/intern")
    ),
    gates=Gates(min_holdout=30, rollback_threshold=0.1, max_slice_drop=0.25, corrections_learned=0.5),
    rollout=Rollout(
        steps=(0.5, 1.0), step_seconds=1.0, min_samples=10, shadow_requests=10, max_latency_ratio=50.0, latency_slack_ms=2000.0
    ),
)
"""


@dataclass(frozen=True)
class Row:
    """One promise: what was asked of which step, what was found, and whether that met it."""

    step: str
    asked: str
    found: str
    met: bool
    at: float


class Sheet:
    """The rows so far; each is told on stderr as it comes, with the seconds since the start."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._began = time.monotonic()

    def check(self, step: str, asked: str, found: object, met: object) -> None:
        """Keep a row."""
        row = Row(step, asked, str(found), bool(met), round(time.monotonic() - self._began, 1))
        self.rows.append(row)
        print(
            f"{row.at:7.1f} s  {'met   ' if row.met else 'MISSED'}  {step}: {asked}: {found}",
            file=sys.stderr,
            flush=True,
        )

    @contextmanager
    def part(self, step: str) -> Iterator[None]:
        """A part of the drill that ends early is a miss, and the next one goes on."""
        try:
            yield
        except (
            AssertionError,
            OSError,
            LookupError,
            ValueError,
            httpx.HTTPError,
            psycopg.Error,
            RuntimeError,
        ) as error:
            self.check(step, "runs to its end", f"{type(error).__name__}: {str(error)[:600]}", False)


class Receiver:
    """Where the alerts go: a webhook that is away for the first message and takes every later one."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.refused = 0
        self.token = secrets.token_hex(8)
        owner = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                right = self.headers["Authorization"] == f"Bearer {owner.token}" and self.path == "/drill"
                status = 403 if not right else 503 if owner.refused == 0 else 200
                owner.refused += status != 200
                if status == 200:
                    owner.taken.append(body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What was told of a kind."""
        return [one for one in list(self.taken) if one["kind"] == kind]


@dataclass
class Site:
    """One deployment of the agent, and what the drill asks about it."""

    stack: Stack
    rows: tuple[Truth, ...]
    heard: Counter[bool] = field(default_factory=Counter)

    @property
    def plane(self) -> Plane:
        return Plane(self.stack.connections["data_plane_url"], AGENT)

    def run(self, *words: str, **env: str) -> tuple[int, str]:
        """A command's exit code and what it said."""
        done = self.stack.perennial(*words, check=False, seconds=900, **env)
        return done.returncode, (done.stdout + done.stderr).strip()

    def sql(self, text: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.stack.url(), autocommit=True) as connection:
            return connection.execute(text, values).fetchall()

    def served(self) -> str | None:
        """The champion that the gateway answers with."""
        with suppress(httpx.HTTPError):
            return (self.plane.agents()["agents"].get(AGENT) or {}).get("champion")
        return None

    def digests(self) -> dict[str, str]:
        return dict(self.sql("SELECT version, digest FROM perennial.versions WHERE agent = %s ORDER BY ordinal", AGENT))

    def row_ids(self, state: str = "%") -> set[Any]:
        """Every example that was ever acknowledged, or those in one state."""
        return {
            row[0] for row in self.sql("SELECT example_id FROM perennial.examples WHERE state::text LIKE %s", state)
        }

    def newest(self) -> str | None:
        return next(reversed(self.digests()), None)

    def answers(self, number: int = 25) -> list[tuple[str, Any]]:
        """Version and output for texts that the champion was not trained on."""
        said = [
            self.plane.predict(TASK, truth.text, key=f"probe-{index}") for index, truth in enumerate(probes(number))
        ]
        return [(one["version"], one["output"]) for one in said]

    def traffic(self) -> Traffic:
        """Readers who report what was true; what they ask is known, so it teaches nothing new."""
        return Traffic(
            self.plane, TASK, self.rows[:60], heard=lambda right, _: self.heard.update([right]), per_second=15.0
        )

    def correct(self, truth: Truth, priority: int = 2) -> dict[str, Any]:
        """One correction; the data plane's receipt."""
        wrong = next(label for label in EARLY if label != truth.label)
        return self.plane.correct(TASK, truth.text, wrong, truth.label, priority=priority, source_id="editor")

    def idle(self) -> bool:
        """Nothing trains, nothing is due, no rollout is open."""
        busy = self.sql(
            "SELECT 1 FROM perennial.jobs WHERE status IN ('validating', 'training', 'evaluating')"
            " UNION ALL SELECT 1 FROM perennial.rollouts WHERE state IN ('pending', 'shadow', 'canary')"
            " UNION ALL SELECT 1 FROM perennial.examples WHERE state IN ('raw', 'ready') AND priority >= 2"
        )
        return not busy and self.served() == self.newest()

    def settle(self) -> None:
        """Wait until nothing goes on, with readers, since a rollout needs them."""
        with self.traffic():
            wait_until("the deployment to be idle", self.idle, seconds=PATIENCE, every=1.0)

    def learn(self, truth: Truth) -> tuple[str, float]:
        """Correct something and wait until a new version that learned it serves; version and seconds."""
        before, began = self.newest(), time.monotonic()
        self.correct(truth)
        with self.traffic():
            wait_until(
                "a corrected version to serve",
                lambda: self.newest() != before and self.idle(),
                seconds=PATIENCE,
                every=0.5,
            )
        return str(self.newest()), time.monotonic() - began

    def mlflow_versions(self) -> list[str]:
        base = self.stack.connections["mlflow_url"]
        found = httpx.get(
            f"{base}/api/2.0/mlflow/model-versions/search", params={"filter": f"name='{AGENT}'"}, timeout=60
        )
        return sorted(one["version"] for one in found.raise_for_status().json().get("model_versions", []))

    def runs(self, dag: str) -> dict[str, str]:
        """Airflow's runs of a DAG: id and state."""
        with self.stack.airflow() as airflow:
            found = airflow.get(f"/api/v2/dags/{dag}/dagRuns", params={"limit": 100}).raise_for_status().json()
        return {run["dag_run_id"]: run["state"] for run in found["dag_runs"]}

    def pause_training(self) -> None:
        """What it serves comes from elsewhere: without this the night would train on the rows that wait here."""
        with self.stack.airflow() as airflow:
            path = f"/api/v2/dags/train_{AGENT}"
            wait_until(
                "the DAG of the agent", lambda: airflow.get(path).status_code == 200, seconds=PATIENCE, every=1.0
            )
            airflow.patch(path, json={"is_paused": True}).raise_for_status()

    def trigger(self, dag: str, **conf: Any) -> str:
        """Start a run and wait for its end; its state."""
        with self.stack.airflow() as airflow:
            answer = airflow.post(
                f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None, "conf": conf}
            ).raise_for_status()
            path = f"/api/v2/dags/{dag}/dagRuns/{answer.json()['dag_run_id']}"

            def ended() -> str | None:
                state = airflow.get(path).raise_for_status().json()["state"]
                return str(state) if state in {"success", "failed"} else None

            return str(wait_until(f"the run of {dag}", ended, seconds=PATIENCE, every=1.0))


def probes(number: int) -> tuple[Truth, ...]:
    return truths(901, number)


def truths(seed: int, number: int, period: float = 0.2, topics: tuple[str, ...] = EARLY) -> tuple[Truth, ...]:
    """Generated articles with their topic."""
    found = NewsStream(seed).articles(number, period=period, topics=topics)
    return tuple(Truth(text=one.text, label=one.true_topic) for one in found)


def site(root: Path, name: str, *, seed: int, threshold: int, **env: str) -> Site:
    """A deployment that is not started yet, with a fleet of one agent."""
    made = make_stack(PERENNIAL_ALERT_QUIET_HOURS=str(QUIET_HOURS), **env)
    shutil.rmtree(made.home.parent, ignore_errors=True)
    fleet = root / f"{name}-fleet"
    fleet.mkdir()
    (fleet / "desk.py").write_text(FLEET.format(threshold=threshold))
    home = root / name
    places = {
        "PERENNIAL_HOME": str(home),
        "PERENNIAL_FLEET_FOLDER": str(fleet),
        "PYTHONPATH": f"{REPOSITORY / 'include'}",
    }
    return Site(stack=replace(made, home=home, env=made.env | places), rows=truths(seed, 280, period=0.1))


@dataclass
class Drill:
    """The parts in order; each leaves behind what the next one needs."""

    root: Path
    sheet: Sheet
    staging: Site
    production: Site
    bundles: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def up(self, where: Site, name: str) -> None:
        began = time.monotonic()
        code, said = where.run("up")
        self.sheet.check(
            name, "`perennial up`", f"{time.monotonic() - began:.0f} s" if not code else said[-600:], not code
        )
        assert not code, "nothing can be drilled without a stack"

    def send_rows(self, where: Site) -> None:
        """The data plane hears of a new agent within seconds."""
        rows = as_examples(TASK, where.rows, source_id="archive")

        def sent() -> bool:
            with suppress(Exception):  # it says 422 until it knows the agent
                return bool(where.plane.examples(rows))
            return False

        wait_until("the data plane to know the agent", sent, seconds=120, every=1.0)

    def begin(self) -> None:
        """Staging: a champion, and a version that learned a correction; both exported."""
        where = self.staging
        self.up(where, "staging")
        began = time.monotonic()
        self.send_rows(where)
        wait_until("the first champion", lambda: where.served() == "1.0.0", seconds=PATIENCE, every=1.0)
        self.sheet.check("staging", "a first champion", f"1.0.0 after {time.monotonic() - began:.0f} s", True)
        version, seconds = where.learn(truths(77, 1, period=0.4)[0])
        self.sheet.check("staging", "a correction becomes a served version", f"{version} after {seconds:.0f} s", True)
        shutil.copyfile(where.stack.home / "keys" / "signing.pub", self.root / "staging.pub")
        for one in ("1.0.0", version):
            file = self.root / f"desk-{one}.tar"
            code, said = where.run("bundle", "export", AGENT, one, "--to", str(file))
            self.sheet.check("bundle", f"export of {one}", said.replace(str(self.root), "")[-200:], not code)
            self.bundles[one] = file
        self.digests = where.digests()

    def keys(self) -> None:
        """Rotate while readers ask; what the old key signed serves on, what comes next is signed by the new one."""
        where, step = self.staging, "keys"
        where.settle()
        before, champion = where.answers(), where.served()
        with where.traffic() as readers:
            began = time.monotonic()
            code, said = where.run("keys", "rotate", "--reason", "drill")
            took = time.monotonic() - began
            time.sleep(3.0)
        self.sheet.check(step, "`keys rotate` while serving", f"{took:.0f} s; {said[-120:]}", not code)
        self.sheet.check(
            step,
            "no request fails",
            f"{readers.answered} answered, {readers.failed} failed",
            readers.answered and not readers.failed,
        )
        self.sheet.check(step, "the same answers", champion, where.answers() == before)
        listed = json.loads(where.run("keys", "list", "--json")[1])
        self.sheet.check(step, "the old key is listed as retired", f"{len(listed)} keys", len(listed) == 2)
        code, said = where.run("verify", AGENT, str(champion))
        self.sheet.check(step, f"{champion} of the old key verifies", said.splitlines()[-1][:120], not code)
        version, seconds = where.learn(truths(78, 1, period=0.4)[0])
        code, said = where.run("verify", AGENT, version)
        self.sheet.check(
            step,
            "the new key's version is served",
            f"{version} after {seconds:.0f} s",
            not code and where.served() == version,
        )

    def alerts(self) -> None:
        """A failure, a hold and silence are told once over the connection; then all is over."""
        where, step, hook = self.staging, "alerts", Receiver()
        try:
            where.settle()
            self._connect(where, hook)
            broken = where.stack.fleet / "broken.py"
            broken.write_text("AGENT = (\n")
            state = where.trigger("fleet_check")
            self.sheet.check(step, "planted: a run that fails", f"fleet_check {state}", state == "failed")
            self._poison(where)
            for kind in ("failure", "hold", "quiet"):
                began = time.monotonic()
                wait_until(f"an alert of {kind}", lambda kind=kind: hook.of(kind), seconds=400, every=1.0)
                self.sheet.check(
                    step,
                    f"{kind} is told",
                    f"{hook.of(kind)[0]['text'][:110]} ({time.monotonic() - began:.0f} s later)",
                    True,
                )
            self.sheet.check(
                step,
                "a message that the webhook refused is told again",
                f"{hook.refused} refused, then taken",
                hook.refused,
            )
            told = len(hook.taken)
            where.trigger("alerts")
            where.trigger("alerts")
            self._told_once(where, hook, f"{told} told, two more looks")
            broken.unlink()
            state = where.trigger("fleet_check")
            began = time.monotonic()
            version, _ = where.learn(truths(79, 1, period=0.4)[0])
            wait_until("every alert to be over", lambda: where.run("alerts")[0] == 0, seconds=300, every=5.0)
            self.sheet.check(
                step,
                "over once mended",
                f"fleet_check {state}, {version} passed, a row came: nothing is open after {time.monotonic() - began:.0f} s",
                True,
            )
            self._told_once(where, hook, "after the recovery")
        finally:
            hook.stop()
            (where.stack.fleet / "broken.py").unlink(missing_ok=True)

    def _connect(self, where: Site, hook: Receiver) -> None:
        file = self.root / "alerts.yaml"
        file.write_text(
            "airflow:\n  connections:\n    - conn_id: perennial_alerts\n      conn_type: http\n      conn_host: 127.0.0.1\n"
            f"      conn_port: {hook.port}\n      conn_schema: http\n      conn_password: ${{DRILL_TOKEN}}\n"
            "      conn_extra: {path: /drill}\n"
        )
        code, said = where.run("airflow-settings", "apply", str(file), DRILL_TOKEN=hook.token)
        self.sheet.check("alerts", "the connection `perennial_alerts` is entered", said[-300:], not code)

    def _poison(self, where: Site) -> None:
        stream = truths(55, 900, period=0.5)
        victims = [Truth(text=one.text, label=EARLY[1]) for one in stream if one.label == EARLY[0]][:150]
        # some honest rows beside them: a batch of one label alone is stopped before a gate sees it
        flipped = [*victims, *[one for one in stream if one.label == EARLY[2]][:30]]
        where.plane.examples(as_examples(TASK, flipped, source_id="intern", importance_score=1.0))

        def given_up() -> list[Any]:  # refused twice, such rows wait for a person
            return where.sql("SELECT 1 FROM perennial.examples WHERE agent = %s AND state = 'held' LIMIT 1", AGENT)

        with where.traffic():
            wait_until("the gates to refuse the poison twice", given_up, seconds=PATIENCE, every=1.0)
        holds = where.sql("SELECT count(*) FROM perennial.gate_reports WHERE agent = %s AND action = 'hold'", AGENT)[0][
            0
        ]
        self.sheet.check("alerts", f"planted: {len(victims)} flipped labels", f"the gates held {holds} times", holds)

    def _told_once(self, where: Site, hook: Receiver, when: str) -> None:
        raised = [one["id"] for one in json.loads(where.run("alerts", "--over", "--json")[1]) if one["delivered_at"]]
        told = Counter(one["id"] for one in hook.taken)
        twice = [one for one, times in told.items() if times > 1]
        self.sheet.check(
            "alerts",
            f"each told once ({when})",
            f"{len(told)} causes told, {len(twice)} twice",
            not twice and set(told) >= set(raised),
        )

    def backup(self) -> None:
        """Back up, lose everything, restore: the same champions, answers, runs and rows; and it goes on learning."""
        where, step, folder = self.staging, "backup", self.root / "backup"
        where.settle()
        champion, before = where.served(), where.answers()
        known = {
            "digests": where.digests(),
            "MLflow's versions": where.mlflow_versions(),
            "rows": where.row_ids(),
            "trained rows": where.row_ids("trained"),
        }
        runs = {dag: set(where.runs(dag)) for dag in ("train_desk", "rollout_desk")}
        began = time.monotonic()
        code, said = where.run("backup", str(folder))
        self.sheet.check(
            step,
            "`perennial backup` while it serves",
            f"{time.monotonic() - began:.0f} s; {said.splitlines()[0].replace(str(self.root), '')}",
            not code,
        )
        late = truths(80, 3, period=0.4)
        for truth in late:
            where.correct(truth, priority=1)
        where.run("down")
        (self.root / "lost").mkdir()
        shutil.move(where.stack.home, self.root / "lost")
        shutil.move(where.stack.fleet, self.root / "lost")
        fresh, fleet = self.root / "restored", self.root / "restored-fleet"
        shutil.copytree(folder / "fleet", fleet)
        env = where.stack.env | {"PERENNIAL_HOME": str(fresh), "PERENNIAL_FLEET_FOLDER": str(fleet)}
        where = self.staging = Site(stack=replace(where.stack, home=fresh, env=env), rows=where.rows)
        began = time.monotonic()
        code, said = where.run("restore", str(folder))
        self.sheet.check(
            step,
            "`perennial restore` into a fresh home",
            f"{time.monotonic() - began:.0f} s; {said.splitlines()[0][:200] if said else ''}",
            not code,
        )
        self.up(where, "restored")
        wait_until("the champion to be served", lambda: where.served() == champion, seconds=120, every=0.5)
        after = {
            "digests": where.digests(),
            "MLflow's versions": where.mlflow_versions(),
            "rows": where.row_ids(),
            "trained rows": where.row_ids("trained"),
        }
        for name, value in known.items():
            self.sheet.check(step, f"the same {name}", len(value), after[name] == value)
        self.sheet.check(
            step, "the gateway answers the same", f"{champion}, {len(before)} texts", where.answers() == before
        )
        lost = {dag: runs[dag] - set(where.runs(dag)) for dag in runs}
        self.sheet.check(
            step,
            "Airflow knows its runs",
            f"{sum(map(len, runs.values()))} runs, {sum(map(len, lost.values()))} lost",
            not any(lost.values()),
        )
        code, said = where.run("audit", "verify")
        self.sheet.check(step, "`perennial audit verify`", said.splitlines()[0][:120], not code)
        self._late(where, late)

    def _late(self, where: Site, late: Sequence[Truth]) -> None:
        """What was acknowledged after the backup is gone, and may be sent again; what was before it is known."""
        step = "backup"
        again = receipt(where.plane.examples(as_examples(TASK, where.rows[:1], source_id="archive")))
        self.sheet.check(step, "a row from before it is known already", again, again == "duplicate")
        receipts = {receipt(where.correct(truth, priority=1)) for truth in late}
        self.sheet.check(
            step, "those from after it can be sent again", receipts, not any("duplicate" in one for one in receipts)
        )
        version, seconds = where.learn(truths(81, 1, period=0.4)[0])
        waiting = where.sql("SELECT count(*) FROM perennial.examples WHERE correction AND state <> 'trained'")[0][0]
        self.sheet.check(
            step,
            "it trains, signs with its new key and serves",
            f"{version} after {seconds:.0f} s; {waiting} corrections wait",
            where.run("verify", AGENT, version)[0] == 0,
        )
        said = where.run("alerts")[1]
        wrong = [line for line in said.splitlines() if "alerts" in line]
        self.sheet.check(
            step,
            "the DAG `alerts` runs although the key of Airflow's connections is gone",
            wrong or "no failed run",
            not wrong,
        )
        hook = Receiver()
        try:
            self._connect(where, hook)
        finally:
            hook.stop()

    def bundle(self) -> None:
        """Production takes over what staging exported: nothing unsigned, nothing ungated, nothing trained."""
        where, step = self.production, "bundle"
        self.up(where, "production")
        where.pause_training()
        self.send_rows(where)
        first, second = self.bundles
        told = ("--reason", "drill")
        code, said = where.run("bundle", "import", str(self.bundles[first]), *told)
        self.sheet.check(
            step, "refused without a trusted sender", said[-160:], code and "PERENNIAL_TRUSTED_SENDERS" in said
        )
        strangers, senders = self.root / "strangers", self.root / "senders"
        strangers.mkdir()
        senders.mkdir()
        shutil.copyfile(where.stack.home / "keys" / "signing.pub", strangers / "stranger.pub")
        shutil.copyfile(self.root / "staging.pub", senders / "staging.pub")
        code, said = where.run(
            "bundle", "import", str(self.bundles[first]), *told, PERENNIAL_TRUSTED_SENDERS=str(strangers)
        )
        self.sheet.check(step, "refused under another's key", said[-160:], code and "no trusted sender" in said)
        bad = self.root / "tampered.tar"
        tamper(self.bundles[first], bad)
        code, said = where.run("bundle", "import", str(bad), *told, PERENNIAL_TRUSTED_SENDERS=str(senders))
        self.sheet.check(step, "refused when tampered", said[-160:], code and not where.digests())
        self._take(where, first, senders)
        with where.traffic():
            wait_until("production to serve it", lambda: where.served() == where.newest(), seconds=PATIENCE, every=1.0)
        self._take(where, second, senders)

    def _take(self, where: Site, version: str, senders: Path) -> None:
        step, began = "bundle", time.monotonic()
        code, said = where.run(
            "bundle",
            "import",
            str(self.bundles[version]),
            "--reason",
            "drill",
            "--json",
            PERENNIAL_TRUSTED_SENDERS=str(senders),
        )
        self.sheet.check(
            step,
            f"import of staging's {version}, by the gates here",
            f"{time.monotonic() - began:.0f} s; {said[-300:]}",
            not code,
        )
        ours = json.loads(said)["version"]
        manifest = where.sql("SELECT manifest FROM perennial.versions WHERE agent = %s AND version = %s", AGENT, ours)[
            0
        ][0]
        origin = manifest.get("origin") or {}
        self.sheet.check(
            step, "it names its origin", origin.get("version"), origin.get("digest") == self.digests[version]
        )
        trained = [run for run, state in where.runs("train_desk").items() if state == "success"]
        self.sheet.check(step, "never retrained", f"{len(trained)} trainings here", not trained)

    def rollout_of_import(self) -> None:
        """The second import meets the champion here in a canary, by its DAG."""
        where, step = self.production, "bundle"
        with where.traffic():
            wait_until(
                "production to serve the second", lambda: where.served() == where.newest(), seconds=PATIENCE, every=1.0
            )

        def brought() -> dict[str, str]:
            return {run: state for run, state in where.runs("rollout_desk").items() if run.startswith("import__")}

        wait_until("its runs to end", lambda: "running" not in brought().values(), seconds=60)
        rows = where.sql("SELECT version, state::text FROM perennial.rollouts WHERE agent = %s ORDER BY id", AGENT)
        self.sheet.check(
            step,
            "canary and full by `rollout_desk`",
            f"{brought()}, {rows}",
            list(brought().values()) == ["success"] * 2,
        )
        code, said = where.run("audit", "verify")
        self.sheet.check(step, "both ends are in a sound audit", said.splitlines()[0][:120], not code)

    def upgrade(self) -> None:
        """A newer Perennial, with one more migration: shown, refused while a rollout is open, applied afterwards."""
        where, step = self.production, "upgrade"
        code, said = where.run("upgrade", "--check")
        self.sheet.check(step, "`upgrade --check`: nothing to apply", "; ".join(said.splitlines()), not code)
        newer = self.root / "newer"
        shutil.copytree(REPOSITORY / "include", newer, ignore=shutil.ignore_patterns("__pycache__"))
        name = "9999_drill.sql"
        (newer / "perennial" / "storage" / "migrations" / name).write_text(
            "COMMENT ON SCHEMA perennial IS 'drilled';\n"
        )
        code, said = where.run("upgrade", "--check", PYTHONPATH=str(newer))
        self.sheet.check(
            step, "`--check` of a newer version names what it brings", said.splitlines()[0], code == 1 and name in said
        )
        open_rollout = wait_until(
            "an open rollout",
            lambda: where.sql(
                "SELECT version, state::text FROM perennial.rollouts WHERE state IN ('pending', 'shadow', 'canary')"
            ),
            seconds=300,
        )
        code, said = where.run("upgrade", "--reason", "drill", PYTHONPATH=str(newer))
        self.sheet.check(
            step, f"refused while {open_rollout[0]} is open", said.splitlines()[-1][:160], code and "rollout" in said
        )
        self.rollout_of_import()
        began = time.monotonic()
        code, said = where.run("upgrade", "--reason", "drill", PYTHONPATH=str(newer))
        self.sheet.check(
            step,
            "applied once it is over",
            f"{time.monotonic() - began:.0f} s; {said.splitlines()[-1][:120]}",
            not code,
        )
        code, said = where.run("upgrade", "--check", PYTHONPATH=str(newer))
        self.sheet.check(step, "nothing is left to apply", said.splitlines()[0], not code)


def receipt(answer: dict[str, Any]) -> str:
    """The status that the data plane gave one record."""
    return str(answer["results"][0]["status"] if "results" in answer else answer)


def tamper(file: Path, out: Path) -> None:
    """The same file with one byte of a weight changed."""
    content = bytearray(file.read_bytes())
    place = content.index(b"head.safetensors") + 1500  # past its header of 512 bytes
    content[place] ^= 1
    out.write_bytes(bytes(content))


def main() -> None:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--folder", type=Path, help="where homes and bundles lie; a new folder in /tmp when left out")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--keep", action="store_true", help="leave homes, logs and bundles")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an ended drill leaves no stack behind
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="perennial-drill-"))
    root.mkdir(exist_ok=True)
    sheet = Sheet()
    drill = Drill(
        root=root,
        sheet=sheet,
        staging=site(root, "staging", seed=31, threshold=50),
        # what it serves comes from staging
        production=site(root, "production", seed=32, threshold=100_000),
    )
    try:
        play(drill, arguments.only)
    finally:
        for place in (drill.staging, drill.production):
            place.run("down")
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)
    report(sheet, as_json=arguments.json)
    sys.exit(0 if sheet.rows and all(row.met for row in sheet.rows) else 1)


def play(drill: Drill, only: Sequence[str]) -> None:
    """Staging first, then production, each stopped when it is done."""
    parts: dict[str, Callable[[], None]] = {"keys": drill.keys, "alerts": drill.alerts, "backup": drill.backup}
    with drill.sheet.part("staging"):
        drill.begin()
        for name, part in parts.items():
            if name in only:
                with drill.sheet.part(name):
                    part()
    drill.staging.run("down")
    if len(drill.bundles) == 2 and {"bundle", "upgrade"} & set(only):
        with drill.sheet.part("bundle"):
            drill.bundle()
            with drill.sheet.part("upgrade"):
                (drill.upgrade if "upgrade" in only else drill.rollout_of_import)()


def report(sheet: Sheet, *, as_json: bool) -> None:
    """The table, or the rows as JSON."""
    if as_json:
        print(json.dumps({"machine": machine(), "rows": [asdict(row) for row in sheet.rows]}, indent=1))
        return
    print(f"\n{machine()}\n\n| after s | step | asked | found | met |\n|---|---|---|---|---|")
    for row in sheet.rows:
        found = " ".join(row.found.split()).replace("|", "/")
        print(f"| {row.at:.0f} | {row.step} | {row.asked} | {found} | {'yes' if row.met else 'NO'} |")


if __name__ == "__main__":
    main()
