"""What `python -m perennial.stack.provision` does to a server that others use too, and to one of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perennial.errors import NotConfigured, StackError
from perennial.stack import provision
from perennial.stack.home import Home
from perennial.stack.secrets import read_or_make
from tests.postgres_fixture import Server

OURS = ("perennial_owner", "perennial_app", "perennial_admit")
THEIRS = ("airflow", "mlflow")


def logs_in(server: Server, role: str, password: str, database: str = "postgres") -> bool:
    try:
        psycopg.connect(f"postgresql://{role}:{password}@127.0.0.1:{server.port}/{database}", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def admin(postgres_server: Server) -> Iterator[Any]:
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def server(postgres_server: Server, admin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Somebody's server: roles and databases of an Airflow and an MLflow of theirs, and a reader whom PUBLIC lets in.

    The roles of Perennial are there with the password that the other tests use, and have it again at the end.
    """
    right = postgres_server.url("postgres", OURS[0])
    for name in THEIRS:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'theirs'")
        admin.execute(f"CREATE DATABASE {name} OWNER {name}")
    admin.execute("CREATE ROLE reader LOGIN PASSWORD 'reads'")
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERENNIAL_SUPERUSER_URL", postgres_server.url("postgres"))
    monkeypatch.setenv("PERENNIAL_OWNER_DATABASE_URL", postgres_server.url("perennial", OURS[0]))
    for role in (*OURS, *THEIRS):
        monkeypatch.delenv(f"PERENNIAL_PASSWORD_{role.upper()}", raising=False)
    Home(root=tmp_path / "home").make()
    yield postgres_server
    password = right.partition("://")[2].partition(":")[2].partition("@")[0]
    for name in ("perennial", *THEIRS):
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    for role in OURS:
        admin.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
    for role in (*THEIRS, "reader"):
        admin.execute(f"DROP ROLE {role}")


def test_on_ones_own_server_it_touches_our_roles_and_our_database_alone(server: Server, admin: Any) -> None:
    for _ in range(2):  # it may be repeated
        assert provision.main(["databases"]) == 0
    for name in THEIRS:
        assert logs_in(server, name, "theirs", name)
        assert logs_in(server, "reader", "reads", name)
    with psycopg.connect(server.url("perennial", "perennial_app")) as connection:  # with the password that it had
        assert connection.execute("SELECT count(*) FROM perennial.examples").fetchone() == (0,)
    assert not logs_in(server, "reader", "reads", "perennial")
    owners = dict(admin.execute("SELECT datname, pg_get_userbyid(datdba) FROM pg_database").fetchall())
    assert (owners["perennial"], owners["airflow"]) == ("perennial_owner", "airflow")


def test_a_role_that_exists_gets_a_password_only_where_one_is_given(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_PASSWORD_PERENNIAL_APP", "given")
    monkeypatch.setenv("PERENNIAL_PASSWORD_AIRFLOW", "given")  # left over in the shell
    provision.main(["databases"])
    assert logs_in(server, "perennial_app", "given", "perennial")
    assert not logs_in(server, "perennial_admit", "given", "perennial")
    psycopg.connect(server.url("perennial", "perennial_admit"), connect_timeout=5).close()
    assert logs_in(server, "airflow", "theirs", "airflow")


def test_on_a_server_of_our_own_it_makes_all_three_and_every_password_is_ours(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = read_or_make(Home(root=tmp_path / "home"))
    place = f"127.0.0.1:{server.port}/perennial"
    monkeypatch.setenv(
        "PERENNIAL_OWNER_DATABASE_URL", f"postgresql://perennial_owner:{secrets.perennial_owner}@{place}"
    )
    monkeypatch.setenv("PERENNIAL_PASSWORD_MLFLOW", "of-the-containers")
    assert provision.main(["all-databases"]) == 0
    assert logs_in(server, "perennial_app", secrets.perennial_app, "perennial")
    assert logs_in(server, "airflow", secrets.airflow, "airflow")
    assert logs_in(server, "mlflow", "of-the-containers", "mlflow")
    for name in (*THEIRS, "perennial"):
        assert not logs_in(server, "reader", "reads", name)


def test_a_restore_gives_the_passwords_of_its_home_whatever_the_shell_says(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = read_or_make(Home(root=tmp_path / "home"))
    monkeypatch.setenv("PERENNIAL_PASSWORD_PERENNIAL_OWNER", "of-another-deployment")
    provision.make_databases(secrets, server.url("postgres"), whole=True, given={})
    assert logs_in(server, "perennial_owner", secrets.perennial_owner, "perennial")
    assert logs_in(server, "airflow", secrets.airflow, "airflow")


@pytest.fixture
def managed(server: Server, admin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of an account as managed PostgreSQL gives it: it may make roles and databases, and is no superuser. Roles of ours are
    not there yet."""
    for role in OURS:
        admin.execute(f"ALTER ROLE {role} RENAME TO {role}_aside")
    admin.execute("CREATE ROLE managed LOGIN CREATEROLE CREATEDB PASSWORD 'managed'")
    url = f"postgresql://managed:managed@127.0.0.1:{server.port}/postgres"
    monkeypatch.setenv("PERENNIAL_SUPERUSER_URL", url)
    secrets = read_or_make(Home(root=tmp_path / "home"))
    monkeypatch.setenv(
        "PERENNIAL_OWNER_DATABASE_URL",
        f"postgresql://perennial_owner:{secrets.perennial_owner}@127.0.0.1:{server.port}/perennial",
    )
    yield url
    for name in ("perennial", *THEIRS):
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    for role in (*OURS, "managed"):
        admin.execute(f"DROP ROLE IF EXISTS {role}")
    for role in OURS:
        admin.execute(f"ALTER ROLE {role}_aside RENAME TO {role}")


def test_an_account_that_may_only_make_roles_and_databases_is_enough(server: Server, admin: Any, managed: str) -> None:
    for _ in range(2):  # it may be repeated
        assert provision.main(["databases"]) == 0
    owner = admin.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'perennial'").fetchone()
    assert owner == ("perennial_owner",)
    assert not logs_in(server, "reader", "reads", "perennial")
    assert not logs_in(server, "managed", "managed", "perennial")  # what it was given for the moment is gone
    assert admin.execute("SELECT pg_has_role('managed', 'perennial_owner', 'SET')").fetchone() == (False,)


def test_a_membership_that_was_there_before_stays(server: Server, admin: Any, managed: str) -> None:
    admin.execute("CREATE ROLE perennial_owner LOGIN PASSWORD 'x'")
    admin.execute("GRANT perennial_owner TO managed WITH ADMIN OPTION")
    with pytest.raises(StackError, match=r"password.*PERENNIAL_OWNER_DATABASE_URL"):  # it kept its own
        provision.main(["databases"])
    assert admin.execute("SELECT pg_has_role('managed', 'perennial_owner', 'SET')").fetchone() == (True,)
    assert not logs_in(server, "reader", "reads", "perennial")


def test_what_the_server_refuses_is_an_error_that_says_so(server: Server, admin: Any, managed: str) -> None:
    admin.execute("ALTER ROLE managed NOCREATEDB")
    with pytest.raises(StackError, match="permission denied to create database"):
        provision.main(["databases"])
    admin.execute("ALTER ROLE managed NOCREATEROLE CREATEDB")
    admin.execute("DROP ROLE perennial_admit")
    with pytest.raises(StackError, match=r"permission denied to create role.*PERENNIAL_SUPERUSER_URL"):
        provision.main(["databases"])


def test_a_database_that_stays_open_to_everybody_is_an_error(server: Server, admin: Any, managed: str) -> None:
    admin.execute("CREATE DATABASE perennial")  # somebody else's: the account may not close it
    with pytest.raises(StackError, match="everybody may still enter the database perennial"):
        provision.main(["databases"])


@pytest.mark.parametrize("missing", ["PERENNIAL_SUPERUSER_URL", "PERENNIAL_OWNER_DATABASE_URL"])
def test_without_its_two_addresses_it_changes_nothing(
    server: Server, admin: Any, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delenv(missing)
    # Airflow's own account is for Airflow's database
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", server.url("airflow"))
    with pytest.raises(NotConfigured, match=missing):
        provision.main(["databases"])
    assert admin.execute("SELECT count(*) FROM pg_database WHERE datname = 'perennial'").fetchone() == (0,)
