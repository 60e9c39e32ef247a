"""`airflow_settings.yaml`: read strictly, applied as often as one likes; one contract for the twin and for the REST client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from typer.testing import CliRunner

from perennial.cli import build
from perennial.errors import StackError, StoreUnavailable
from perennial.settings import Settings
from perennial.stack import airflow_settings
from perennial.stack.airflow_api import AirflowApi
from perennial.stack.airflow_settings import Kind, Outcome, Target, apply, read
from perennial.stack.memory_airflow import MemoryAirflow

ASTRO = """
airflow:
  connections:
    - conn_id: perennial_db
      conn_type: postgres
      conn_host: db
      conn_schema: perennial
      conn_login: perennial_app
      conn_password: ${DB_SECRET}
      conn_port: 5432
      conn_extra:
        sslmode: require
    - conn_id: alerts
      conn_uri: smtp://me:${DB_SECRET}@mail:25
    - conn_id:
      conn_type:
      conn_host:
  pools:
    - pool_name: gpu
      pool_slot: 2
      pool_description: Trainings
  variables:
    - variable_name: desks
      variable_value: [sport, world]
    - variable_name: greeting
      variable_value: good ${TIME}
"""
GIVEN = {"DB_SECRET": "s3cret:/@x", "TIME": "morning"}


class Airflow(ThreadingHTTPServer):
    """Pools, connections and variables as Airflow 3.3's REST API has them; every body is checked by Airflow's own models."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.known: dict[tuple[str, str], dict[str, Any]] = {}
        self.allowed = True


class _Handler(BaseHTTPRequestHandler):
    server: Airflow

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        found = self.server.known.get(self._place())
        if found is None:
            return self._answer(404, {"detail": "not found"})
        shown = {name: "***" if name == "password" and value else value for name, value in found.items()}
        return self._answer(200, shown)

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/auth/token":
            return self._answer(201, {"access_token": "t"})
        if not self.server.allowed:
            return self._answer(403, {})
        kind = self.path.rpartition("/")[2]
        self._check(kind, body)
        id = body[{"pools": "name", "connections": "connection_id", "variables": "key"}[kind]]
        self.server.known[(kind, id)] = body
        return self._answer(201, body)

    def do_PATCH(self) -> None:
        from airflow.api_fastapi.core_api.datamodels.pools import PoolPatchBody

        (kind, id), body = self._place(), self._body()
        if kind == "pools":
            given = PoolPatchBody.model_validate(body)
            assert given.name == id
            mask = parse_qs(urlsplit(self.path).query)["update_mask"]
            self.server.known[(kind, id)] |= {name: body[name] for name in mask}
        else:
            self._check(kind, body)
            assert body[{"connections": "connection_id", "variables": "key"}[kind]] == id
            self.server.known[(kind, id)] |= body
        self._answer(200, {})

    def _check(self, kind: str, body: Any) -> None:
        from airflow.api_fastapi.core_api.datamodels.connections import ConnectionBody
        from airflow.api_fastapi.core_api.datamodels.pools import PoolBody
        from airflow.api_fastapi.core_api.datamodels.variables import VariableBody

        {"pools": PoolBody, "connections": ConnectionBody, "variables": VariableBody}[kind].model_validate(body)

    def _place(self) -> tuple[str, str]:
        _, _, _, kind, id = urlsplit(self.path).path.split("/")
        return kind, unquote(id)

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Airflow]:
    running = Airflow()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(params=["memory", "http"])
def target(request: pytest.FixtureRequest, server: Airflow) -> Target:
    if request.param == "memory":
        return MemoryAirflow()
    return AirflowApi(settings_of(server))


def settings_of(server: Airflow) -> Settings:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    return Settings(airflow_url=url, airflow_password="right")  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "airflow_settings.yaml"
    place.write_text(ASTRO)
    return place


@pytest.mark.req("D2", "D8")
def test_applied_twice_it_is_the_same(target: Target, file: Path) -> None:
    entries = read(file, GIVEN)
    assert [outcome for _, outcome in apply(entries, target)] == [Outcome.MADE] * 5
    again = {entry.id: outcome for entry, outcome in apply(entries, target)}
    secrets = {"perennial_db": Outcome.WRITTEN, "alerts": Outcome.WRITTEN}  # nobody can see whether they are the same
    assert again == dict.fromkeys(("gpu", "desks", "greeting"), Outcome.SAME) | secrets
    found = target.find(Kind.CONNECTION, "perennial_db")
    assert found is not None
    assert (found["host"], found["port"], json.loads(found["extra"])) == ("db", 5432, {"sslmode": "require"})
    assert (found["schema"], found["password"]) == ("perennial", "***")


def test_a_change_is_made_and_what_people_changed_can_be_kept(target: Target, file: Path) -> None:
    list(apply(read(file, GIVEN), target))
    file.write_text(ASTRO.replace("pool_slot: 2", "pool_slot: 3").replace("good $", "bad $"))
    entries = read(file, GIVEN)
    assert {outcome for _, outcome in apply(entries, target, keep=True)} == {Outcome.KEPT}
    assert {entry.id for entry, outcome in apply(entries, target) if outcome is Outcome.CHANGED} == {"gpu", "greeting"}
    pool, variable = target.find(Kind.POOL, "gpu"), target.find(Kind.VARIABLE, "greeting")
    assert pool is not None
    assert variable is not None
    assert (pool["slots"], variable["value"]) == (3, "bad morning")


def test_values_of_the_file(file: Path) -> None:
    entries = {entry.id: entry for entry in read(file, GIVEN)}
    assert list(entries) == [
        "gpu",
        "perennial_db",
        "alerts",
        "desks",
        "greeting",
    ]  # pools first; the empty one of the template is left out
    assert entries["desks"].body["value"] == '["sport", "world"]'
    assert entries["perennial_db"].body["password"] == entries["alerts"].body["password"] == GIVEN["DB_SECRET"]
    assert GIVEN["DB_SECRET"] not in repr(entries)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1 is not understood: it is empty"),
        ("airflow: {}", ":1 is not understood"),
        ("a: [", ":1 is not understood"),
        ("airflow:\n  pool: []", ":2 is not understood: unknown key 'pool'"),
        ("airflow:\n  pools:\n  - pool_name: a\n    slots: 1", ":4 is not understood: unknown key 'slots'"),
        ("airflow:\n  pools:\n  - pool_name: a\n    pool_slot: x", ":3 is not understood: pool_slot is no whole number"),
        ("airflow:\n  pools:\n  - pool_name: a\n    pool_name: b", ":4 is not understood: pool_name stands here twice"),
        ("airflow:\n  pools:\n  - {pool_name: a, pool_slot: 1}\n  - {pool_name: a, pool_slot: 2}", ":4 is not understood: pool a stands"),
        ("airflow:\n  pools: 3", ":2 is not understood: a list belongs here"),
        ("airflow:\n  connections:\n  - conn_id: a\n    conn_password: ${NOT_THERE}", ":4 is not understood: ${NOT_THERE} is not in"),
        ("airflow:\n  connections:\n  - conn_id: a\n    conn_password: hush", ":3 is not understood: a connection needs conn_type"),
        ("airflow:\n  connections:\n  - conn_id: a\n    conn_uri: hush", ":3 is not understood: conn_uri is no URI"),
        ("airflow:\n  connections:\n  - {conn_id: a, conn_uri: 'a://b', conn_host: hush}", ":3 is not understood: a connection has"),
        ("airflow:\n  variables:\n  - variable_value: hush", ":3 is not understood: variable_name is missing"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_named_by_line_and_never_by_value(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    with pytest.raises(StackError) as caught:
        read(file, {})
    assert words in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__suppress_context__ or "hush" not in str(caught.value.__context__)


def test_a_user_without_the_right_is_told_so(server: Airflow, file: Path) -> None:
    server.allowed = False
    with pytest.raises(StoreUnavailable, match="needs the right to change pools"):
        list(apply(read(file, GIVEN), AirflowApi(settings_of(server))))


def test_the_command_prints_names_and_no_secret(
    server: Airflow, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    given = GIVEN | {"PERENNIAL_AIRFLOW_URL": url, "PERENNIAL_AIRFLOW_TOKEN": "token", "PERENNIAL_HOME": str(tmp_path)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(build(), ["airflow-settings", "apply", str(file), "--check"])
    assert done.output.startswith("5 entries are understood")
    assert server.known == {}
    done = CliRunner().invoke(build(), ["airflow-settings", "apply", str(file)])
    assert done.exit_code == 0, done.output
    assert "connection perennial_db: made" in done.output
    assert "s3cret" not in done.output
    done = CliRunner().invoke(build(), ["airflow-settings", "apply"])  # the shipped file
    assert done.output.splitlines() == ["pool gpu: changed", "pool cpu: made"]


def test_uris_are_read_as_airflow_reads_them() -> None:
    from airflow.models import Connection

    for uri in ("postgres://a:b%2Fc@h:5/d?sslmode=require", "my-http://h", "smtp://u@h", "aws://?region_name=x"):
        theirs, ours = Connection(uri=uri), airflow_settings.parts_of_uri(uri)
        for name in ("conn_type", "host", "login", "password", "schema", "port"):
            assert (ours.get(name) or None) == (getattr(theirs, name) or None), (uri, name)
        assert json.loads(ours.get("extra") or "{}") == theirs.extra_dejson


@pytest.mark.req("J110")
@pytest.mark.parametrize("away", ["# ", "#"])
def test_the_shipped_file_shows_the_alerts_connection_and_it_is_read_once_uncommented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    from perennial.stack.shipped import shipped_settings

    text = shipped_settings().read_text()
    before, key, after = text.partition("\n  connections:\n")
    assert key
    hidden, rest = after[: after.index("  variables:")], after[after.index("  variables:") :]
    assert {line[:4] for line in hidden.splitlines()} == {"  # "}
    file = tmp_path / "airflow_settings.yaml"
    file.write_text(before + key + hidden.replace(away, "") + rest)
    assert {entry.id for entry in read(shipped_settings())} == {"gpu", "cpu"}
    monkeypatch.setenv("PERENNIAL_ALERTS_WEBHOOK", "T000/B000/secret")
    found = [entry for entry in read(file) if entry.kind is Kind.CONNECTION]
    assert [(entry.id, entry.body["conn_type"], entry.body["password"]) for entry in found] == [
        ("perennial_alerts", "slackwebhook", "T000/B000/secret")
    ]
