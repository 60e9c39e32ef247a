"""One contract for Airflow's run history: the twin, and the client over HTTP against a server that answers as Airflow 3.3 does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from perennial.errors import NotConfigured, StoreUnavailable
from perennial.retention.airflow_runs import AirflowRuns, RunHistory
from perennial.retention.memory_runs import MemoryRuns
from perennial.settings import Settings

NOW = datetime.now(UTC)
CUT = NOW - timedelta(days=14)


class Airflow(ThreadingHTTPServer):
    """What `/auth/token`, `/api/v2/dags` and `/api/v2/dags/<dag>/dagRuns` of Airflow 3.3.2 answer, over a dictionary."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[tuple[str, str], datetime | None] = {}
        self.foreign: set[str] = set()
        self.broken: set[tuple[str, str]] = set()
        self.valid, self.logins, self.bodies = "t1", 0, []  # type: tuple[str, int, list[Any]]
        self.instead: bytes | None = None  # what answers in Airflow's place, or how it dies in the middle of an answer


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self._body()
        if self.path != "/auth/token":
            key = (unquote(self.path.split("/")[4]), body["dag_run_id"])
            if key in self.server.runs:
                return self._answer(409, {})
            assert body["logical_date"] is None
            self.server.runs[key] = None
            return self._answer(200, {})
        if body["password"] != "right":
            return self._answer(401, {})
        self.server.logins += 1
        return self._answer(201, {"access_token": self.server.valid})

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {self.server.valid}":
            return self._answer(401, {})
        parts = urlsplit(self.path)
        query = {name: values for name, values in parse_qs(parts.query).items()}
        first, most = int(query.get("offset", ["0"])[0]), int(query["limit"][0])
        if parts.path == "/api/v2/dags":
            assert (query["tags"], query["exclude_stale"]) == (["perennial"], ["false"])
            dags = sorted({dag for dag, _ in self.server.runs} - self.server.foreign)
            return self._answer(200, {"dags": [{"dag_id": dag} for dag in dags[first : first + most]]})
        dag = unquote(parts.path.split("/")[4])
        if query["order_by"] == ["-end_date"]:
            return self._answer(200, {"dag_runs": self._ended(dag, query)[:most]})
        if query["order_by"] == ["-id"]:
            last = [run for name, run in self.server.runs if name == dag][-1:]
            return self._answer(200, {"dag_runs": [{"dag_run_id": run} for run in last]})
        assert (query["state"], query["order_by"]) == (["success", "failed"], ["end_date"])
        until = datetime.fromisoformat(query["end_date_lt"][0])
        old = sorted(
            (at, run) for (name, run), at in self.server.runs.items() if name == dag and at is not None and at < until
        )
        return self._answer(200, {"dag_runs": [{"dag_run_id": run} for _, run in old[first : first + most]]})

    def _ended(self, dag: str, query: dict[str, list[str]]) -> list[dict[str, str]]:
        since = datetime.fromisoformat(query["end_date_gte"][0]) if "end_date_gte" in query else CUT
        ended = sorted(
            ((at, key) for key, at in self.server.runs.items() if at is not None and at >= since), reverse=True
        )
        rows = [
            {"dag_id": key[0], "dag_run_id": key[1], "state": "failed" if key in self.server.broken else "success"}
            for _, key in ended
            if dag in ("~", key[0])
        ]
        return [row for row in rows if row["state"] in query["state"]]

    def do_PATCH(self) -> None:
        (action,) = self._body()["actions"]
        assert (action["action"], action["action_on_non_existence"]) == ("delete", "skip")
        self.server.bodies.append(action["entities"])
        gone = []
        for one in action["entities"]:
            key = (one["dag_id"], one["dag_run_id"])
            if self.server.runs.get(key) is not None:  # a running one is refused
                del self.server.runs[key]
                gone.append(".".join(key))
        self._answer(200, {"delete": {"success": gone, "errors": []}})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, code: int, body: Any) -> None:
        if self.server.instead is not None:
            self.wfile.write(self.server.instead)
            return
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    server = Airflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def client(airflow: Airflow, password: str | None = "right") -> AirflowRuns:
    url = f"http://127.0.0.1:{airflow.server_address[1]}"
    return AirflowRuns(Settings(airflow_url=url, airflow_password=password))  # type: ignore[arg-type]


# the store, what it knows, and which of that failed
History: TypeAlias = tuple[RunHistory, dict[tuple[str, str], datetime | None], set[tuple[str, str]]]


@pytest.fixture(params=["memory", "http"])
def history(request: pytest.FixtureRequest, airflow: Airflow) -> History:
    if request.param == "memory":
        twin = MemoryRuns()
        return twin, twin.runs, twin.broken
    return client(airflow), airflow.runs, airflow.broken


def test_only_ended_runs_of_age_go_oldest_first(history: History) -> None:
    runs, known, _ = history
    for number in range(230):
        known[("harvest", f"r{number:03}")] = CUT - timedelta(minutes=230 - number)
    known.update(
        {
            ("harvest", "young"): NOW,
            ("train_scout", "a b/c"): CUT - timedelta(1),
            ("train_scout", "running"): None,
            ("nightly", "its only one"): CUT - timedelta(1),
        }
    )
    old = runs.old(CUT, 1000)
    assert len(old) == 231
    assert old[0] == ("harvest", "r000")
    assert old[-1] == ("train_scout", "a b/c")
    assert runs.old(CUT, 5) == old[:5]
    assert runs.delete(old) == 231
    assert runs.delete(old) == 0  # a repeat after a kill
    assert runs.old(CUT, 1000) == []
    assert set(known) == {("harvest", "young"), ("train_scout", "running"), ("nightly", "its only one")}


def test_others_dags_stay_and_a_token_that_lapsed_is_renewed(airflow: Airflow) -> None:
    airflow.runs.update(
        {("ours", "r"): CUT - timedelta(1), ("ours", "s"): NOW, ("theirs", "r"): CUT, ("theirs", "s"): NOW}
    )
    airflow.foreign.add("theirs")
    runs = client(airflow)
    assert runs.old(CUT, 10) == [("ours", "r")]
    airflow.valid = "t2"
    assert runs.old(CUT, 10) == [("ours", "r")]
    assert airflow.logins == 2
    runs.delete([("ours", f"r{number}") for number in range(250)])
    assert [len(body) for body in airflow.bodies] == [100, 100, 50]


def test_what_is_wrong_is_said(airflow: Airflow) -> None:
    with pytest.raises(NotConfigured, match="PERENNIAL_AIRFLOW_PASSWORD"):
        client(airflow, None).old(CUT, 1)
    with pytest.raises(StoreUnavailable, match="does not let machine in"):
        client(airflow, "wrong").old(CUT, 1)
    with pytest.raises(StoreUnavailable, match="is away"):
        AirflowRuns(Settings(airflow_url="http://127.0.0.1:9", airflow_password="x")).old(CUT, 1)  # type: ignore[arg-type]
    with pytest.raises(NotConfigured, match="PERENNIAL_AIRFLOW_URL"):
        AirflowRuns(Settings(airflow_url="file:///etc", airflow_password="x")).old(CUT, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_login", [True, False], ids=["login", "question"])
@pytest.mark.parametrize(
    "answer",
    [b"Content-Length: 500\r\n\r\n{", b"\r\n<html>Sign in</html>", b"\r\n\xff", b"\r\n[[]]", b'\r\n{"error": "sign in"}', b""],
    ids=["breaks off", "a page", "no UTF-8", "a list", "another's object", "no headers"],
)  # fmt: skip
def test_what_does_not_answer_as_airflow_is_away_to_whoever_asked(
    airflow: Airflow, answer: bytes, at_login: bool
) -> None:
    runs = client(airflow)
    if not at_login:
        runs.failed(NOW)
    airflow.instead = b"HTTP/1.0 200 OK\r\n" + answer if answer else b"nonsense\r\n\r\n"
    for ask in (lambda: runs.failed(NOW), lambda: runs.old(CUT, 1)):
        with pytest.raises(StoreUnavailable, match="PERENNIAL_AIRFLOW_URL"):
            ask()


def test_a_dag_has_failed_when_its_newest_ended_run_did(history: History) -> None:
    runs, known, broken = history
    hour = timedelta(hours=1)
    known.update(
        {
            ("harvest", "bad"): NOW - 2 * hour, ("harvest", "good"): NOW - hour, ("harvest", "running"): None,
            ("retention", "good"): NOW - 3 * hour, ("retention", "bad"): NOW - 2 * hour, ("train_scout", "old"): NOW - 30 * hour,
        }
    )  # fmt: skip
    broken.update({("harvest", "bad"), ("retention", "bad"), ("train_scout", "old")})
    assert list(runs.failed(NOW - 24 * hour)) == [("retention", "bad")]
    known[("retention", "repaired")] = NOW
    assert list(runs.failed(NOW - 24 * hour)) == []


def test_failures_of_other_peoples_dags_are_not_ours_to_tell(airflow: Airflow) -> None:
    airflow.runs.update({("theirs", "bad"): NOW, ("harvest", "bad"): NOW})
    airflow.broken.update(airflow.runs)
    airflow.foreign.add("theirs")
    assert list(client(airflow).failed(NOW - timedelta(hours=1))) == [("harvest", "bad")]


def test_many_failures_of_one_dag_hide_no_other_and_a_recovered_one_is_not_told(history: History) -> None:
    runs, known, broken = history
    minute = timedelta(minutes=1)
    known.update({("retention", "bad"): NOW - 300 * minute, ("train_scout", "old"): NOW - 3000 * minute})
    known.update({("harvest", f"bad{at:03}"): NOW - at * minute for at in range(120, 0, -1)})
    broken.update(known)
    known[("nightly_retrain", "good")] = NOW
    assert list(runs.failed(NOW - 1440 * minute)) == [("harvest", "bad001"), ("retention", "bad")]


def test_a_run_is_started_once(history: History) -> None:
    runs, known, _ = history
    for _ in range(2):
        runs.start("rollout_scout", "import__1.1.0")
    assert known == {("rollout_scout", "import__1.1.0"): None}
