"""What the demo's agents and people do: ask the gateway, report outcomes, send corrections, answer required actions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from perennial.domain.words import JSON
from perennial.errors import StackError


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """A text with its true answer for one task."""

    text: str
    label: JSON


class Plane:
    """A caller of the data plane's HTTP interface."""

    def __init__(self, url: str, agent: str, token: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60.0)
        self.agent = agent

    def _post(self, path: str, body: Any) -> Any:
        answer = self._http.post(path, json=body)
        if answer.status_code >= 400:
            raise StackError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    def predict(self, task: str, text: str, key: str) -> dict[str, Any]:
        """One answer of whichever version the key meets."""
        body = {"agent": self.agent, "task": task, "inputs": [text], "key": key}
        return dict(self._post("/v1/predict", body)["predictions"][0])

    def outcomes(self, pairs: Sequence[tuple[str, JSON]]) -> None:
        """Tell what was true."""
        self._post("/v1/outcomes", [{"prediction_id": identity, "actual": actual} for identity, actual in pairs])

    def examples(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Send labelled examples."""
        return dict(self._post("/v1/examples", [{"agent_name": self.agent, **row} for row in rows]))

    def correct(
        self, task: str, text: str, wrong: JSON, right: JSON, *, priority: int, source_id: str
    ) -> dict[str, Any]:
        """Send one correction."""
        body = {
            "agent_name": self.agent, "task_type": task, "input_text": text, "incorrect_output": wrong,
            "correct_output": right, "priority": priority, "source_id": source_id,
        }  # fmt: skip
        return dict(self._post("/v1/corrections", body))

    def plant_fault(self, version: str, kind: str, rate: float) -> None:
        """Make one version misbehave; only a gateway started for drills allows it."""
        self._post("/v1/faults", {"agent": self.agent, "version": version, "kind": kind, "rate": rate})

    def agents(self) -> dict[str, Any]:
        """What the gateway serves."""
        return dict(self._http.get("/v1/agents").raise_for_status().json())


class Traffic:
    """Readers in the background: they ask about texts that were seen before, so that they teach nothing new, and report the truth.

    Rollouts need traffic to judge; a repeated text is deduplicated by the buffer, so it does not start trainings of its own.
    """

    def __init__(
        self,
        plane: Plane,
        task: str,
        pool: Sequence[Truth],
        *,
        heard: Callable[[bool, str], None],
        per_second: float = 40.0,
    ) -> None:
        self._heard = heard
        self._plane, self._task, self._pool = plane, task, tuple(pool)
        self._pause = 1.0 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-traffic", daemon=True)
        self.answered = 0
        self.failed = 0

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            truth = self._pool[number % len(self._pool)]
            number += 1
            try:
                answer = self._plane.predict(self._task, truth.text, key=f"reader-{number % 997}")
                self._plane.outcomes([(answer["prediction_id"], truth.label)])
                self.answered += 1
                self._heard(answer["output"] == truth.label, answer["version"])
            except (httpx.HTTPError, StackError):
                self.failed += 1  # counted and shown at the end
            self._stop.wait(self._pause)


class RequiredActions:
    """Answers Airflow's required actions as a user of the deployment."""

    def __init__(self, airflow_url: str, user: str, password: str) -> None:
        self._http = httpx.Client(base_url=airflow_url, timeout=30.0)
        token = self._http.post("/auth/token", json={"username": user, "password": password}).raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        self.user = user

    def waiting(self, dag_id: str) -> list[dict[str, Any]]:
        """Required actions of one DAG that nobody answered yet."""
        answer = self._http.get(f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails", params={"response_received": "false"})
        return list(answer.raise_for_status().json()["hitl_details"])

    def answer(self, detail: dict[str, Any], option: str) -> None:
        """Choose an option as this user."""
        instance = detail["task_instance"]
        path = (
            f"/api/v2/dags/{instance['dag_id']}/dagRuns/{instance['dag_run_id']}/taskInstances/"
            f"{instance['task_id']}/{instance.get('map_index', -1)}/hitlDetails"
        )
        self._http.patch(path, json={"chosen_options": [option], "params_input": {}}).raise_for_status()


def wait_for(
    what: str, ready: Any, *, seconds: float, every: float = 0.25, tick: Callable[[], None] | None = None
) -> Any:
    """Call ``ready`` until it answers something true, and ``tick`` between; StackError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        found = ready()
        if found:
            return found
        if time.monotonic() > deadline:
            raise StackError(
                f"waited {seconds:.0f} s for {what}; `perennial doctor` and the Airflow page of the run say why"
            )
        if tick is not None:
            tick()
        time.sleep(every)
