"""The environment of each part: secrets travel here, never on a command line, which every user can read."""

from __future__ import annotations

import os
from pathlib import Path

from perennial.stack import postgres
from perennial.stack.files import read_json
from perennial.stack.home import Home, project_folder
from perennial.stack.ports import LOOPBACK, Ports
from perennial.stack.secrets import Secrets

# The user's own value of these wins; everything else that the stack sets is not negotiable.
_DEFAULTS = {
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "2",
    # an eight-task DAG takes 2 s instead of 9 s
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    # at 5 s, a finished task can hold its slot for as long
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # a running task outlives a restart of the API server, which takes 10 to 20 s
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "10",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "8",
    # agents are declared outside dags/, so a DAG file is read again even when it did not change itself
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__API__INSTANCE_NAME": "Perennial",
}  # fmt: skip

# Where another program of this shell keeps its data. The parts have the stack's own database, which they find in the home folder.
_OTHER_DATABASES = ("DATABASE_URL", "PERENNIAL_DATABASE_URL", "PERENNIAL_ADMIT_DATABASE_URL", "PERENNIAL_OWNER_DATABASE_URL")  # fmt: skip
_OTHER_BEGINNINGS = ("POSTGRES_", "PERENNIAL_PASSWORD_")


def of_another_database(name: str) -> bool:
    """True for a variable that would lead a part to a database, or give a role a password, that is not the stack's.

    >>> of_another_database("DATABASE_URL"), of_another_database("POSTGRES_HOST"), of_another_database("AIRFLOW_CONN_SHOP")
    (True, True, False)
    """
    return name in _OTHER_DATABASES or name.startswith(_OTHER_BEGINNINGS)


def _common(home: Home, ports: Ports) -> dict[str, str]:
    project = project_folder()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not of_another_database(name)
    }
    paths = [project / "include", project / "include" / "compat"]
    package = Path(__file__).resolve().parents[2]
    chain = [str(path) for path in dict.fromkeys([*paths, package]) if path.is_dir()]
    if os.environ.get("PYTHONPATH"):
        chain.append(os.environ["PYTHONPATH"])
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(chain),
        "PYTHONUNBUFFERED": "1",
        # torch's threads that spin while they wait take the cores from everything else: 12 to 31 s instead of 4 to 8 on two busy cores
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "PERENNIAL_HOME": str(home.root),
        "PERENNIAL_PROJECT": str(project),
        "PERENNIAL_FLEET_FOLDER": str(fleet_folder(home)),
        "PERENNIAL_PG_PORT": str(ports.postgres),
        "PERENNIAL_AIRFLOW_PORT": str(ports.airflow),
        "PERENNIAL_MLFLOW_PORT": str(ports.mlflow),
        "PERENNIAL_DATA_PLANE_PORT": str(ports.data_plane),
        # nobody is told what runs here, and nothing waits for an answer from outside
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "true",
        "SCARF_ANALYTICS": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": f"{LOOPBACK},localhost",
        "no_proxy": f"{LOOPBACK},localhost",
    }


def fleet_folder(home: Home) -> Path:
    """PERENNIAL_FLEET_FOLDER, ``fleet_folder`` of settings.json, or ``include/fleet`` of the project; StackError for a damaged file."""
    chosen = os.environ.get("PERENNIAL_FLEET_FOLDER") or read_json(home.settings_file).get("fleet_folder")
    return Path(str(chosen)).absolute() if chosen else project_folder() / "include" / "fleet"


def for_perennial(home: Home, ports: Ports) -> dict[str, str]:
    """Of the data plane: it reads everything else from the home folder."""
    return _common(home, ports)


def for_provision(home: Home, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """Of the steps that prepare databases."""
    return for_airflow(home, ports, secrets) | {
        "PERENNIAL_SUPERUSER_URL": postgres.url(ports.postgres, "postgres", "postgres", secrets.superuser)
    }


def for_mlflow(home: Home, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """Of the tracking server. Job execution off: it costs ten processes and 1.3 GB."""
    return _common(home, ports) | {
        "MLFLOW_BACKEND_STORE_URI": postgres.url(ports.postgres, "mlflow", "mlflow", secrets.mlflow),
        "MLFLOW_ARTIFACTS_DESTINATION": str(home.artifacts),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.session_secret,
    }


def for_airflow(home: Home, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """Of every Airflow process."""
    project = project_folder()
    forced = {
        "AIRFLOW_HOME": str(home.airflow),
        "PERENNIAL_MAKE_POOLS": "0",  # the step `pools` makes them, with the sizes of airflow_settings.yaml
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": secrets.fernet_key,
        "AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES": "airflow.* perennial.*",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{ports.airflow}/execution/",
        # the default asks DNS for the machine's full name, which hangs without a network
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        # role `user` may run DAGs and answer required actions, and neither pools nor connections; `op` may those too
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,editor:user,machine:op",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.passwords_file),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(
            ports.postgres, "airflow", "airflow", secrets.airflow
        ).replace("postgresql://", "postgresql+psycopg2://", 1),
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{ports.airflow}",
        "AIRFLOW__API__SECRET_KEY": secrets.session_secret,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.jwt_secret,
        "AIRFLOW__API_AUTH__JWT_ISSUER": "perennial",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home.logs / "tasks"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(home.logs / "dag-files"),
    }
    files = list(fleet_folder(home).glob("[!_]*.py"))
    defaults = _DEFAULTS | {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(parse_seconds(len(files)))}
    chosen = {name: os.environ.get(name, value) for name, value in defaults.items()}
    return _common(home, ports) | chosen | forced


def parse_seconds(agents: int) -> int:
    """How often the DAG processor reads a DAG file again: the time in which a new agent's DAGs appear. One reading of all files costs about
    2 s of one core, and 0.04 s for each agent, so that about a tenth of a core is spent on it, however large the fleet is at the start.

    >>> parse_seconds(1), parse_seconds(20), parse_seconds(100)
    (20, 20, 40)
    """
    return max(20, round(0.4 * agents))


def for_pools(home: Home, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """Of the step that applies airflow_settings.yaml: values of the file may name any variable of the shell, and no database is opened."""
    others = {name: value for name, value in os.environ.items() if of_another_database(name)}
    return others | for_airflow(home, ports, secrets)


def for_workers(home: Home, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """Of the processes in which our tasks and triggers run: Airflow's, with the connections to the buffer."""
    plain = {
        "AIRFLOW_CONN_PERENNIAL_DB": ("perennial_app", secrets.perennial_app),
        "AIRFLOW_CONN_PERENNIAL_ADMIT_DB": ("perennial_admit", secrets.perennial_admit),
    }
    connections = {
        name: postgres.url(ports.postgres, "perennial", role, password).replace("postgresql://", "postgres://", 1)
        for name, (role, password) in plain.items()
    }
    return (
        for_airflow(home, ports, secrets) | connections | {"MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{ports.mlflow}"}
    )


def for_scheduler(home: Home, ports: Ports, secrets: Secrets) -> dict[str, str]:
    """Of the scheduler, whose children are the workers: heavy imports are made here once, before the fork."""
    environment = for_workers(home, ports, secrets)
    if warm_workers():
        folder = str(Path(__file__).with_name("warm"))
        environment["PYTHONPATH"] = os.pathsep.join([folder, environment["PYTHONPATH"]])
        # threads that start at import do not survive a fork
        environment["OPENBLAS_NUM_THREADS"] = "1"
    return environment


def warm_workers() -> bool:
    """Off with PERENNIAL_WARM_WORKERS=0."""
    return os.environ.get("PERENNIAL_WARM_WORKERS", "1").strip().lower() not in ("0", "false", "no", "off")
