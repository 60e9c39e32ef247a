"""The drill: back up, restore into an empty home, and it is the same deployment: champions, audit, every acknowledged example."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from perennial.audit.heads import Signer, keep
from perennial.audit.log import PostgresAuditLog
from perennial.domain.example import Example
from perennial.errors import BackupBroken, StackError
from perennial.guard.keys import deployment_key
from perennial.ingest.buffer import PostgresBuffer
from perennial.registry import keyring
from perennial.registry.bundle import signature_path
from perennial.registry.files import copy_file, listing
from perennial.registry.ledger import PostgresLedger
from perennial.stack import dump, processes
from perennial.stack.backup import MANIFEST, OURS, Backup, backup, scripts_elsewhere
from perennial.stack.drafts import draft_of
from perennial.stack.home import Home
from perennial.stack.restore import forget_encrypted, prove, restore
from perennial.storage.database import Database as Pool
from tests.contract.test_stores import record
from tests.postgres_fixture import Database, Server
from tests.unit.registry.samples import PASSWORD, Keys, release


@dataclass
class World:
    """A small deployment: waiting, superseded and unlabelled rows, a signed champion, a sealed audit."""

    home: Path
    database: Database
    keys: Keys
    room: Path

    def backup(self, name: str = "backup", *, with_secrets: bool = False) -> Path:
        folder = self.room / name
        backup(
            folder, home=self.home, databases={OURS: self.database.owner}, fleet=self.room / "fleet", made_with="0.1.0",
            keys={"public": self.keys.public, "private": self.keys.private}, with_secrets=with_secrets,
        )  # fmt: skip
        return folder


@pytest.fixture(scope="module")
def deployment(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once: a backup only reads."""
    root = tmp_path_factory.mktemp("deployment")
    home, room = root / "home", root / "room"
    name = "b_" + uuid4().hex[:12]
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template_perennial OWNER perennial_owner")  # type: ignore[arg-type]
    database = Database(postgres_server, name)
    (home / "keys").mkdir(parents=True)
    (room / "fleet").mkdir(parents=True)
    (room / "fleet" / "scout.py").write_text("AGENT = None\n")
    odd = ("__pycache__/scout.pyc", ".env", ".git/config")
    for file in ("scripts/urgency.py", "scripts/deep/train.sh", "labels.txt", *odd):
        (room / "fleet" / file).parent.mkdir(parents=True, exist_ok=True)
        (room / "fleet" / file).write_text(f"{file}\n")
    (home / "settings.json").write_text('{"ports": {}}')
    (home / "secrets.json").write_text('{"login_admin": "the-admin-password"}')
    (home / "redaction.key").write_text("5e" * 32 + "\n")
    keys = Keys.make(home / "keys")
    pool = Pool(database.app)
    buffer = PostgresBuffer(pool)
    buffer.sync_agents([record()])
    for number in range(30):
        buffer.add(
            Example(
                agent="scout", task="sentiment", input_text=f"Text {number}.", expected_output="good", uncertainty=0.5
            )
        )
    buffer.add(Example(agent="scout", task="sentiment", input_text="No label.", expected_output=None, uncertainty=0.5))
    made = release(room / "releases", keys)
    place = home / "mlflow" / "1" / "run" / "artifacts" / "bundle"
    for path in listing(made.folder):
        copy_file(made.folder / path, place / path)
    copy_file(made.signature, signature_path(place))
    ledger = PostgresLedger(pool)
    ledger.record_version(
        made.manifest, digest=made.digest, uri="mlflow-artifacts:/1/run/artifacts/bundle", mlflow_run_id="run"
    )
    ledger.move_alias("scout", "champion", "1.0.0", actor="ana", reason="first")
    audit = PostgresAuditLog(pool)
    audit.append(actor="ana", action="approved", agent="scout", subject="1.0.0")
    audit.seal()
    keep(home / "audit" / "heads.jsonl", audit.seals, Signer(keys.private, PASSWORD))
    audit.append(actor="ana", action="looked", agent="scout")
    made_world = World(home, database, keys, room)
    made_world.backup("open")
    made_world.backup("secret", with_secrets=True)
    yield made_world
    pool.close()
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


@pytest.fixture
def world(deployment: World, tmp_path: Path) -> Iterator[World]:
    """The deployment, with a room of the test's own, in which nothing works at the end."""
    yield replace(deployment, room=tmp_path)
    processes.end_all(lambda: _left(tmp_path)[1])


def _backup(world: World, deployment: World, *, with_secrets: bool = False) -> Path:
    """A copy of the backup that was made once."""
    name = "secret" if with_secrets else "open"
    return Path(shutil.copytree(deployment.room / name, world.room / "backup"))


@pytest.fixture
def empty(postgres_server: Server) -> Iterator[Database]:
    name = "r_" + uuid4().hex[:12]
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER perennial_owner")  # type: ignore[arg-type]
    yield Database(postgres_server, name)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


@pytest.mark.req("J110", "K70")
def test_a_new_home_with_its_own_postgresql_is_the_same_deployment_without_any_secret(
    world: World, deployment: World
) -> None:
    folder = _backup(world, deployment)
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for secret in (world.keys.private.read_bytes(), b"the-admin-password", PASSWORD.encode(), b"5e" * 32):
        assert secret not in everything
    fleet = {path.relative_to(folder / "fleet").as_posix() for path in (folder / "fleet").rglob("*") if path.is_file()}
    assert fleet == {"scout.py", "scripts/urgency.py", "scripts/deep/train.sh", "labels.txt"}  # nothing hidden
    assert {f"fleet/{name}" for name in fleet} == {
        name for name in Backup.read(folder).files if name.startswith("fleet/")
    }
    assert folder.stat().st_mode & 0o077 == 0
    place = Home(root=world.room / "new")
    restored = restore(folder, place)
    assert restored.facts.counts["examples scout raw"] == 30
    assert restored.facts.counts["examples scout unlabelled"] == 1
    assert restored.facts.counts["originals"] == 31
    assert (restored.champions, restored.unproven, restored.audit_rows) == (("scout 1.0.0",), (), 2)
    # the new key signs from now on, and the old one counts for what it signed
    assert restored.new_key
    (old,) = keyring.read(place.keys / "signing.pub")
    assert (
        old.id
        == keyring.key_id(world.keys.public.read_bytes())
        != keyring.key_id((place.keys / "signing.pub").read_bytes())
    )
    assert (place.database / "PG_VERSION").is_file()
    assert not (place.database / "postmaster.pid").exists()  # it was stopped cleanly; `up` starts it
    assert [path for path in world.room.iterdir() if path.name.startswith(".")] == []


@pytest.mark.req("J110")
def test_a_database_of_ones_own_and_the_same_key_with_the_secrets(
    world: World, deployment: World, empty: Database
) -> None:
    folder = _backup(world, deployment, with_secrets=True)
    assert (
        (folder / "keys" / "signing.pem").read_bytes() == world.keys.private.read_bytes()
        if (world.keys.private.name == "signing.pem")
        else (folder / "keys" / "signing.pem").is_file()
    )
    place = Home(root=world.room / "new")
    restored = restore(folder, place, {OURS: empty.owner})
    assert not restored.new_key
    assert (place.keys / "signing.pub").read_bytes() == world.keys.public.read_bytes()
    assert json.loads(place.secrets_file.read_text())["login_admin"] == "the-admin-password"
    assert deployment_key(place.root) == bytes.fromhex("5e" * 32)  # the same person keeps the same surrogate
    assert (place.root / "redaction.key").stat().st_mode & 0o077 == 0
    with psycopg.connect(empty.app) as connection:  # the roles may what they could
        connection.execute("SELECT count(*) FROM perennial.examples")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT input_text FROM perennial.originals")
    with pytest.raises(StackError, match="not empty"):
        restore(folder, Home(root=world.room / "third"), {OURS: empty.owner})
    assert not (world.room / "third").exists()


def test_what_is_not_empty_is_left_alone(world: World, deployment: World) -> None:
    folder = _backup(world, deployment)
    with pytest.raises(StackError, match="not empty"):
        world.backup()
    with pytest.raises(StackError, match="not empty"):
        restore(folder, Home(root=world.home))
    assert json.loads((world.home / "secrets.json").read_text()) == {"login_admin": "the-admin-password"}


def test_a_script_outside_of_the_fleet_folder_is_named(tmp_path: Path) -> None:
    fleet, outside = tmp_path / "fleet", tmp_path / "elsewhere" / "urgency.py"
    scripts = {
        "inside": "scripts/inside.py", "absolute": str(fleet / "scripts" / "inside.py"), "outside": str(outside),
        "above": "../above.py", "linked": "linked/urgency.py", "shipped": "word_counts.py",
    }  # fmt: skip
    for place in (fleet / "scripts" / "inside.py", outside, tmp_path / "above.py"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("")
    (fleet / "linked").symlink_to(outside.parent)
    for name, script in scripts.items():
        (fleet / f"{name}.py").write_text(
            "from perennial.fleet import Agent, Task\nfrom perennial.trainers.command import Command\n"
            f"AGENT = Agent(name={name!r}, owner='me', tasks=(Task(name='t'),), trainer=Command(script={script!r}))\n"
        )
    (fleet / "broken.py").write_text("AGENT = (\n")
    assert scripts_elsewhere(fleet) == ["../above.py", str(outside), "linked/urgency.py"]
    assert scripts_elsewhere(tmp_path / "none") == []


@pytest.mark.parametrize("what", ["changed", "missing", "planted", "linked", "manifest"])
def test_a_backup_that_was_changed_is_refused(world: World, deployment: World, what: str) -> None:
    folder = _backup(world, deployment)
    target = next(folder.rglob("head.safetensors"))
    if what == "changed":
        target.write_bytes(target.read_bytes()[:-1] + b"!")
    elif what == "missing":
        target.unlink()
    elif what == "planted":
        (folder / "mlflow" / "planted.json").write_text("{}")
    elif what == "linked":
        target.unlink()
        target.symlink_to(world.keys.private)
    else:
        (folder / MANIFEST).write_text("{}")
    with pytest.raises(BackupBroken):
        restore(folder, Home(root=world.room / "new"))
    assert not (world.room / "new").exists()


def test_a_kill_leaves_nothing_behind_and_the_next_try_works(
    world: World, deployment: World, empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _backup(world, deployment)

    def killed(url: str, file: Path) -> None:
        raise StackError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(dump, "restore", killed)
        with pytest.raises(StackError, match="killed"):
            restore(folder, Home(root=world.room / "new"), {OURS: empty.owner})
    assert [path.name for path in world.room.iterdir() if "new" in path.name] == []
    assert restore(folder, Home(root=world.room / "new"), {OURS: empty.owner}).champions == ("scout 1.0.0",)


SLOW = """
import os, signal, sys
from pathlib import Path
from perennial.stack import backup, dump, restore
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
from perennial.stack.drafts import draft_of
from perennial.stack.home import Home
def slow(url, file, snapshot=None):
    print("filling", flush=True)
    dump._run(["sleep", "300"], os.environ)
backup.dump = dump.restore = slow
what, folder, home, url = sys.argv[1:]
if what == "restore":
    restore.restore(Path(folder), Home(root=Path(home)))
else:
    backup.backup(
        Path(folder), home=Path(home), databases={"perennial": url}, keys={}, fleet=Path(home) / "none", made_with="0.1.0"
    )
"""


@contextmanager
def _at_work(what: str, folder: Path, home: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A backup or restore in a process of its own, which has come to a database that takes long."""
    words = [sys.executable, "-c", SLOW, what, str(folder), str(home), url]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _left(room: Path) -> tuple[list[str], set[int]]:
    """Drafts and locks in the room, and processes that work below it."""
    inside = set()
    for pid in processes.snapshot():
        with suppress(OSError):
            inside |= {pid} if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(room) else set()
    return [path.name for path in room.iterdir() if path.name.startswith(".")], inside


@pytest.mark.parametrize("what", ["restore", "backup"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_terminal_leaves_no_draft_and_no_server_behind(
    world: World, deployment: World, what: str, number: signal.Signals
) -> None:
    folder, home = world.room / "backup", world.room / "new"
    if what == "restore":
        _backup(world, deployment)
    else:
        home = world.home
    with _at_work(what, folder, home, deployment.database.owner) as process:
        drafts, servers = _left(world.room)
        below = processes.descendants(processes.snapshot(), [process.pid])
        assert drafts
        assert bool(servers) == (what == "restore")
        with pytest.raises(StackError, match="another backup or restore"):  # which touches nothing
            restore(folder, Home(root=home)) if what == "restore" else world.backup()
        assert _left(world.room)[0] == drafts
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    assert _left(world.room) == ([], set())
    assert not [pid for pid in below if (row := processes.look_up(pid)) is not None and row.alive]
    assert folder.exists() == (what == "restore")


@pytest.mark.parametrize("what", ["restore", "backup"])
def test_the_next_run_removes_what_a_killed_one_left(world: World, deployment: World, what: str) -> None:
    folder, home = world.room / "backup", world.room / "new"
    if what == "restore":
        _backup(world, deployment)
    else:
        home = world.home
    others = [".new.txt", ".new.draft", ".newer." + "0" * 32, ".backup." + "0" * 31]
    for name in others:
        (world.room / name).mkdir()
    with _at_work(what, folder, home, deployment.database.owner) as process:
        process.kill()
    assert len(_left(world.room)[0]) == len(others) + 2  # its draft and its lock
    if what == "restore":
        assert _left(world.room)[1]  # the server runs on
        assert restore(folder, Home(root=home)).champions == ("scout 1.0.0",)
    else:
        world.backup()
    left, servers = _left(world.room)
    assert (sorted(left), servers) == (sorted(others), set())


def test_who_asked_not_to_hear_of_a_lost_terminal_is_left_alone(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with draft_of(tmp_path / "new") as draft:
            draft.mkdir()
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert list(tmp_path.iterdir()) == []


def test_the_proof_sees_what_did_not_come_back(world: World, deployment: World, empty: Database) -> None:
    folder = _backup(world, deployment, with_secrets=True)
    place = Home(root=world.room / "new")
    restore(folder, place, {OURS: empty.owner})
    known = Backup.read(folder)
    with psycopg.connect(empty.superuser) as connection:
        connection.execute(
            "DELETE FROM perennial.originals WHERE example_id = (SELECT example_id FROM perennial.originals LIMIT 1)"
        )
    with pytest.raises(BackupBroken, match="originals: 31 were backed up, 30 came back"):
        prove(known, place, empty.owner)
    lost = replace(known, facts=replace(known.facts, counts={**known.facts.counts, "originals": 30}))
    assert prove(lost, place, empty.owner).audit_rows == 2
    head = next(place.artifacts.rglob("head.safetensors"))
    head.write_bytes(b"other bytes")
    with pytest.raises(BackupBroken, match=r"scout 1\.0\.0 does not verify"):
        prove(lost, place, empty.owner)
    shutil.rmtree(place.artifacts / "1")
    with pytest.raises(BackupBroken, match="does not verify"):
        prove(lost, place, empty.owner)


def test_the_audit_is_part_of_the_proof(world: World, deployment: World, empty: Database) -> None:
    folder = _backup(world, deployment, with_secrets=True)
    place = Home(root=world.room / "new")
    restore(folder, place, {OURS: empty.owner})
    with psycopg.connect(empty.superuser) as connection:
        connection.execute("ALTER TABLE perennial.audit DISABLE TRIGGER append_only")
        connection.execute("UPDATE perennial.audit SET actor = 'somebody'")
        connection.execute("ALTER TABLE perennial.audit ENABLE TRIGGER append_only")
    with pytest.raises(BackupBroken, match="the audit does not verify"):
        prove(Backup.read(folder), place, empty.owner)


def test_what_airflow_encrypted_with_a_lost_key_is_taken_out_and_named(empty: Database) -> None:
    assert forget_encrypted(empty.superuser) == ()  # no Airflow there yet
    with psycopg.connect(empty.superuser) as connection:
        for words in (
            "TABLE connection (conn_id text, password text, is_encrypted bool, is_extra_encrypted bool)",
            "TABLE variable (key text, val text, is_encrypted bool)",
            "TABLE trigger (id int PRIMARY KEY, kwargs text)",
            # as Airflow declares them: a trigger that goes takes its task along, and waits for its callback
            "TABLE task_instance (id int, state text, next_method text, next_kwargs json,"
            " trigger_id int REFERENCES trigger (id) ON DELETE CASCADE)",
            "TABLE callback (id int, trigger_id int REFERENCES trigger (id))",
        ):
            connection.execute(f"CREATE {words}")  # type: ignore[arg-type]
        connection.execute("INSERT INTO connection VALUES ('alerts', 'x', true, false), ('more', '', false, true)")
        connection.execute("INSERT INTO connection VALUES ('plain', NULL, false, false)")
        connection.execute("INSERT INTO variable VALUES ('threshold', 'x', true), ('open', 'y', false)")
        connection.execute("INSERT INTO trigger VALUES (1, 'x'), (2, 'x'), (3, 'x')")
        connection.execute(
            "INSERT INTO task_instance VALUES (7, 'deferred', 'resume', '{}', 2), (8, 'success', NULL, NULL, NULL)"
        )
        connection.execute("INSERT INTO callback VALUES (9, 3)")
    assert forget_encrypted(empty.superuser) == ("connection alerts", "connection more", "variable threshold")
    with psycopg.connect(empty.superuser) as connection:
        left = connection.execute("SELECT conn_id FROM connection UNION SELECT key FROM variable ORDER BY 1").fetchall()
        assert left == [("open",), ("plain",)]
        assert connection.execute("SELECT count(*) FROM trigger").fetchall() == [(0,)]
        tasks = connection.execute(
            "SELECT id, state, next_method, trigger_id FROM task_instance ORDER BY id"
        ).fetchall()
        assert tasks == [(7, None, None, None), (8, "success", None, None)]
        assert connection.execute("SELECT id, trigger_id FROM callback").fetchall() == [(9, None)]
    assert forget_encrypted(empty.superuser) == ()


def test_a_backup_of_a_newer_perennial_is_not_squeezed_in(world: World, deployment: World) -> None:
    folder = _backup(world, deployment)
    value = json.loads((folder / MANIFEST).read_text())
    value["migrations"].append("9999_later.sql")
    (folder / MANIFEST).write_text(json.dumps(value))
    with pytest.raises(StackError, match="newer Perennial"):
        restore(folder, Home(root=world.room / "new"))


def test_a_database_that_is_away_leaves_no_half_backup(world: World) -> None:
    with pytest.raises(StackError, match="away"):
        backup(
            world.room / "none", home=world.home, databases={OURS: "postgresql://x:y@127.0.0.1:1/z"},
            fleet=world.room / "fleet", made_with="0.1.0", keys={},
        )  # fmt: skip
    assert [path.name for path in world.room.iterdir() if "none" in path.name] == []
