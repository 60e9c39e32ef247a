"""What the stack is made of: for each part its command, environment, needs, health probe and way to stop."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from perennial.stack import environment, postgres
from perennial.stack.health import AirflowHealth, HeartbeatProbe, HttpProbe, PostgresProbe, Probe
from perennial.stack.home import Home
from perennial.stack.launch import LAUNCH
from perennial.stack.ports import LOOPBACK, Ports
from perennial.stack.provision import PROVISION
from perennial.stack.secrets import Secrets

DATA_PLANE = "perennial.api.data_plane"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A process that must run (with a probe), or a step that must succeed once (without).

    ``needs`` are the parts that must be well or done before it starts. ``before_again`` is a command that runs first in
    the same session when the part is started again.
    """

    name: str
    title: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    needs: tuple[str, ...] = ()
    before_again: tuple[str, ...] = ()
    probe: Probe | None = None
    port: int | None = None
    stop: signal.Signals = signal.SIGTERM
    grace: float = 5.0  # seconds between the polite signal and kill -9
    patience: float = 240.0  # seconds from start to the first good look
    # Seconds of nothing but bad looks before a running part is replaced. Long, because a machine that is busy with a
    # training answers late, and a needless restart of the scheduler would kill that training.
    tolerance: float = 60.0
    skip: str = ""  # why it is left out, if it is

    @property
    def once(self) -> bool:
        """True for a step."""
        return self.probe is None


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", LAUNCH, *words)


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _stores(home: Home, ports: Ports, secrets: Secrets) -> list[Part]:
    prepare = environment.for_provision(home, ports, secrets)
    return [
        Part(
            name="postgres", title="PostgreSQL", command=tuple(postgres.server_command(home, ports.postgres)),
            environment={"LC_ALL": "C", "PATH": prepare.get("PATH", "")}, probe=PostgresProbe(port=ports.postgres),
            port=ports.postgres, stop=signal.SIGINT, grace=20.0,
        ),
        Part(
            name="databases", title="roles, databases, migrations", command=_python(PROVISION, "all-databases"),
            environment=prepare, needs=("postgres",),
        ),
        Part(
            name="airflow-database", title="Airflow's tables", command=_python(PROVISION, "airflow"), environment=prepare,
            needs=("databases",),
        ),
    ]  # fmt: skip


def _airflow(home: Home, ports: Ports, secrets: Secrets) -> list[Part]:
    plain = environment.for_airflow(home, ports, secrets)
    beats = AirflowHealth(ports.airflow)
    forget = _python(PROVISION, "forget")

    def part(name: str, title: str, words: tuple[str, ...], env: dict[str, str], job: str, component: str) -> Part:
        return Part(
            name=name, title=title, command=_python("airflow", *words), environment=env, needs=("airflow-database",),
            before_again=(*forget, job), probe=HeartbeatProbe(airflow=beats, component=component, stale=30.0), grace=4.0,
            tolerance=10.0,
        )  # fmt: skip

    workers = environment.for_workers(home, ports, secrets)
    scheduler = environment.for_scheduler(home, ports, secrets)
    # The routes that tasks call are built when the first of them is asked for, which takes seconds: the probe asks.
    return [
        Part(
            name="airflow-api", title="Airflow API and pages", command=_python("airflow", "api-server"), environment=plain,
            needs=("airflow-database",), probe=HttpProbe(port=ports.airflow, path="/execution/health"), port=ports.airflow,
            grace=3.0,
        ),
        part("scheduler", "scheduler and workers", ("scheduler", "--skip-serve-logs"), scheduler, "SchedulerJob", "scheduler"),
        part("dag-processor", "DAG processor", ("dag-processor",), plain, "DagProcessorJob", "dag_processor"),
        part("triggerer", "triggerer", ("triggerer", "--skip-serve-logs"), workers, "TriggererJob", "triggerer"),
        Part(
            name="pools", title="pools", command=_python("perennial.stack.pools"),
            environment=environment.for_pools(home, ports, secrets), needs=("airflow-api",),
        ),
    ]  # fmt: skip


def parts(home: Home, ports: Ports, secrets: Secrets) -> dict[str, Part]:
    """Every part by name, in the order in which they are shown."""
    serve = ("mlflow", "server", "--host", LOOPBACK, "--port", str(ports.mlflow), "--workers", "1")
    mlflow = Part(
        name="mlflow", title="MLflow", command=_python(*serve),
        environment=environment.for_mlflow(home, ports, secrets), needs=("databases",),
        probe=HttpProbe(port=ports.mlflow, path="/health"), port=ports.mlflow,
    )  # fmt: skip
    data_plane = Part(
        name="data-plane", title="ingest API and gateway", command=_python(DATA_PLANE),
        environment=environment.for_perennial(home, ports), needs=("databases",),
        probe=HttpProbe(port=ports.data_plane, path="/healthz"), port=ports.data_plane, grace=8.0,
        skip="" if _has(DATA_PLANE) else f"the module {DATA_PLANE} is not installed",
    )  # fmt: skip
    all_parts = [*_stores(home, ports, secrets), mlflow, data_plane, *_airflow(home, ports, secrets)]
    return {part.name: replace(part, skip=part.skip or _left_out(part.name)) for part in all_parts}


def _left_out(name: str) -> str:
    """Parts that a deployment runs elsewhere: PERENNIAL_WITHOUT, of ``mlflow`` and ``data-plane``."""
    wanted = {word.strip() for word in os.environ.get("PERENNIAL_WITHOUT", "").split(",")} & {"mlflow", "data-plane"}
    return "left out by PERENNIAL_WITHOUT" if name in wanted else ""
