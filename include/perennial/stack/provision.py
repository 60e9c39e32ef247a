"""Steps that prepare a deployment: ``python -m perennial.stack.provision STEP``, where a STEP is
``databases|all-databases|airflow|mlflow|mlflow-check|keys|bucket NAME|forget JOB``.

``databases`` is for a server that others use too: it knows our three roles and the database ``perennial``, and nothing else.
``all-databases`` is for a server of our own (the embedded one, the one in docker-compose.yaml), where the roles and databases of Airflow
and MLflow are ours as well.

They run in processes of their own, so that the supervisor needs no driver. Each may be repeated. The supervisor starts
them, and so does docker-compose.yaml, with the passwords in the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from perennial.errors import NotConfigured, PerennialError, StackError
from perennial.settings import load_settings
from perennial.stack.files import read_json, write_private
from perennial.stack.home import Home, home
from perennial.stack.launch import LAUNCH
from perennial.stack.secrets import Secrets, read_or_make, signing_keys
from perennial.storage.queries import load

PROVISION = "perennial.stack.provision"
MIGRATION_SECONDS = 3600.0  # of another's tables; killed by it, a migration is run again
_OURS = ("perennial_owner", "perennial_app", "perennial_admit")
_TENANTS = ("airflow", "mlflow")  # each a role, and the database that it owns
_ACCOUNT = (
    "PERENNIAL_SUPERUSER_URL must name an account that may make roles and databases, and change those that are there"
)
_JOB_TYPES = ("SchedulerJob", "TriggererJob", "DagProcessorJob")


def _connect(database: str, superuser_url: str | None = None) -> Any:
    import psycopg

    url = (
        superuser_url
        or os.environ.get("PERENNIAL_SUPERUSER_URL")
        or os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    )
    if not url:
        raise NotConfigured("PERENNIAL_SUPERUSER_URL", "this step is started by the supervisor")
    parts = urlsplit(url.replace("postgresql+psycopg2://", "postgresql://", 1))
    return psycopg.connect(urlunsplit(parts._replace(path=f"/{database}")), autocommit=True, connect_timeout=10)


def _given_passwords() -> dict[str, str]:
    named = {role: os.environ.get(f"PERENNIAL_PASSWORD_{role.upper()}") for role in (*_OURS, *_TENANTS)}
    return {role: password for role, password in named.items() if password}


def databases(secrets: Secrets, *, whole: bool = False) -> None:
    """Our roles, the database ``perennial`` and its migrations; with ``whole`` also what Airflow and MLflow need.

    A new role's password is PERENNIAL_PASSWORD_<ROLE>, or the one in the home folder.
    """
    from perennial.storage.migrate import migrate

    superuser, owner = os.environ.get("PERENNIAL_SUPERUSER_URL"), load_settings().owner_url()
    if not superuser:
        raise NotConfigured("PERENNIAL_SUPERUSER_URL", "an account that may make roles and databases")
    make_databases(secrets, superuser, whole=whole)
    with _refusals("PERENNIAL_OWNER_DATABASE_URL must name perennial_owner with its password"):
        applied = migrate(owner)
    print(f"migrations applied now: {', '.join(applied) or 'none'}")


def make_databases(
    secrets: Secrets, superuser_url: str, *, whole: bool, given: Mapping[str, str] | None = None
) -> None:
    """Roles with their passwords and the databases, with nothing in them yet; what is there stays.

    ``given`` are passwords by role (default: those of the environment); the others are ``secrets``. A role that exists gets a password
    where one is given, and with ``whole``, since then the server is ours. An account that may make roles and databases is enough.
    StackError when the server refuses, or a database stays open to everybody.
    """
    from psycopg import sql

    queries = load("perennial.stack")
    given = _given_passwords() if given is None else given
    owners = {"perennial": "perennial_owner"} | ({name: name for name in _TENANTS} if whole else {})
    with _refusals(_ACCOUNT), _connect("postgres", superuser_url) as admin:
        known_roles = {row[0] for row in admin.execute(queries["roles"])}
        for role in (*_OURS, *_TENANTS) if whole else _OURS:
            if role in known_roles and role not in given and not whole:
                continue  # its password may be in use
            verb = queries["change_role"] if role in known_roles else queries["make_role"]
            password = given.get(role) or str(getattr(secrets, role))
            admin.execute(sql.SQL(verb).format(role=sql.Identifier(role), password=sql.Literal(password)))
        known = {row[0] for row in admin.execute(queries["databases"])}
        for name, owner in sorted(owners.items()):
            if name in known and _is_closed(admin, name):
                continue
            with _member(admin, owner):
                words = {"database": sql.Identifier(name), "owner": sql.Identifier(owner)}
                if name not in known:
                    admin.execute(sql.SQL(queries["make_database"]).format(**words))
                admin.execute(sql.SQL(queries["close_database"]).format(**words))
                for role in ("perennial_app", "perennial_admit") if name == "perennial" else ():
                    admin.execute(sql.SQL(queries["open_database"]).format(role=sql.Identifier(role)))
            if not _is_closed(admin, name):  # without the right to do so, PostgreSQL only warns
                raise StackError(f"everybody may still enter the database {name}, or our roles may not; {_ACCOUNT}")


def _is_closed(admin: Any, database: str) -> bool:
    row = admin.execute(load("perennial.stack")["is_closed"], {"database": database}).fetchone()
    return bool(row[0])


@contextmanager
def _member(admin: Any, owner: str) -> Iterator[None]:
    """The account as a member of ``owner`` for the block: who is no superuser may give a database only to a role that it can take."""
    from psycopg import sql

    queries = load("perennial.stack")
    before = admin.execute(queries["may_act_as"], {"role": owner}).fetchone()[0]
    if not before:
        admin.execute(sql.SQL(queries["join_role"]).format(role=sql.Identifier(owner)))
    try:
        yield
    finally:
        if not before:
            admin.execute(sql.SQL(queries["leave_role"]).format(role=sql.Identifier(owner)))


@contextmanager
def _refusals(remedy: str) -> Iterator[None]:
    """The driver's errors as StackError, with the server's sentence."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).partition("\n")[0]
        raise StackError(f"PostgreSQL refuses: {said}; {remedy}") from error


def airflow_tables() -> None:
    """``airflow db migrate``, unless this very version of Airflow did it before (noted as the database's comment).

    Jobs of an earlier life of the stack are forgotten: nothing of Airflow runs yet.
    """
    from psycopg import sql

    queries = load("perennial.stack")
    wanted = f"migrated by apache-airflow {version('apache-airflow')}"
    with _connect("airflow") as database:
        row = database.execute(queries["note_of_database"]).fetchone()
        if row is not None and row[0] == wanted:
            for job_type in _JOB_TYPES:
                database.execute(queries["forget_jobs"], {"job_type": job_type})
            return
        code = subprocess.run(
            [sys.executable, "-m", LAUNCH, "airflow", "db", "migrate"], check=False, timeout=MIGRATION_SECONDS
        ).returncode
        if code:
            raise StackError(f"`airflow db migrate` ended with exit code {code}; its words are above")
        database.execute(sql.SQL(queries["write_note"]).format(note=sql.Literal(wanted)))


def mlflow_tables(*, check: bool) -> int:
    """Upgrade the tables of MLFLOW_BACKEND_STORE_URI; with ``check`` only 0 (up to date) or 3 (behind). As `mlflow db upgrade`, but
    without the password on the command line. An empty database is MLflow's own to fill, when its server starts."""
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
    try:
        latest = utils._get_latest_schema_revision()
        if utils._is_empty_database(engine) or utils._get_schema_version(engine) == latest:
            return 0
        if check:
            return 3
        utils._upgrade_db(engine)
        return 0
    finally:
        engine.dispose()


def forget(job_type: str) -> None:
    """Mark earlier jobs of a component as failed: their processes are dead, there is one of each kind, and it starts now.

    Airflow would find out by itself after its health threshold; until then tasks of a dead scheduler stay "running"
    and triggers of a dead triggerer belong to nobody.
    """
    with _connect("airflow") as database:
        database.execute(load("perennial.stack")["forget_jobs"], {"job_type": job_type})


def keys(place: Home) -> None:
    """The signing key (its password is PERENNIAL_SIGNING_KEY_PASSWORD, or the one in the home folder) and Airflow's logins."""
    place.make()
    secrets = read_or_make(place)
    signing_keys(place, os.environ.get("PERENNIAL_SIGNING_KEY_PASSWORD") or secrets.signing_key_password)
    known = {name: str(password) for name, password in read_json(place.passwords_file).items()}
    logins = secrets.logins() | known
    machine = load_settings().airflow_password
    if machine is not None:  # other containers know it by their environment
        logins["machine"] = machine.get_secret_value()
    if logins != known:
        write_private(place.passwords_file, json.dumps(logins))


def bucket(name: str) -> None:
    """The bucket of MLFLOW_S3_ENDPOINT_URL that keeps MLflow's artifacts; one that exists is fine. Needs ``perennial[s3]``."""
    import boto3  # type: ignore[import-not-found]
    from botocore.exceptions import ClientError  # type: ignore[import-not-found]

    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    if not endpoint:
        raise NotConfigured("MLFLOW_S3_ENDPOINT_URL", "it is where the object store listens")
    try:
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise StackError(f"the object store refuses to make the bucket {name} ({code})") from error


def main(words: list[str]) -> int:
    """Do one step; the exit code says whether it worked."""
    match words:
        case ["databases"]:
            databases(read_or_make(home()))
        case ["all-databases"]:
            databases(read_or_make(home()), whole=True)
        case ["keys"]:
            keys(home())
        case ["airflow"]:
            airflow_tables()
        case ["mlflow"]:
            return mlflow_tables(check=False)
        case ["mlflow-check"]:
            return mlflow_tables(check=True)
        case ["bucket", name]:
            bucket(name)
        case ["forget", job_type]:
            forget(job_type)
        case _:
            raise StackError(
                "say databases, all-databases, airflow, mlflow, mlflow-check, keys, bucket NAME or forget JOB_TYPE"
            )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PerennialError as error:
        sys.exit(f"{type(error).__name__}: {error}")
