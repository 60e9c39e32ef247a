"""``python -m perennial.api.data_plane``: one process that hosts the ingest API and the gateway."""

from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from perennial.api.app import create_app
from perennial.api.guard import check_exposure
from perennial.api.intake import Intake
from perennial.api.repeating import Repeating
from perennial.api.reports import Reports
from perennial.api.services import Limits, Services
from perennial.domain.model import Predictor
from perennial.errors import PerennialError, PortTaken, StackError
from perennial.flows import fleet_sync
from perennial.flows.champion import bundle_folder
from perennial.flows.ports import Ports
from perennial.flows.rollback import rollback_agent
from perennial.guard.said import kept_text, said_json
from perennial.ingest.door import Door
from perennial.serving.batching import BatchLimits
from perennial.serving.encoders import ServingEncoders
from perennial.serving.faults import Faults
from perennial.serving.feedback import Outcomes
from perennial.serving.gateway import Gateway
from perennial.serving.listener import Listener
from perennial.serving.metrics import Metrics
from perennial.serving.orders import Order, Orders
from perennial.serving.recorder import Recorder
from perennial.serving.store import PostgresServing
from perennial.settings import DataPlanePart, Settings, load_settings
from perennial.storage.database import Database

__all__ = ["create_app", "main", "services_of"]

logger = logging.getLogger(__name__)

_LEVELS = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})

SYNC_SECONDS = 5.0
MOST_FILES = 65_536
STORE_WAIT_SECONDS = 2.0  # a gateway that finds no connection in this time takes the store for lost


class VerifiedBundles:
    """The registry's verified folders, as the gateway's source."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def fetch(self, agent: str, version: str) -> Path:
        """See ``BundleSource.fetch``."""
        return bundle_folder(self._ports, agent, version)


class Components:
    """The trainers' loaders, with the gateway's own encoders (ADR 26) and without a memory of embeddings: no request waits
    for the database, and a champion whose answers came from a cache would make every candidate with a new encoder look slow."""

    def __init__(self, ports: Ports, limits: Limits) -> None:
        self._bench = replace(
            ports.bench, embeddings=None, encoders=ServingEncoders(BatchLimits(workers=limits.predict_workers))
        )

    def load(self, folder: Path) -> Predictor:
        """See ``ComponentLoader.load``."""
        from perennial.trainers.catalogue import load_component

        return load_component(folder, self._bench)


def services_of(settings: Settings, ports: Ports, *, faults: bool) -> Services:
    """Join one process's parts. Nothing connects and nothing is loaded before the app starts."""
    metrics, token = Metrics(), settings.data_plane_token
    limits = Limits(token=token.get_secret_value() if token else None)
    store = PostgresServing(Database(settings.app_url(), max_size=4, wait_seconds=STORE_WAIT_SECONDS))
    recorder = Recorder(store, ports.buffer, metrics, clean=kept_text)
    gateway = Gateway(
        store=store, source=VerifiedBundles(ports), loader=Components(ports, limits), recorder=recorder, metrics=metrics,
        instance=f"{socket.gethostname()}:{settings.data_plane_port}", faults=Faults(enabled=faults),
        orders=Orders(settings.home / "gateway" / f"orders-{settings.data_plane_port}.json"),
        carry_out=partial(_carry_out, ports),
    )  # fmt: skip
    return Services(
        gateway=gateway, metrics=metrics, outcomes=Outcomes(store, recorder, ports.buffer, metrics, said_json),
        intake=Intake(ports.buffer, Door(ports.buffer)), roll_back=partial(_roll_back, ports),
        reports=Reports(ports.rollouts.report, recorder.find),
        limits=limits,
        serves=settings.data_plane_serves,
        parts=(
            Repeating("fleet sync", partial(fleet_sync.sync, ports), seconds=SYNC_SECONDS),
            *(
                () if settings.data_plane_serves is DataPlanePart.INGEST
                else (recorder, gateway, Listener(settings.app_url(), gateway.wake))
            ),
        ),
    )  # fmt: skip


def _roll_back(ports: Ports, agent: str, *, version: str | None, actor: str, reason: str) -> dict[str, Any]:
    return rollback_agent(ports, agent, actor=actor, reason=reason, version=version)


def _carry_out(ports: Ports, order: Order) -> None:
    rollback_agent(ports, order.agent, actor=order.actor, reason=order.reason, version=order.version)


def tune_threads(workers: int) -> None:
    """Let torch use the cores that the predict workers leave to each of them: two workers on two cores take one
    each."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket, before anything is loaded; PortTaken when another process has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(port, "the data plane", "PERENNIAL_DATA_PLANE_PORT") from error
        raise StackError(
            f"the data plane cannot listen on {host}:{port} ({error.strerror}); set another host"
        ) from error
    return bound


def allow_connections() -> None:
    """Raise the soft limit of open files to the hard one. A flood of connections then meets the guard, which answers 429; uvicorn's own
    limit would answer 503 without saying when to come again, and a process without file numbers answers nothing at all."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run(settings: Settings) -> None:
    """Serve until a signal. Refuses to start on an address that others reach without a token, or on a taken port."""
    import uvicorn

    from perennial import wiring

    token = settings.data_plane_token
    check_exposure(settings.data_plane_host, token.get_secret_value() if token else None)
    bound = listening_socket(settings.data_plane_host, settings.data_plane_port)
    faults = os.environ.get("PERENNIAL_FAULTS") == "1"
    if faults:
        logger.warning("PERENNIAL_FAULTS=1: whoever may ask this gateway may spoil its answers; for drills only")
    services = services_of(settings, wiring.ports(settings), faults=faults)
    if services.serves is not DataPlanePart.INGEST:
        tune_threads(services.limits.predict_workers)
    config = uvicorn.Config(
        create_app(services), log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=4, ws="none",
    )  # fmt: skip
    allow_connections()
    uvicorn.Server(config).run(sockets=[bound])


def log_at(wanted: str) -> None:
    """Log from that level on; from INFO on, with a warning, where it is none: LOG_LEVEL may be meant for another program."""
    name = wanted.strip().upper()
    known = name in _LEVELS  # libraries add names of their own to logging's
    level = getattr(logging, name) if known else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not known:
        logger.warning(
            "log level %r is unknown, INFO is taken; set PERENNIAL_LOG_LEVEL to DEBUG, INFO, WARNING, ERROR or CRITICAL",
            wanted[:40],
        )


def main() -> None:
    """Read the settings and run; an error that we know ends with its message and code 1."""
    try:
        settings = load_settings()
        log_at(settings.log_level)
        run(settings)
    except PerennialError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
