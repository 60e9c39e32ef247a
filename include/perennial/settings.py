"""Settings, read when called and never at import.

Order: constructor, environment, ``connections.json`` and ``settings.json`` in PERENNIAL_HOME
(written by ``perennial up``), default.
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from perennial.errors import NotConfigured, StackError


class DataPlanePart(StrEnum):
    """What one process of the data plane serves."""

    BOTH = "both"
    INGEST = "ingest"  # examples, feedback, corrections, reports; loads no model
    GATEWAY = "gateway"  # predictions, outcomes, rollback


def home_folder() -> Path:
    """PERENNIAL_HOME, or ``.perennial``: in the working directory, and in a process of Airflow in its AIRFLOW_HOME."""
    chosen = os.environ.get("PERENNIAL_HOME")
    return Path(chosen).absolute() if chosen else _beside(".perennial")


def fleet_folder() -> Path:
    """``include/fleet`` of the working directory, or of AIRFLOW_HOME when it is only there."""
    return _beside("include/fleet")


def _beside(name: str) -> Path:
    here, airflow = Path(name).absolute(), os.environ.get("AIRFLOW_HOME")
    if airflow and not here.exists():
        return Path(airflow).absolute() / name
    return here


class _HomeFiles(PydanticBaseSettingsSource):
    """Reads what ``perennial up`` wrote into the home folder."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("connections.json", "settings.json"):
            path = home_folder() / name
            if path.is_file():
                found.update(read_object(path))
        return {key: value for key, value in found.items() if key in self.settings_cls.model_fields}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the home folder; StackError names a damaged one, FileNotFoundError when there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # its words may hold what was read
        place = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it is not UTF-8"
        raise StackError(f"{path} is damaged ({place}); correct it, or move it away") from error
    if not isinstance(found, dict):
        raise StackError(f"{path} does not hold a JSON object; correct it, or move it away")
    return found


class _Database(PydanticBaseSettingsSource):
    """The app role's URL under the names that programs without Perennial know too: PERENNIAL_DATABASE_URL, DATABASE_URL, POSTGRES_*."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        url = os.environ.get("PERENNIAL_DATABASE_URL") or os.environ.get("DATABASE_URL") or _postgres_url()
        return {"database_url": url} if url else {}


class Settings(BaseSettings):
    """Everything that a deployment can change. Environment names start with ``PERENNIAL_``; the legacy names do not."""

    model_config = SettingsConfigDict(env_prefix="PERENNIAL_", extra="ignore", populate_by_name=True)

    home: Path = Field(default_factory=home_folder)  # state, keys, logs, models; one folder that all workers share
    fleet_folder: Path = Field(default_factory=fleet_folder)  # the agents' files

    # PostgreSQL, one URL per role: app (ingest, tasks, gateway), admit (may read originals), owner (migrations)
    database_url: SecretStr | None = None  # of role perennial_app; also DATABASE_URL, or POSTGRES_HOST and its sisters
    admit_database_url: SecretStr | None = None  # of role perennial_admit, only where tasks admit
    owner_database_url: SecretStr | None = None  # of role perennial_owner, for `perennial migrate` and upgrades alone

    # tracking server and registry; a login in it (http://user:password@host) is shown to nobody
    mlflow_url: str = Field("http://127.0.0.1:5500", repr=False)
    airflow_url: str = "http://127.0.0.1:8080"  # Airflow's API
    airflow_user: str = "machine"  # who notes, pauses and deletes runs there
    airflow_password: SecretStr | None = None  # of that user
    airflow_token: SecretStr | None = None  # instead of user and password, where Airflow's login is another system's
    make_pools: bool = True  # whether Airflow's processes make our pools when they are missing

    train_queue: str = ""  # queue of the trainings under Celery; empty: Airflow's default; see Agent.queue
    train_pod_override: Path | None = None  # KubernetesExecutor: a pod in YAML, merged over the pod of every training

    # address that ingest API and gateway listen on; beyond loopback only with a token
    data_plane_host: str = "127.0.0.1"
    data_plane_port: int = 8600  # where they listen
    data_plane_token: SecretStr | None = None  # what callers send as bearer token
    data_plane_serves: DataPlanePart = DataPlanePart.BOTH  # ingest API, gateway or both in this process
    data_plane_url: str = "http://127.0.0.1:8600"  # where links from Airflow's pages lead, and `perennial demo` sends

    signing_key_file: Path | None = None  # private key, for workers that release
    signing_key_password: SecretStr | None = None  # opens it
    verify_key_file: Path | None = None  # public key, for whoever serves; retired.json lies beside it
    # folder of public keys, NAME.pub, of deployments whose releases may be imported
    trusted_senders: Path | None = None

    # whether a trainer may fetch an encoder from the Hugging Face Hub that is not on this machine
    allow_hub: bool = False
    run_scripts: bool = False  # whether agents' own scripts (trainer `command`) may run here, to train and to answer
    inbox: Path | None = None  # the drop folder, see below
    freeze: str = ""  # freeze windows of every agent, separated by commas; see Agent.freeze
    # roles on the pages by Airflow's user id, as JSON: {"ana": "operator"}; who is not named has what Airflow lets them do
    pages_grants: dict[str, str] = Field(default_factory=dict)
    # how much the data plane logs: DEBUG, INFO, WARNING, ERROR, CRITICAL; LOG_LEVEL is read too
    log_level: str = Field("INFO", validation_alias=AliasChoices("PERENNIAL_LOG_LEVEL", "LOG_LEVEL"))

    # what the DAG `retention` and `perennial retention` keep (docs/trust.md); days are whole days of age
    retention_keep_versions: int = Field(20, ge=1)  # newest versions of an agent, whatever became of them
    retention_keep_champions: int = Field(5, ge=2)  # newest different champions of an agent: the way back
    retention_predictions_days: int = Field(30, ge=1)  # answers and outcomes
    retention_recent_inputs_days: int = Field(7, ge=1)  # requests that a shadow replay asks again
    retention_gateways_days: int = Field(1, ge=1)  # rows of gateways that are gone
    retention_outbox_days: int = Field(7, ge=1)  # announcements that were relayed
    retention_rejected_days: int = Field(90, ge=1)  # records that never became an example
    retention_purge_days: int = Field(30, ge=1)  # texts of superseded and evicted examples
    # texts that a version learned; by default never, since `reproduce` needs them
    retention_trained_days: int | None = Field(None, ge=1)
    retention_embeddings_days: int = Field(30, ge=2)  # vectors of texts, since they were last used
    retention_scanned_texts_days: int = Field(30, ge=2)  # scans for personal data, since they were last asked for
    # questions that nobody answered: the stand-ins stay, the words go
    retention_redaction_tasks_days: int = Field(30, ge=1)
    retention_refused_days: int = Field(30, ge=1)  # MLflow runs of candidates that were not released
    retention_workspace_days: int = Field(1, ge=1)  # folders of finished jobs, half-made copies, cached bundles
    retention_bases_days: int = Field(7, ge=1)  # encoders that no version names
    retention_airflow_days: int = Field(14, ge=1)  # our DAG runs with their XComs
    retention_logs_days: int = Field(14, ge=1)  # task logs of the embedded stack
    # only where MLflow's own database is reached: without it deleted runs stay there as rows
    retention_mlflow_backend: SecretStr | None = None

    # what the DAG `alerts` tells people about (docs/operations.md)
    alert_quiet_hours: float = Field(24.0, gt=0)  # without a row, after which an agent that had some is quiet
    alert_audit_hours: float = Field(24.0, gt=0)  # how often the whole chain of the audit is verified
    alert_lease_seconds: float = Field(300.0, ge=0)  # a lease may be over for so long: the next claim sweeps it

    # names of the predecessor, with its own prefix: a bare name would be read from whatever else the shell runs

    # rows that make an agent due
    update_threshold: int = Field(50, ge=1, validation_alias="TRAINING_UPDATE_THRESHOLD")
    # waiting rows of an agent, beyond it the least valuable leave
    max_buffer_size: int = Field(1000, ge=1, validation_alias="TRAINING_MAX_BUFFER_SIZE")
    # newest holdout rows that the gates look at apart
    performance_window: int = Field(100, ge=1, validation_alias="TRAINING_PERFORMANCE_WINDOW")
    # drop beside the champion that holds a candidate
    rollback_threshold: float = Field(0.05, gt=0, lt=1, validation_alias="TRAINING_ROLLBACK_THRESHOLD")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        return init_settings, _Database(settings_cls), env_settings, _HomeFiles(settings_cls)

    def app_url(self) -> str:
        """URL of the app role: the constructor's, PERENNIAL_DATABASE_URL, DATABASE_URL, POSTGRES_*, then the home folder's."""
        if self.database_url is None:
            raise NotConfigured(
                "PERENNIAL_DATABASE_URL",
                "start the stack with `perennial up`, or set it or POSTGRES_HOST and its sisters",
            )
        return self.database_url.get_secret_value()

    def admit_url(self) -> str:
        """URL of the role that may read originals."""
        if self.admit_database_url is None:
            raise NotConfigured(
                "PERENNIAL_ADMIT_DATABASE_URL", "only the admit flow needs it; start the stack or set it there"
            )
        return self.admit_database_url.get_secret_value()

    def owner_url(self) -> str:
        """URL of the owner role, for migrations alone."""
        if self.owner_database_url is None:
            raise NotConfigured("PERENNIAL_OWNER_DATABASE_URL", "only `perennial migrate` needs it")
        return self.owner_database_url.get_secret_value()


def _postgres_url() -> str | None:
    host = os.environ.get("POSTGRES_HOST")
    if not host:
        return None
    user, password = os.environ.get("POSTGRES_USER", "postgres"), os.environ.get("POSTGRES_PASSWORD", "")
    port, name = os.environ.get("POSTGRES_PORT", "5432"), os.environ.get("POSTGRES_DB", "perennial")
    secret = f":{quote(password, safe='')}" if password else ""
    return f"postgresql://{quote(user, safe='')}{secret}@{host}:{port}/{quote(name, safe='')}"


def without_login(url: str) -> str:
    """An address as people may see it: without user, password and query. What is no URL comes back as it is.

    >>> without_login("http://trainer:secret@mlflow:5000/base"), without_login("databricks")
    ('http://mlflow:5000/base', 'databricks')
    """
    scheme, mark, rest = url.partition("://")
    # the last @, since a password that was not quoted may hold one, and a /, too
    return f"{scheme}{mark}{rest.rpartition('@')[2].partition('?')[0]}" if mark else url


def load_settings(**overrides: Any) -> Settings:
    """Read the settings now; keyword arguments win over everything."""
    return Settings(**overrides)
