"""What `python -m perennial.stack.provision` does to a server that others use too, and to one of our own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from perennial.errors import NotConfigured
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
