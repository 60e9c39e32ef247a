"""Brings a backup back into an empty home and empty databases, and proves that it is the same deployment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from perennial.audit.log import PostgresAuditLog
from perennial.errors import BackupBroken, PerennialError, StackError
from perennial.flows.sealing import verify_chain
from perennial.guard.keys import FILE as SURROGATES
from perennial.registry import keyring
from perennial.registry.bundle import signature_path
from perennial.registry.ledger import PostgresLedger
from perennial.registry.signing import verify_bundle
from perennial.stack import dump, postgres
from perennial.stack.backup import FOLDERS, OURS, Backup, Facts, gather
from perennial.stack.drafts import draft_of
from perennial.stack.home import Home
from perennial.stack.ports import LOOPBACK
from perennial.stack.provision import make_databases
from perennial.stack.secrets import Secrets, read_or_make, signing_keys
from perennial.storage.database import Database
from perennial.storage.migrate import migrations
from perennial.storage.queries import load

_START_SECONDS = 60.0
_ROLES = {"perennial": "perennial_owner", "mlflow": "mlflow", "airflow": "airflow"}


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was proven. ``unproven`` names champions whose files lie where they cannot be looked at from here."""

    facts: Facts
    champions: tuple[str, ...]
    unproven: tuple[str, ...]
    audit_rows: int
    new_key: bool  # the backup held no private key: releases are signed with a new one from now on
    to_enter: tuple[str, ...] = ()  # Airflow's connections and variables that nobody can decrypt any more


def restore(folder: Path, place: Home, databases: Mapping[str, str] | None = None) -> Restored:
    """Restore a backup into a home that is empty or not there; all of the home appears in one rename, or nothing does.

    Without ``databases`` (URLs by name) the embedded PostgreSQL is made in the home, filled, and stopped again. With them these are
    filled, and must be empty. Raises BackupBroken when the backup was changed or what came out is not what went in, StackError when
    the target is not empty.
    """
    backup = Backup.read(folder)
    backup.check_files(folder)
    unknown = sorted(set(backup.migrations) - {name for name, _ in migrations()})
    if unknown:
        raise StackError(f"the backup is of a newer Perennial ({unknown[-1]}); install {backup.made_with} or later")
    if place.root.exists() and (not place.root.is_dir() or any(place.root.iterdir())):
        raise StackError(f"{place.root} is not empty; set PERENNIAL_HOME to a new folder")
    place.root.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(place.root) as aside:
        draft = Home(root=aside)
        draft.make()
        _bring_files(folder, draft)
        secrets = read_or_make(draft)
        new_key = _keys(folder, backup, draft, secrets)
        with _databases(draft, secrets, databases) as urls:
            for name in backup.databases:
                _fill(name, urls, folder / "databases" / f"{name}.dump")
            gone = (
                forget_encrypted(urls["airflow"]) if "airflow" in backup.databases and not backup.with_secrets else ()
            )
            restored = replace(prove(backup, draft, urls[OURS], new_key=new_key), to_enter=gone)
        if place.root.exists():
            place.root.rmdir()
        os.rename(draft.root, place.root)
        return restored


def _bring_files(folder: Path, home: Home) -> None:
    for name in (*FOLDERS, "settings.json", "secrets.json", SURROGATES):
        source = folder / name
        if source.is_dir():
            shutil.copytree(source, home.root / name, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, home.root / name)
            (home.root / name).chmod(0o600)


def _keys(folder: Path, backup: Backup, home: Home, secrets: Secrets) -> bool:
    """The pair of the backup, or a new one with the backup's public key as a retired one; whether it is new."""
    there = folder / "keys"
    for name in ("signing.pem", "signing.pub", keyring.NAME):
        if (there / name).is_file() and (name == keyring.NAME or (there / "signing.pem").is_file()):
            shutil.copyfile(there / name, home.keys / name)
            (home.keys / name).chmod(0o600)
    if (home.keys / "signing.pem").is_file():
        return False
    _, public = signing_keys(home, secrets.signing_key_password)
    if (there / "signing.pub").is_file():
        keyring.retire(
            public, (there / "signing.pub").read_text(encoding="utf-8"), at=datetime.fromisoformat(backup.facts.at),
            actor="perennial restore", reason="the backup held no private key",
        )  # fmt: skip
    return True


def _fill(name: str, urls: Mapping[str, str], file: Path) -> None:
    if name not in urls:
        raise StackError(f"the backup holds the database {name}; name the URL of an empty one for it")
    import psycopg

    try:
        with psycopg.connect(urls[name], connect_timeout=10) as connection:
            row = connection.execute(load("perennial.stack")["tables_anywhere"]).fetchone()
    except psycopg.OperationalError as error:
        raise StackError(f"the database for {name} does not answer ({type(error).__name__}); make it, empty") from error
    if row is None or row[0]:
        raise StackError(f"the database for {name} is not empty; make a new one")
    dump.restore(urls[name], file)


def forget_encrypted(url: str) -> tuple[str, ...]:
    """Take out of Airflow's database what was encrypted with a key that is not in the backup; names of what people must enter anew.

    Left there, one trigger ends the triggerer and the DAG processor's look at assets, so that nothing would start by itself any more,
    and a connection can neither be used nor changed. Triggers of assets are made anew from the DAG files; deferred tasks begin anew.
    """
    import psycopg

    queries = load("perennial.stack")
    with psycopg.connect(url, connect_timeout=10) as connection:
        found = connection.execute(queries["has_airflow_secrets"]).fetchone()
        if found is None or not found[0]:
            return ()
        for name in ("wake_deferred", "free_callbacks", "forget_triggers"):
            connection.execute(queries[name])
        gone = [
            row[0] for name in ("connections", "variables") for row in connection.execute(queries[f"forget_{name}"])
        ]
    return tuple(sorted(gone))


@contextmanager
def _databases(home: Home, secrets: Secrets, given: Mapping[str, str] | None) -> Iterator[Mapping[str, str]]:
    if given is not None:
        yield given
        return
    postgres.create(home, secrets.superuser)
    port = _free_port()
    with _server(home, port, secrets):
        make_databases(secrets, postgres.url(port, "postgres", "postgres", secrets.superuser), whole=True, given={})
        passwords = {"perennial": secrets.perennial_owner, "mlflow": secrets.mlflow, "airflow": secrets.airflow}
        yield {name: postgres.url(port, name, role, passwords[name]) for name, role in _ROLES.items()}


@contextmanager
def _server(home: Home, port: int, secrets: Secrets) -> Iterator[None]:
    """The embedded PostgreSQL for the time of the restore, stopped cleanly at its end."""
    import psycopg

    with open(home.log_of("postgres"), "ab") as log:
        process = subprocess.Popen(
            postgres.server_command(home, port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                url = postgres.url(port, "postgres", "postgres", secrets.superuser)
                psycopg.connect(url, connect_timeout=2).close()
                break
            except psycopg.OperationalError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StackError("PostgreSQL does not start in the new home; is there room on the disk?") from error
                time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown, with a checkpoint
        try:
            process.wait(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=_START_SECONDS)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def prove(backup: Backup, home: Home, owner_url: str, *, new_key: bool = False) -> Restored:
    """Compare a restored deployment with what the backup says: counts by state, champions' digests and signatures, the audit.

    BackupBroken names the first thing that is not the same.
    """
    import psycopg

    with psycopg.connect(owner_url, connect_timeout=10) as connection:
        facts = gather(connection)
    for name in sorted({*backup.facts.counts, *facts.counts}):
        before, after = backup.facts.counts.get(name, 0), facts.counts.get(name, 0)
        if before != after:
            raise BackupBroken(f"{name}: {before} were backed up, {after} came back")
    if dict(facts.champions) != dict(backup.facts.champions):
        raise BackupBroken("the champions are not those that were backed up")
    public = home.keys / "signing.pub"
    database = Database(owner_url, max_size=2)
    try:
        proven, unproven = _champions(facts, PostgresLedger(database), home, public)
        audit = verify_chain(PostgresAuditLog(database), home.root / "audit" / "heads.jsonl", public)
    finally:
        database.close()
    if not audit.report.sound:
        raise BackupBroken(f"the audit does not verify: {audit.report.findings[0].text}")
    return Restored(
        facts=facts, champions=tuple(proven), unproven=tuple(unproven), audit_rows=audit.report.rows, new_key=new_key
    )


def _champions(facts: Facts, ledger: Any, home: Home, public: Path) -> tuple[list[str], list[str]]:
    proven, unproven = [], []
    for agent, champion in sorted(facts.champions.items()):
        name = f"{agent} {champion['version']}"
        place = _files_of(champion["uri"], home)
        if place is None:
            unproven.append(name)
            continue
        release = ledger.version(agent, champion["version"])
        assert release is not None  # champions are read from the versions
        with tempfile.TemporaryDirectory() as room:
            try:
                verify_bundle(place, signature_path(place), public, release, into=Path(room))
            except PerennialError as error:
                raise BackupBroken(f"the champion {name} does not verify: {error}") from error
        proven.append(name)
    return proven, unproven


def _files_of(uri: str, home: Home) -> Path | None:
    """The folder of a release in the home's artifacts; None when they lie elsewhere (an S3 bucket, say).

    >>> _files_of("mlflow-artifacts:/1/ab/artifacts/bundle", Home(root=Path("/h"))).as_posix()
    '/h/mlflow/1/ab/artifacts/bundle'
    >>> _files_of("s3://bucket/1", Home(root=Path("/h"))) is None
    True
    """
    parts = urlsplit(uri)
    if parts.scheme != "mlflow-artifacts":
        return None
    inside = (home.artifacts / parts.path.lstrip("/")).resolve()
    return inside if inside.is_relative_to(home.artifacts.resolve()) else None
