"""docker-compose.yaml and the Dockerfile: no secret, nothing beyond loopback, nobody root, and nothing in them that does not exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[3]
TEXT = (REPOSITORY / "docker-compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]


@pytest.mark.req("D2", "M62")
def test_every_part_is_there() -> None:
    assert set(SERVICES) == {
        "postgres", "redis", "minio", "setup", "mlflow", "airflow-api", "pools", "scheduler", "dag-processor", "triggerer",
        "worker", "gpu-worker", "ingest", "gateway",
    }  # fmt: skip


def test_no_secret_is_written_down_and_every_one_is_required() -> None:
    used = re.findall(r"\$\{(\w+)(:\?)?", re.sub(r"(?m)^\s*#.*", "", TEXT))
    assert len(used) > 10
    assert [name for name, required in used if not required] == []
    assert not re.findall(r"(?i)password: (?!\$)\S", TEXT)


def test_ports_are_published_on_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_modules_that_containers_run_exist() -> None:
    words = " ".join(str(service.get("command", "")) for service in SERVICES.values())
    modules = set(re.findall(r"perennial\.[\w.]+", words))
    assert "perennial.stack.pools" in modules
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_only_workers_may_read_originals_and_sign() -> None:
    holders = {
        name
        for name, service in SERVICES.items()
        for key in service.get("environment", {})
        if key in ("PERENNIAL_ADMIT_DATABASE_URL", "AIRFLOW_CONN_PERENNIAL_ADMIT_DB", "PERENNIAL_SIGNING_KEY_FILE")
    }
    assert holders == {"worker"}  # and not the one that trains


def test_nobody_is_an_admin_without_a_login() -> None:
    for name in ("airflow-api", "scheduler"):
        assert SERVICES[name]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"


# --- nothing in the files that does not exist -----------------------------------------------------------------------------

OURS = {name: one for name, one in SERVICES.items() if "build" in one}
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
# read outside Settings, each where the name is documented
ELSEWHERE = {
    "PERENNIAL_HOME", "PERENNIAL_PROJECT", "PERENNIAL_SUPERUSER_URL", "PERENNIAL_REDACTION_KEY",
    *(f"PERENNIAL_PASSWORD_{role}" for role in ("PERENNIAL_OWNER", "PERENNIAL_APP", "PERENNIAL_ADMIT", "AIRFLOW", "MLFLOW")),
}  # fmt: skip
# of the images' own documentation: Docker Official Images postgres and redis, MinIO, boto3, MLflow, Python, OpenMP, OpenBLAS
DOCUMENTED = {
    "POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS", "REDISCLI_AUTH", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "PYTHONUNBUFFERED", "PATH", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY", "AIRFLOW_HOME",
    "MLFLOW_DISABLE_TELEMETRY", "GX_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "SCARF_ANALYTICS", "DO_NOT_TRACK",
    "PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK",
}  # fmt: skip
# the Celery provider is in the containers' lock alone; these are in its documentation ("Configuration Reference")
CELERY = {"AIRFLOW__CELERY__BROKER_URL", "AIRFLOW__CELERY__RESULT_BACKEND"}


def variables() -> Iterator[str]:
    for service in SERVICES.values():
        yield from service.get("environment", {})
    for block in re.findall(r"^ENV (.*?)(?<!\\)$", DOCKERFILE, re.MULTILINE | re.DOTALL):
        yield from (word.partition("=")[0] for word in shlex.split(block.replace("\\\n", " ")))


@pytest.mark.req("M60")
def test_every_variable_is_a_setting_of_somebody() -> None:
    from airflow.configuration import conf

    from perennial.settings import Settings

    def known(name: str) -> bool:
        if name.startswith("AIRFLOW__"):
            _, section, key = name.lower().split("__", 2)
            return name in CELERY or key in conf.configuration_description.get(section, {}).get("options", {})
        if name.startswith("AIRFLOW_CONN_"):
            return name in {"AIRFLOW_CONN_PERENNIAL_DB", "AIRFLOW_CONN_PERENNIAL_ADMIT_DB"}
        if name.startswith("PERENNIAL_"):
            return name in ELSEWHERE or name.removeprefix("PERENNIAL_").lower() in Settings.model_fields
        return name in DOCUMENTED or name in mlflow

    import mlflow.environment_variables as mlflow_variables

    mlflow = {getattr(value, "name", "") for value in vars(mlflow_variables).values()} | {
        # read by its command line (click's auto_envvar_prefix)
        "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    }  # fmt: skip
    found = set(variables())
    assert len(found) > 50
    assert sorted(name for name in found if not known(name)) == []
    text = "\n".join(path.read_text() for path in (REPOSITORY / "include/perennial").rglob("*.py"))
    assert [name for name in ELSEWHERE if name not in text and not name.startswith("PERENNIAL_PASSWORD_")] == []
    assert 'f"PERENNIAL_PASSWORD_{role.upper()}"' in text


@pytest.mark.req("M60")
def test_every_command_is_understood_by_its_own_parser() -> None:
    from airflow.cli.cli_parser import get_parser

    airflow = get_parser()
    for name, service in OURS.items():
        program, *words = service["command"]
        if program == "airflow" and words[0] == "celery":
            # the provider is not installed here; these are its parser's words (docs/deploy.md has them run for real)
            assert words[1] == "worker"
            assert set(words[2::2]) <= {"--queues", "--concurrency"}
        elif program == "airflow":
            assert airflow.parse_args(words).func is not None, name
        elif program == "mlflow":
            from mlflow.cli import cli

            server = cli.commands["server"].make_context("server", words[1:])
            assert server.params["workers"] == "1"
        elif program == "python":
            assert words[0] == "-m"
            assert importlib.util.find_spec(words[1]) is not None, words
        else:
            assert name == "setup"
            lines = service["command"][2].strip().splitlines()
            for line in lines:
                assert_provision_knows(shlex.split(line))
            # the server is the file's own, so the roles of Airflow and MLflow are its to make
            assert "python -m perennial.stack.provision all-databases" in lines


def assert_provision_knows(words: list[str]) -> None:
    from perennial.stack import provision

    assert words[:3] == ["python", "-m", "perennial.stack.provision"]
    called: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        for step in ("databases", "keys", "airflow_tables", "bucket"):
            patch.setattr(provision, step, lambda *args, **how: called.append((args, how)))
        patch.setattr(provision, "read_or_make", lambda _: None)
        assert provision.main(words[3:]) == 0
    assert len(called) == 1


@pytest.mark.req("M60")
def test_what_runs_for_long_is_checked_and_limited_and_nobody_is_root() -> None:
    for name, service in SERVICES.items():
        if name in {"setup", "pools"}:
            continue
        check = service["healthcheck"]
        assert {"test", "interval", "timeout", "retries"} <= set(check), name
        assert service["mem_limit"], name
    for service in OURS.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001"]
    assert DOCKERFILE.rindex("USER 10001") > DOCKERFILE.rindex("RUN ")
    assert len(re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE)) == 2


def test_secrets_travel_in_no_command_line() -> None:
    for name, service in SERVICES.items():
        words = " ".join(
            [*map(str, service.get("command", [])), *map(str, service.get("healthcheck", {}).get("test", []))]
        )
        assert not re.search(r"(?<!\$)\$\{?\w*(SECRET|PASSWORD|KEY)", words), name


def test_every_file_that_the_image_copies_is_in_the_repository_and_let_in() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word.removeprefix("./")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == allowed
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []


def test_the_gpu_override_changes_a_service_that_exists() -> None:
    over = yaml.safe_load((REPOSITORY / "deploy/docker-compose.gpu.yaml").read_text())["services"]
    assert set(over) == {"gpu-worker"}
    (device,) = over["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    queue = SERVICES["gpu-worker"]["command"][SERVICES["gpu-worker"]["command"].index("--queues") + 1]
    assert queue == SERVICES["dag-processor"]["environment"]["PERENNIAL_TRAIN_QUEUE"]


def test_the_server_is_no_newer_than_the_client_programs_of_the_image() -> None:
    import subprocess

    from perennial.stack import postgres

    said = subprocess.run([postgres.binary("pg_dump"), "--version"], capture_output=True, text=True, check=True).stdout
    (client,) = re.findall(r"\) (\d+)", said)
    assert SERVICES["postgres"]["image"] == f"postgres:{client}"
    # where images up to 17 keep the data; beside it, a container made anew would begin empty
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
