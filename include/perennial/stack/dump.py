"""pg_dump and pg_restore, of the bundled PostgreSQL where it is installed; passwords travel in the environment alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perennial.errors import StackError
from perennial.stack import postgres

SECONDS = 6 * 3600.0


def _program(name: str) -> str:
    try:
        bundled = postgres.binary(name)
    except StackError:
        bundled = None
    if bundled is not None and bundled.is_file():
        return str(bundled)
    found = shutil.which(name)
    if found is None:
        raise StackError(f"there is no {name}; install PostgreSQL's client programs, of the server's version or later")
    return found


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
    """Write one database in PostgreSQL's custom format, as of ``snapshot`` where one is given. StackError with pg_dump's words."""
    words = [_program("pg_dump"), "--format=custom", "--no-password", f"--file={file}"]
    _run([*words, f"--snapshot={snapshot}"] if snapshot else words, url)
    file.chmod(0o600)


def restore(url: str, file: Path) -> None:
    """Fill an empty database, whole or not at all. StackError with pg_restore's words."""
    name = urlsplit(url).path.lstrip("/")
    words = [_program("pg_restore"), "--no-owner", "--no-password", "--exit-on-error", "--single-transaction"]
    _run([*words, f"--dbname={unquote(name)}", str(file)], url)


def _run(words: list[str], url: str) -> None:
    try:
        done = subprocess.run(words, env=_reach(url), capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise StackError(f"{Path(words[0]).name} did not end within {SECONDS / 3600:.0f} hours") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise StackError(f"{Path(words[0]).name} failed: {said[0] if said else 'it said nothing'}")
