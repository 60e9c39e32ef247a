"""Applies the migrations in ``migrations/`` in order, each once, all in one transaction."""

from __future__ import annotations

import hashlib
from importlib import resources

from perennial.errors import StoreError, StoreUnavailable
from perennial.storage.queries import load


def migrations() -> list[tuple[str, str]]:
    """Name and text of every shipped migration, in order."""
    folder = resources.files("perennial.storage").joinpath("migrations")
    files = sorted(item for item in folder.iterdir() if item.name.endswith(".sql"))  # type: ignore[type-var]
    return [(item.name, item.read_text(encoding="utf-8")) for item in files]


def migrate(url: str) -> list[str]:
    """Bring the database of ``url`` (owner role) up to date; returns the names applied now, none when it was.

    Safe to call from two processes at once (an advisory lock orders them). A shipped file that changed after it
    was applied is a StoreError: make a new migration instead.
    """
    import psycopg

    sql = load("perennial.storage")
    fresh: list[str] = []
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.execute(sql["lock"])
        connection.execute(sql["make_ledger"])
        done: dict[str, str] = dict(connection.execute(sql["applied"]).fetchall())
        for name, text in migrations():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if name in done:
                if done[name] != digest:
                    raise StoreError(f"migration {name} changed after it was applied; put the change into a new file")
                continue
            connection.execute(text)
            connection.execute(sql["record"], (name, digest))
            fresh.append(name)
    return fresh


def pending(url: str) -> list[str]:
    """Names of the shipped migrations that the database of ``url`` lacks; changes nothing. StoreError as in ``migrate``."""
    import psycopg

    sql = load("perennial.storage")
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            known = connection.execute(sql["has_ledger"]).fetchone()
            rows = connection.execute(sql["applied"]).fetchall() if known and known[0] else []
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL is away ({type(error).__name__}); start it, then run this again") from error
    done: dict[str, str] = dict(rows)
    for name, text in migrations():
        if name in done and done[name] != hashlib.sha256(text.encode()).hexdigest():
            raise StoreError(f"migration {name} changed after it was applied; put the change into a new file")
    return [name for name, _ in migrations() if name not in done]
