"""The loop on a running stack: a second agent by one file, concurrent corrections, and kills in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from tests.stack_fixture import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

TASK = "topic"
EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)
FLEET = """
from perennial.fleet import Agent, Gates, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="desk", owner="tests", tasks=(Task(name="topic"),), trainer=EwcText(),
    selection=Selection(batch=400, replay=60, holdout_share=0.4, holdout_max=200),
    # the machine that runs tests is busy, so a correction may cost more of the small holdout than in production
    gates=Gates(min_holdout=30, rollback_threshold=0.2, max_slice_drop=0.6, corrections_learned=0.5),
    rollout=Rollout(steps=(0.5, 1.0), step_seconds=1.0, min_samples=3, max_latency_ratio=50.0, latency_slack_ms=2000.0, shadow_requests=10),
)
"""


@dataclass
class Desk:
    """The second agent on the running stack, and what the tests ask about it."""

    stack: Stack
    airflow: httpx.Client
    plane: httpx.Client
    articles: list[Any]

    def sql(self, text: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.stack.url(), autocommit=True) as connection:
            return connection.execute(text, values).fetchall()  # type: ignore[arg-type]

    def champion(self) -> str | None:
        found = self.sql("SELECT champion FROM perennial.serving WHERE agent = 'desk'")
        return found[0][0] if found else None

    def predict(self, text: str, key: str) -> dict[str, Any]:
        body = {"agent": "desk", "task": TASK, "inputs": [text], "key": key}
        answer = self.plane.post("/v1/predict", json=body).raise_for_status()
        return dict(answer.json()["predictions"][0])

    def correct(self, text: str, label: str, priority: int = 2) -> None:
        body = {
            "agent_name": "desk", "task_type": TASK, "input_text": text, "incorrect_output": "nothing",
            "correct_output": label, "priority": priority,
        }  # fmt: skip
        self.plane.post("/v1/corrections", json=body).raise_for_status()

    def wait_served(self, version: str, seconds: float = 240) -> None:
        def served() -> bool:
            agents = self.plane.get("/v1/agents").json()["agents"]
            return bool((agents.get("desk") or {}).get("champion") == version)

        try:
            wait_until(f"the gateway to serve desk {version}", served, seconds=seconds)
        except AssertionError as error:
            notes = self.sql("SELECT status, note FROM perennial.jobs WHERE agent = 'desk' ORDER BY created_at")
            raise AssertionError(f"{error}; jobs: {notes}; rollouts: {self.runs('rollout_desk')[:1]}") from error

    def runs(self, dag: str, **wanted: Any) -> list[dict[str, Any]]:
        answer = self.airflow.get(
            f"/api/v2/dags/{dag}/dagRuns", params={"order_by": "-start_date", "limit": 50, **wanted}
        )
        return list(answer.raise_for_status().json()["dag_runs"])

    def task(self, dag: str, run: str, name: str) -> dict[str, Any] | None:
        answer = self.airflow.get(f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances").raise_for_status().json()
        return next((one for one in answer["task_instances"] if one["task_id"] == name), None)


class Readers:
    """Traffic with outcomes, so that rollouts have something to judge; survives a restart of the gateway."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.stop = desk, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Readers:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(30)

    def _run(self) -> None:
        number = 0
        while not self.stop.wait(0.05):
            article = self.desk.articles[number % 60]
            number += 1
            try:
                answer = self.desk.predict(article.text, f"reader-{number % 100}")
                body = {"prediction_id": answer["prediction_id"], "actual": answer["output"]}
                self.desk.plane.post("/v1/outcomes", json=body)
            except (httpx.HTTPError, KeyError):
                continue


@pytest.fixture(scope="module")
def desk(stack: Stack) -> Iterator[Desk]:
    """Add the agent's file to the running stack and wait for its first champion."""
    (stack.fleet / "desk.py").write_text(FLEET)
    articles = NewsStream(31).articles(
        340, period=0.1, topics=EARLY
    )  # a holdout of 20 rows a label, or no slice is measured
    with stack.airflow() as airflow, stack.plane() as plane:
        world = Desk(stack=stack, airflow=airflow, plane=plane, articles=articles)
        wait_until(
            "the DAG of the new file", lambda: airflow.get("/api/v2/dags/train_desk").status_code == 200, seconds=120
        )
        rows = [
            {"agent_name": "desk", "task_type": TASK, "input_text": row.text, "expected_output": row.true_topic, "uncertainty_score": 0.5}
            for row in articles
        ]  # fmt: skip

        def sent() -> bool:  # the data plane hears of the new agent within seconds
            return plane.post("/v1/examples", json=rows).status_code == 200

        wait_until("the data plane to know the agent", sent, seconds=60, every=1.0)
        world.wait_served("1.0.0", seconds=480)  # a machine that builds and tests at once is slow
        yield world
        (stack.fleet / "desk.py").unlink()


@pytest.mark.req("D3", "D4", "D7", "J72", "K27", "K59")
def test_a_second_agent_is_one_file(desk: Desk) -> None:
    assert desk.champion() == "1.0.0"
    (run,) = [run for run in desk.runs("train_desk") if run["state"] == "success" and run["note"]]
    assert "1.0.0 registered" in run["note"]
    assert desk.airflow.get("/api/v2/dags/rollout_desk").status_code == 200


@pytest.mark.req("D3", "J75")
def test_a_broken_file_leaves_the_others_running_and_is_named(desk: Desk) -> None:
    broken = desk.stack.fleet / "broken.py"
    broken.write_text("AGENT = (\n")
    try:
        started = (
            desk.airflow.post("/api/v2/dags/fleet_check/dagRuns", json={"logical_date": None}).raise_for_status().json()
        )

        def ended() -> str | None:
            run = desk.airflow.get(f"/api/v2/dags/fleet_check/dagRuns/{started['dag_run_id']}").json()
            return str(run["state"]) if run["state"] in {"failed", "success"} else None

        assert wait_until("fleet_check", ended, seconds=120) == "failed"
        note = desk.airflow.get(f"/api/v2/dags/fleet_check/dagRuns/{started['dag_run_id']}").json()["note"] or ""
        assert "broken.py:1" in note
        assert desk.airflow.get("/api/v2/dags/train_desk").status_code == 200
    finally:
        broken.unlink()


@pytest.mark.req("J33", "J42", "K42", "J76")
def test_ten_concurrent_corrections_are_all_trained_and_none_waits(desk: Desk) -> None:
    before = {run["dag_run_id"] for run in desk.runs("train_desk")}
    fresh = NewsStream(77).articles(10, period=0.4, topics=EARLY)
    with Readers(desk):
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda row: desk.correct(row.text, row.true_topic), fresh))

        def states() -> bool:
            rows = desk.sql(
                "SELECT state::text, count(*) FROM perennial.examples WHERE agent = 'desk' AND correction GROUP BY 1"
            )
            return dict(rows) == {"trained": 10}

        wait_until("all ten corrections to be trained", states, seconds=240, every=1.0)
        jobs = desk.sql("SELECT run_id FROM perennial.jobs WHERE agent = 'desk' AND example_count > 0")
        assert 1 <= len({job[0] for job in jobs} - before) <= 4
        newest = desk.sql("SELECT version FROM perennial.versions WHERE agent = 'desk' ORDER BY ordinal DESC LIMIT 1")
        desk.wait_served(newest[0][0])


@pytest.mark.req("D10", "J74")
def test_a_training_killed_in_the_middle_makes_one_version(desk: Desk) -> None:
    before = desk.sql("SELECT count(*) FROM perennial.versions WHERE agent = 'desk'")[0][0]
    rows = NewsStream(78).articles(12, period=0.3, topics=EARLY)
    body = [
        {"agent_name": "desk", "task_type": TASK, "input_text": row.text, "expected_output": row.true_topic, "uncertainty_score": 0.5}
        for row in rows
    ]  # fmt: skip
    desk.plane.post("/v1/examples", json=body).raise_for_status()
    conf = {"mode": "batch", "reason": "request", "force": True, "why": "the encoder is to see the new rows"}
    started = desk.airflow.post(
        "/api/v2/dags/train_desk/dagRuns", json={"logical_date": None, "conf": conf}
    ).raise_for_status()
    run = started.json()["dag_run_id"]

    def training() -> int | None:
        one = desk.task("train_desk", run, "train")
        return one["pid"] if one and one["state"] == "running" and one["pid"] else None

    pid = wait_until("the train task to run", training, seconds=120, every=0.1)
    time.sleep(1.0)
    with Readers(desk):
        os.kill(pid, signal.SIGKILL)

        def ended() -> str | None:
            state = desk.airflow.get(f"/api/v2/dags/train_desk/dagRuns/{run}").json()["state"]
            return str(state) if state in {"success", "failed"} else None

        assert wait_until("the run to end", ended, seconds=400, every=1.0) == "success"
        assert desk.sql("SELECT count(*) FROM perennial.versions WHERE agent = 'desk'")[0][0] == before + 1
        job = desk.sql("SELECT job_id, example_count, version FROM perennial.jobs WHERE run_id = %s", run)
        trained = desk.sql("SELECT count(*) FROM perennial.examples WHERE job_id = %s AND state = 'trained'", job[0][0])
        assert trained[0][0] == job[0][1]
        desk.wait_served(job[0][2])


def data_plane_of(stack: Stack) -> int:
    """The process of this stack's data plane, found by its command and home."""
    home = str(stack.home)
    for process in psutil.process_iter(["cmdline"]):
        if (
            "perennial.api.data_plane" in (process.info["cmdline"] or ())
            and process.environ().get("PERENNIAL_HOME") == home
        ):
            return int(process.pid)
    raise AssertionError("no data plane runs")


@pytest.mark.req("K39", "D10")
def test_a_gateway_killed_in_a_canary_step_comes_back_and_the_rollout_goes_on(desk: Desk) -> None:
    before = desk.champion()
    row = NewsStream(79).articles(1, period=0.5, topics=EARLY)[0]
    with Readers(desk):
        desk.correct(row.text, row.true_topic, priority=3)

        def in_canary() -> bool:
            return bool(
                desk.sql(
                    "SELECT 1 FROM perennial.serving WHERE agent = 'desk' AND candidate IS NOT NULL AND weight > 0"
                )
            )

        wait_until("a canary", in_canary, seconds=240, every=0.1)
        os.kill(data_plane_of(desk.stack), signal.SIGKILL)
        wait_until("the rollout to end", lambda: desk.champion() != before, seconds=240, every=0.5)
        desk.wait_served(str(desk.champion()))
    audited = desk.sql(
        "SELECT count(*) FROM perennial.audit WHERE agent = 'desk' AND action = 'critical_correction_claimed'"
    )
    assert audited[0][0] >= 1
