"""What a person does with rows that wait for one: let them train again, or set them aside for good."""

from __future__ import annotations

from perennial.storage.database import Database
from perennial.storage.queries import load

_FILE = "aside.sql"


def release_held(database: Database, agent: str) -> int:
    """Let the agent's held rows (two refused trainings) be claimed again, and the holdout rows that came with them judge again.

    Returns how many rows changed. Rows of a too rare label keep waiting.
    """
    with database.connection() as connection:
        return connection.execute(load("perennial.ingest", _FILE)["release_held"], {"agent": agent}).rowcount


def drop_held(database: Database, agent: str, actor: str) -> int:
    """Take the agent's held rows out of training for good, and the holdout rows that came with them out of evaluation.

    They stay in the books as evicted. Returns how many.
    """
    with database.connection() as connection:
        return connection.execute(
            load("perennial.ingest", _FILE)["drop_held"], {"agent": agent, "actor": actor}
        ).rowcount
