"""pg_dump and pg_restore, of the bundled PostgreSQL where that is new enough; passwords travel in the environment alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perennial.errors import StackError
from perennial.stack import postgres

SECONDS = 6 * 3600.0


def _program(name: str, env: Mapping[str, str], *, at_least: int, what: str) -> str:
    """The first program, of the wheel or on PATH, whose major version is at least that."""
    majors = [0]
    for path in filter(None, map(shutil.which, _places(name))):
        said = subprocess.run([path, "--version"], env=env, capture_output=True, text=True, check=False, timeout=60)
        found = re.search(r"\) (\d+)", said.stdout)  # "pg_dump (PostgreSQL) 16.14"
        majors.append(int(found[1]) if found else 0)
        if majors[-1] >= at_least:
            return path
    here = f"{name} here is of PostgreSQL {max(majors)}" if max(majors) else f"there is no {name} here"
    raise StackError(
        f"{here}, and {what} {at_least}: install PostgreSQL's client programs of version {at_least} or later, on PATH"
    )


def _places(name: str) -> Iterator[str]:
    with suppress(StackError):  # the wheel is not installed
        yield str(postgres.binary(name))
    for folder in os.get_exec_path():
        yield os.path.join(folder, name)


def _server_major(url: str) -> int:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            return connection.info.server_version // 10000
    except psycopg.OperationalError as error:
        raise StackError(f"PostgreSQL does not answer ({type(error).__name__}); it must run for this") from error


def _made_by(file: Path) -> int:
    """Major version of the pg_dump that wrote a file, from its head (PostgreSQL's pg_backup_archiver.c, ReadHead)."""
    with file.open("rb") as stream:
        head = stream.read(4096)
    try:
        size = 1 + head[8]  # of a number: its sign, then its bytes
        at = 11 + 7 * size + (1 if head[5:7] >= b"\x01\x0f" else size)  # after format, compression and time
        for _ in ("database", "version of its server"):
            at += size + int.from_bytes(head[at + 1 : at + size], "little")
        found = re.match(rb"\d+", head[at + size :])
    except IndexError:
        found = None
    if found is None or not head.startswith(b"PGDMP"):
        raise StackError(f"{file.name} is no dump that can be read; take another backup")
    return int(found[0])


def _reach(url: str) -> dict[str, str]:
    """The environment by which libpq finds a database (PostgreSQL manual, "Environment Variables")."""
    parts = urlsplit(url)
    known = {
        "PGHOST": parts.hostname or "", "PGPORT": str(parts.port or 5432), "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""), "PGDATABASE": unquote(parts.path.lstrip("/")), "PGCONNECT_TIMEOUT": "10",
    }  # fmt: skip
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        if name in {"sslmode", "sslrootcert", "sslcert", "sslkey"}:
            known["PG" + name.upper()] = unquote(value)
    return {**os.environ, **{name: value for name, value in known.items() if value}}


def dump(url: str, file: Path, *, snapshot: str | None = None) -> None:
    """Write one database in PostgreSQL's custom format, as of ``snapshot`` where one is given. StackError with pg_dump's words, or
    when no pg_dump is as new as the server."""
    env = _reach(url)
    program = _program("pg_dump", env, at_least=_server_major(url), what="the server is of PostgreSQL")
    words = [program, "--format=custom", "--no-password", f"--file={file}"]
    _run([*words, f"--snapshot={snapshot}"] if snapshot else words, env)
    file.chmod(0o600)


def restore(url: str, file: Path) -> None:
    """Fill an empty database, whole or not at all. StackError with pg_restore's words, or when no pg_restore can read the file."""
    env, made_by = _reach(url), _made_by(file)
    program = _program("pg_restore", env, at_least=made_by, what="the backup was made by pg_dump")
    words = [program, "--no-owner", "--no-password", "--exit-on-error", "--single-transaction"]
    try:
        _run([*words, f"--dbname={env.get('PGDATABASE', '')}", str(file)], env)
    except StackError as error:
        server = _server_major(url)
        if made_by <= server:
            raise
        raise StackError(
            f"{error}; the backup was made by pg_dump {made_by} and the server is {server}: restore into PostgreSQL {made_by} or later"
        ) from error


def _run(words: list[str], env: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{Path(words[0]).name} did not end within {SECONDS / 3600:.0f} hours") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise StackError(f"{Path(words[0]).name} failed: {said[0] if said else 'it said nothing'}")
