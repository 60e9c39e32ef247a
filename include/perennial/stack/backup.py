"""One folder that holds a deployment: its databases as of one moment, the models' files, public keys and settings, with digests.

What is in it, is in this order because of what may happen meanwhile: heads of the audit first (later rows only follow them), then our
database as of one snapshot, then MLflow's tables and files (a version is published there before it is in our ledger), then Airflow's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perennial.errors import BackupBroken, StackError
from perennial.guard.keys import FILE as SURROGATES
from perennial.registry.files import digest_of_file
from perennial.stack.drafts import draft_of
from perennial.stack.dump import dump
from perennial.storage.migrate import migrations
from perennial.storage.queries import load

FORMAT = 1
MANIFEST = "manifest.json"
OURS = "perennial"
# folders of a home that belong to a deployment's state; everything else there is made anew
FOLDERS = ("mlflow", "bases", "audit")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What must be the same after a restore. ``at``: the database's clock, ISO 8601."""

    at: str
    counts: Mapping[str, int]
    champions: Mapping[str, Mapping[str, str]]  # agent -> version, digest, uri


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup says of itself; ``files`` maps a path in it to sha256 and size in bytes."""

    made_with: str
    facts: Facts
    databases: tuple[str, ...]
    with_secrets: bool
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)
    migrations: tuple[str, ...] = ()
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Backup:
        """The manifest of a backup; BackupBroken when there is none, or one of another format."""
        try:
            value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                raise ValueError(value["format"])
            lists = {name: tuple(value[name]) for name in ("databases", "migrations")}
            return cls(**{**value, **lists, "facts": Facts(**value["facts"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupBroken(f"{folder} holds no backup that can be read ({type(error).__name__})") from error

    def check_files(self, folder: Path) -> None:
        """Raise BackupBroken unless every file is there with its bytes, and no other."""
        there = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
        }
        odd = sorted(there ^ {*self.files, MANIFEST})
        if odd:
            raise BackupBroken(f"the files of the backup are not those of its manifest: {', '.join(odd[:5])}")
        for name, known in sorted(self.files.items()):
            path = folder / name
            if path.is_symlink() or path.stat().st_size != known["bytes"] or digest_of_file(path) != known["sha256"]:
                raise BackupBroken(f"{name} of the backup was changed or damaged; take another backup")


def gather(connection: Any) -> Facts:
    """What must be the same after a restore, read in the connection's transaction."""
    queries = load("perennial.stack")
    counts = {f"examples {row[0]}": int(row[1]) for row in connection.execute(queries["example_counts"])}
    counts |= {row[0]: int(row[1]) for row in connection.execute(queries["other_counts"])}
    champions = {
        row[0]: {"version": row[1], "digest": row[2], "uri": row[3]} for row in connection.execute(queries["champions"])
    }
    return Facts(at=connection.execute(queries["now"]).fetchone()[0].isoformat(), counts=counts, champions=champions)


def backup(
    folder: Path, *, home: Path, databases: Mapping[str, str], keys: Mapping[str, Path | None], fleet: Path, made_with: str,
    with_secrets: bool = False,
) -> Backup:  # fmt: skip
    """Make a backup in ``folder``, which must be empty or not there: all of it appears in one rename, or nothing does.

    ``databases``: URLs by name, ours (the owner's) under ``perennial``. ``keys``: files of ``public`` and ``private``. Nothing is
    stopped for it. Private key and passwords are in it only ``with_secrets``. StackError when a program or a database fails.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StackError(f"{folder} is not empty; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(folder) as aside:
        aside.mkdir(mode=0o700)
        _copy_tree(home / "audit", aside / "audit")
        (aside / "databases").mkdir(mode=0o700)
        with _snapshot(databases[OURS]) as (connection, view):
            facts = gather(connection)
            dump(databases[OURS], aside / "databases" / f"{OURS}.dump", snapshot=view)
        for name in sorted(set(databases) - {OURS}, reverse=True):  # mlflow before airflow
            dump(databases[name], aside / "databases" / f"{name}.dump")
        for name in FOLDERS:
            if name != "audit":
                _copy_tree(home / name, aside / name)
        _copy_small(aside, home=home, keys=keys, fleet=fleet, with_secrets=with_secrets)
        files = {
            path.relative_to(aside).as_posix(): {"sha256": digest_of_file(path), "bytes": path.stat().st_size}
            for path in sorted(aside.rglob("*"))
            if path.is_file()
        }
        made = Backup(
            made_with=made_with, facts=facts, databases=tuple(sorted(databases)), with_secrets=with_secrets, files=files,
            migrations=tuple(name for name, _ in migrations()),
        )  # fmt: skip
        (aside / MANIFEST).write_text(json.dumps(asdict(made), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.rename(aside, folder)
        return made


@contextmanager
def _snapshot(url: str) -> Iterator[tuple[Any, str]]:
    """A transaction of one view, and the name by which pg_dump joins it."""
    import psycopg

    queries = load("perennial.stack")
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10, application_name="perennial backup")
    except psycopg.OperationalError as error:
        raise StackError(f"PostgreSQL is away ({type(error).__name__}); a backup needs it running") from error
    with connection:
        connection.execute(queries["one_view"])
        row = connection.execute(queries["export_view"]).fetchone()
        assert row is not None  # a function's answer
        yield connection, str(row[0])
        connection.execute("ROLLBACK")


def _copy_small(aside: Path, *, home: Path, keys: Mapping[str, Path | None], fleet: Path, with_secrets: bool) -> None:
    public, private = keys.get("public"), keys.get("private")
    wanted: dict[str, Path | None] = {
        "keys/signing.pub": public, "keys/retired.json": public.with_name("retired.json") if public else None,
        "settings.json": home / "settings.json",
    }  # fmt: skip
    if with_secrets:
        wanted |= {name: home / name for name in ("secrets.json", SURROGATES)} | {"keys/signing.pem": private}
    wanted |= {f"fleet/{name}": file for name, file in _fleet_files(fleet).items()}
    for name, source in wanted.items():
        if source is not None and source.is_file():
            _copy(source, aside / name)


def _fleet_files(fleet: Path) -> dict[str, Path]:
    """Files below the fleet folder by their name in it. Hidden ones (.env, .git) are nobody's script and may be secrets."""
    found = {path.relative_to(fleet): path for path in sorted(fleet.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in found.items()
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    }


def scripts_elsewhere(fleet: Path) -> list[str]:
    """Scripts of the agents' trainers that a backup does not hold, since they do not lie below the fleet folder."""
    from perennial.fleet.loader import load as load_fleet
    from perennial.trainers.command import Command

    held = {path.resolve() for path in _fleet_files(fleet).values()}
    named = {agent.trainer.script for agent in load_fleet(fleet).agents if isinstance(agent.trainer, Command)}
    named.discard(Command().script)  # comes with the package
    return sorted(name for name in named if (fleet / name).resolve() not in held)


def _copy_tree(source: Path, target: Path) -> None:
    """Plain files alone; one that goes away meanwhile was retention's to take."""
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            try:
                _copy(path, target / path.relative_to(source))
            except FileNotFoundError:
                continue


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        open(source, "rb") as reader,
        open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writer,
    ):
        shutil.copyfileobj(reader, writer, 1 << 20)
