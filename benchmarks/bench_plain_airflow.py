"""The same story in an Airflow that somebody else set up: clean environment, installed wheel, default settings.

    python -m venv /some/where; /some/where/bin/pip install -r requirements-deploy.txt dist/perennial-*.whl
    PYTHONPATH=include:. .venv/bin/python benchmarks/bench_plain_airflow.py --python /some/where/bin/python [--like-embedded | --celery]

Airflow gets its home, two ports that are free here, the connections, and nothing else: SQLite, LocalExecutor, cold workers, its examples
loaded. ``--like-embedded`` gives it what `perennial up` gives: warm workers, PostgreSQL, a quick scheduler. ``--celery`` runs
Redis and two Celery workers, one for the queue `default` and one for `gpu`, which trains; both are warm. Prints seconds per step.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.machine import table

from perennial.errors import StoreUnavailable
from perennial.settings import Settings
from perennial.storage.airflow_link import AirflowLink
from tests.integration.bridge.airflow_stack import _kill_session, free_port
from tests.postgres_fixture import Server, postgres_server

FLEET = """
from perennial.fleet import Agent, Gates, Rollout, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="desk", owner="benchmark", tasks=(Task(name="urgency", labels=("low", "high")),), trainer=EwcText(),
    gates=Gates(min_holdout=20, min_accuracy={"urgency": 0.6}), rollout=Rollout(steps=(1.0,)),
)
"""
LOW = ("A quiet garden fair opens on Sunday", "The choir rehearses an old song", "A museum shows paintings of boats")
HIGH = (
    "Flood warning: leave the valley at once",
    "Fire near the station, roads are closed",
    "Earthquake hits the harbour town",
)


@dataclass
class Run:
    """One deployment: where it lives, its environment, its processes."""

    home: Path
    python: str
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def launch(self, name: str, *words: str, **more: str) -> None:
        """A process in a session of its own; its log is in the home."""
        with open(self.home / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                [*words], env={**self.environment, **more}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                cwd=self.home,
            )  # fmt: skip

    def call(self, *words: str, **more: str) -> str:
        """A command that must succeed."""
        done = subprocess.run(
            [*words], env={**self.environment, **more}, capture_output=True, text=True, cwd=self.home, check=False
        )
        if done.returncode:
            raise SystemExit(f"{words} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        return done.stdout

    def stop(self) -> None:
        """End everything."""
        for process in self.processes.values():
            _kill_session(process.pid)
            process.wait()


def main() -> None:
    """Run one story and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--like-embedded", action="store_true")
    parser.add_argument("--celery", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="plain-airflow-"))
        print(f"logs are in {home}")
        server = stack.enter_context(contextmanager(_server)())
        run = Run(home=home, python=arguments.python)
        stack.callback(run.stop)
        prepare(run, server)
        if arguments.celery:
            celery(run, server)
        elif arguments.like_embedded:
            like_embedded(run, server)
        story(run, arguments)
    if not arguments.keep:
        subprocess.run(["rm", "-rf", str(home)], check=False)


def _server() -> Iterator[Server]:
    yield from postgres_server.__wrapped__()  # type: ignore[attr-defined]


def prepare(run: Run, server: Server) -> None:
    """Environment, databases, keys, MLflow, the data plane: what every deployment has beside its Airflow."""
    import psycopg

    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE perennial TEMPLATE template_perennial OWNER perennial_owner")
        admin.execute("CREATE DATABASE airflow")
    bin_folder = str(Path(run.python).parent)
    app, admit = server.url("perennial", "perennial_app"), server.url("perennial", "perennial_admit")
    mlflow_port, plane_port, secret = free_port(), free_port(), secrets.token_hex(16)
    airflow_home = run.home / "airflow"
    run.environment = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(run.home), "LANG": "C.UTF-8",
        # where this Airflow is; everything else about it is its default
        "AIRFLOW_HOME": str(airflow_home), "AIRFLOW__API__PORT": str(run.port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{run.port}",
        # what Perennial must know
        "AIRFLOW_CONN_PERENNIAL_DB": app.replace("postgresql://", "postgres://", 1),
        "AIRFLOW_CONN_PERENNIAL_ADMIT_DB": admit.replace("postgresql://", "postgres://", 1),
        "PERENNIAL_MLFLOW_URL": f"http://127.0.0.1:{mlflow_port}",
        "PERENNIAL_SIGNING_KEY_FILE": str(airflow_home / ".perennial/keys/signing.pem"),
        "PERENNIAL_SIGNING_KEY_PASSWORD": secret,
        "PERENNIAL_VERIFY_KEY_FILE": str(airflow_home / ".perennial/keys/signing.pub"),
    }  # fmt: skip
    run.call(f"{bin_folder}/perennial", "dags", "install", str(airflow_home / "dags"))
    fleet = airflow_home / "include" / "fleet"
    fleet.mkdir(parents=True)
    (fleet / "desk.py").write_text(FLEET)
    run.call(run.python, "-m", "perennial.stack.provision", "keys")
    run.launch(
        "mlflow", run.python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", MLFLOW_BACKEND_STORE_URI=f"sqlite:///{run.home}/mlflow.db",
        MLFLOW_ARTIFACTS_DESTINATION=str(run.home / "mlflow"), MLFLOW_DEFAULT_ARTIFACT_ROOT="mlflow-artifacts:/",
    )  # fmt: skip
    run.launch(
        "data-plane", run.python, "-m", "perennial.api.data_plane",
        PERENNIAL_DATABASE_URL=app, PERENNIAL_DATA_PLANE_PORT=str(plane_port),
    )  # fmt: skip
    run.environment["PLANE"] = f"http://127.0.0.1:{plane_port}"
    run.environment["APP_URL"] = app


def like_embedded(run: Run, server: Server) -> None:
    """The settings of `perennial up` that make it quick."""
    from perennial.stack.environment import _DEFAULTS

    run.environment |= _DEFAULTS | {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url("airflow").replace("postgresql://", "postgresql+psycopg2://", 1),
    }  # fmt: skip
    run.environment["WARM"] = _warm_folder(run)


def celery(run: Run, server: Server) -> None:
    """Redis, PostgreSQL, and a warm worker for each of the queues `default` and `gpu`."""
    like_embedded(run, server)
    warm = run.environment.pop("WARM")
    port, secret = free_port(), secrets.token_hex(16)
    config = run.home / "redis.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nrequirepass {secret}\ndir {run.home}\nsave ''\n")
    run.launch("redis", "redis-server", str(config))
    run.environment |= {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{run.port}/execution/",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CELERY__BROKER_URL": f"redis://:{secret}@127.0.0.1:{port}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": "db+" + run.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"],
        "PERENNIAL_TRAIN_QUEUE": "gpu",
    }
    run.call(run.python, "-m", "airflow", "db", "migrate")
    more = {"PYTHONPATH": warm, "OPENBLAS_NUM_THREADS": "1"}
    for queue in ("default", "gpu"):
        run.launch(
            f"worker-{queue}", run.python, "-m", "airflow", "celery", "worker", "--queues", queue, "--concurrency", "2",
            "--celery-hostname", f"{queue}@bench", "--skip-serve-logs", **more,
        )  # fmt: skip


def _warm_folder(run: Run) -> str:
    code = "import perennial.stack, pathlib; print(pathlib.Path(perennial.stack.__file__).parent / 'warm')"
    return run.call(run.python, "-c", code).strip()


def story(run: Run, arguments: argparse.Namespace) -> None:
    """From the start of Airflow to a champion that answers, with the seconds of each step."""
    import httpx

    steps: list[tuple[str, str]] = []
    began = time.monotonic()
    warm = run.environment.pop("WARM", None)
    more = {"PYTHONPATH": warm, "OPENBLAS_NUM_THREADS": "1"} if warm else {}
    run.launch("airflow", run.python, "-m", "airflow", "standalone", **more)
    passwords = run.home / "airflow" / "simple_auth_manager_passwords.json.generated"
    wait(run, passwords.is_file, 240, "Airflow makes its login")
    login = json.loads(passwords.read_text())["admin"]
    settings = Settings(airflow_url=f"http://127.0.0.1:{run.port}", airflow_user="admin", airflow_password=login)
    airflow = AirflowLink(settings, purpose="look")

    def state(dag: str) -> dict[str, Any] | None:
        return airflow.find(f"/api/v2/dags/{dag}")

    wait(run, lambda: state("train_desk") and state("rollout_desk") and state("harvest"), 300, "the DAGs appear")
    steps.append(("`airflow standalone` to DAGs", f"{time.monotonic() - began:.0f}"))
    errors = airflow.call("GET", "/api/v2/importErrors")["import_errors"]
    ours = [one for one in errors if "/dags/" in one["filename"] and "site-packages" not in one["filename"]]
    pools = {one["name"]: one["slots"] for one in airflow.call("GET", "/api/v2/pools")["pools"]}
    print(f"pools: {pools}; import errors of ours: {len(ours)}; plugins: {_plugins(airflow)}")
    wait(run, lambda: httpx.get(run.environment["PLANE"] + "/healthz").status_code == 200, 120, "the data plane is up")
    wait(
        run, lambda: "desk" in httpx.get(run.environment["PLANE"] + "/v1/agents").json()["agents"], 60, "it knows desk"
    )
    rows = run.home / "rows.jsonl"
    write_rows(rows)
    began = time.monotonic()
    print(run.call(
        str(Path(run.python).parent / "perennial"), "import", str(rows), "--agent", "desk", "--task", "urgency",
        PERENNIAL_DATABASE_URL=run.environment["APP_URL"],
    ).strip())  # fmt: skip

    def runs(dag: str) -> list[dict[str, Any]]:
        return list(airflow.call("GET", f"/api/v2/dags/{dag}/dagRuns?order_by=run_after&limit=50")["dag_runs"])

    def ended(dag: str) -> bool:
        return any(one["state"] in {"success", "failed"} for one in runs(dag))

    wait(run, lambda: runs("train_desk"), 240, "a training is due")
    steps.append(("rows to a run of `train_desk`", f"{time.monotonic() - began:.1f}"))
    wait(run, lambda: ended("train_desk"), 600, "the training ends")
    first = runs("train_desk")[0]
    if first["state"] != "success":
        raise SystemExit(f"the training ended {first['state']}: {tasks_of(airflow, 'train_desk', first['dag_run_id'])}")
    steps.append((f"`train_desk`, {first['state']}", f"{first['duration']:.1f}"))
    for name, (queue, seconds, waited) in tasks_of(airflow, "train_desk", first["dag_run_id"]).items():
        steps.append((f"- {name} (queue {queue})", f"{seconds:.1f} after {waited:.1f} in line"))
    wait(run, lambda: answers(run), 300, "a champion answers")
    steps.append(("rows to an answer of the champion", f"{time.monotonic() - began:.1f}"))
    kind = (
        "Celery, warm queue gpu" if arguments.celery else "as embedded" if arguments.like_embedded else "plain defaults"
    )
    table(f"An Airflow of one's own: {kind}", ("step", "s"), steps)


def answers(run: Run) -> bool:
    """Whether the gateway answers, and right."""
    import httpx

    body = {"agent": "desk", "task": "urgency", "inputs": ["Flood warning: leave the valley at once"], "key": "k"}
    found = httpx.post(run.environment["PLANE"] + "/v1/predict", json=body, timeout=20)
    if found.status_code != 200:
        return False
    answer = found.json()["predictions"][0]
    print(f"the gateway answers: {answer}")
    return bool(answer["arm"] == "champion" and answer["output"] == "high")


def tasks_of(airflow: AirflowLink, dag: str, run_id: str) -> dict[str, tuple[str, float, float]]:
    """Task -> queue, seconds it ran, seconds from scheduled to started."""
    from datetime import datetime
    from urllib.parse import quote

    def at(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    path = f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances?limit=100"
    found = [
        one for one in airflow.call("GET", path)["task_instances"] if one["start_date"] and one["state"] != "skipped"
    ]
    return {
        one["task_id"]: (one["queue"], one["duration"] or 0.0, at(one["start_date"]) - at(one["scheduled_when"] or one["start_date"]))
        for one in sorted(found, key=lambda one: one["start_date"])
    }  # fmt: skip


def _plugins(airflow: AirflowLink) -> list[str]:
    found = airflow.call("GET", "/api/v2/plugins")["plugins"]
    return [one["name"] for one in found if "perennial" in one["name"]]


def write_rows(file: Path, count: int = 300) -> None:
    """Rows that two kinds of words tell apart."""
    chance = Random(7)
    with file.open("w") as out:
        for number in range(count):
            label, texts = ("high", HIGH) if number % 2 else ("low", LOW)
            words = f"{chance.choice(texts)}, item {number} of the {chance.choice(('morning', 'evening', 'noon'))} list"
            out.write(json.dumps({"text": words, "label": label}) + "\n")


def wait(run: Run, condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Until it is true; a process that ended, or too many seconds, end the script with what is in its log."""
    import httpx

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name, process in run.processes.items():
            if process.poll() is not None:
                raise SystemExit(f"{name} ended: {(run.home / f'{name}.log').read_text()[-3000:]}")
        try:
            if condition():
                return
        except (StoreUnavailable, httpx.HTTPError, KeyError, ValueError, OSError):
            pass  # it starts
        time.sleep(1.0)
    raise SystemExit(f"within {seconds:.0f} s it did not happen: {what}; logs are in {run.home}")


if __name__ == "__main__":
    main()
