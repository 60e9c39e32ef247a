"""The composition root: settings in, adapters out. The only place that chooses implementations."""

from __future__ import annotations

import os
import threading
from functools import partial

from pydantic import SecretStr

from perennial.alerts.store import PostgresAlerts
from perennial.audit.log import PostgresAuditLog
from perennial.fleet import loader
from perennial.fleet.override_store import PostgresOverrides
from perennial.flows.overrides import overridden
from perennial.flows.ports import Ports
from perennial.ingest.admit import Admission
from perennial.ingest.aside import PostgresAside
from perennial.ingest.buffer import PostgresBuffer
from perennial.ingest.job_log import JobLog, relay_outbox
from perennial.ingest.redaction_tasks import PostgresRedactionTasks
from perennial.registry.ledger import PostgresLedger
from perennial.registry.mlflow_store import MlflowStore
from perennial.retention.airflow_runs import AirflowRuns
from perennial.retention.store import PostgresRetention
from perennial.rollout.store import PostgresRollouts
from perennial.rollout.targets import FolderTarget
from perennial.settings import Settings, load_settings
from perennial.storage.database import Database
from perennial.storage.embeddings import PostgresEmbeddings
from perennial.storage.scans import PostgresScans
from perennial.trainers.bases import LocalBaseStore

_guard = threading.Lock()
_known: dict[tuple[int, str, str], Ports] = {}


def ports_from(settings: Settings) -> Ports:
    """Every adapter of one deployment. Connections are opened on first use, so this is cheap and safe at import of a task."""
    database = Database(settings.app_url())
    admit = Database(settings.admit_url(), max_size=2) if settings.admit_database_url is not None else None
    overrides = PostgresOverrides(database)
    return Ports(
        settings=settings,
        fleet=partial(overridden, partial(loader.load, settings.fleet_folder), overrides),
        buffer=PostgresBuffer(database),
        jobs=JobLog(database),
        relay=partial(relay_outbox, database, ()),
        admission=Admission(admit) if admit is not None else None,
        ledger=PostgresLedger(database),
        models=MlflowStore(settings.mlflow_url, _secret(settings.retention_mlflow_backend)),
        audit=PostgresAuditLog(database),
        rollouts=PostgresRollouts(database),
        targets={"folder": FolderTarget(settings.home / "serving")},
        bases=LocalBaseStore(folder=settings.home / "bases"),
        embeddings=PostgresEmbeddings(database),
        retention=PostgresRetention(database, admit),
        runs=AirflowRuns(settings),
        aside=PostgresAside(database),
        alerts=PostgresAlerts(database),
        overrides=overrides,
        redaction_tasks=PostgresRedactionTasks(database),
        scans=PostgresScans(database),
    )


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def ports(settings: Settings | None = None) -> Ports:
    """This process's ports, made once per database and process (a fork makes its own)."""
    chosen = settings or load_settings()
    key = (os.getpid(), chosen.app_url(), str(chosen.home))
    with _guard:
        if key not in _known:
            _known[key] = ports_from(chosen)
        return _known[key]
