"""PostgreSQL never runs as root, by either way of becoming somebody else, and also below a folder of mode 0700."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from perennial.stack import postgres
from perennial.stack.health import Health, PostgresProbe
from perennial.stack.home import Home
from tests.stack_fixture import free_port_base, wait_until


@pytest.fixture
def private(tmp_path: Path) -> Home:
    tmp_path.chmod(0o700)
    home = Home(root=tmp_path / "home with a blank")
    home.make()
    return home


@pytest.fixture
def port() -> int:
    return free_port_base()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
@pytest.mark.parametrize("namespaces", [True, False])
def test_as_root(private: Home, port: int, namespaces: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if namespaces and not postgres._user_namespaces():
        pytest.skip("user namespaces are forbidden here")
    monkeypatch.setattr(postgres, "_user_namespaces", lambda: namespaces)
    postgres.create(private, "a password")
    words = postgres.server_command(private, port)
    assert words[0] == ("unshare" if namespaces else "setpriv")
    # the folder decides the next time, whatever is possible then
    monkeypatch.setattr(postgres, "_user_namespaces", lambda: not namespaces)
    assert postgres.server_command(private, port) == words
    server = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        wait_until("the server", lambda: PostgresProbe(port=port).look(0.0) is Health.GOOD, seconds=20)
        with psycopg.connect(f"postgresql://postgres:a%20password@127.0.0.1:{port}/postgres") as link:
            assert link.execute("SHOW password_encryption").fetchone() == ("scram-sha-256",)
            assert link.execute("SELECT lower('ÄÖ') = 'äö'").fetchone() == (True,)
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres")
    finally:
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=20)
    assert "Connection reset" not in said  # a probe leaves nothing in the log
    assert not (private.root / ".initdb-password").exists()


def test_a_half_made_data_folder_is_made_again(private: Home) -> None:
    draft = private.root / "postgres.draft"
    draft.mkdir()
    (draft / "PG_VERSION").write_text("16\n")
    postgres.create(private, "a password")
    assert (private.database / "global" / "pg_control").exists()
    assert not draft.exists()
