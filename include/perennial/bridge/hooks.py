"""From Airflow connections to ports: the databases come through Airflow, so that secrets backends work."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from perennial.flows.ports import Ports

logger = logging.getLogger(__name__)

CONNECTION = "perennial_db"
ADMIT_CONNECTION = "perennial_admit_db"

# Only these extras of a connection reach the driver: an editor of connections must not reach code or files through the rest.
_EXTRAS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "target_session_attrs", "channel_binding")

_guard = threading.Lock()
_known: dict[tuple[int, bool], Ports] = {}


def task_ports(*, admit: bool = False) -> Ports:
    """The ports of this task or trigger, made once per process (a fork makes its own).

    ``admit`` is for the two tasks that may read originals; elsewhere the ports carry no admission. Runs in workers and in
    threads of the triggerer. Raises NotConfigured when neither connection nor settings know the database.
    """
    key = (os.getpid(), admit)
    with _guard:
        if key not in _known:
            _known[key] = _make(admit)
        return _known[key]


def _make(admit: bool) -> Ports:
    from perennial import wiring
    from perennial.settings import load_settings

    found: dict[str, Any] = {"admit_database_url": None}
    app = _connection_url(CONNECTION)
    if app is not None:
        found["database_url"] = app
    if admit:
        url = _connection_url(ADMIT_CONNECTION)
        found = {**found, "admit_database_url": url} if url else {k: v for k, v in found.items() if k == "database_url"}
    return wiring.ports_from(load_settings(**found))


def database_url() -> str:
    """URL of the app role, from the connection ``perennial_db`` or else from the settings."""
    from perennial.settings import load_settings

    return _connection_url(CONNECTION) or load_settings().app_url()


def _connection_url(name: str) -> str | None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = Connection.get(name)
    except AirflowNotFoundException:
        logger.debug("no Airflow connection %s; the settings decide", name)
        return None
    return url_of(connection)


def url_of(connection: Any) -> str:
    """A libpq URL of an Airflow connection.

    >>> from types import SimpleNamespace
    >>> url_of(SimpleNamespace(login="app", password="a/b", host="db", port=5433, schema="perennial",
    ...                        extra_dejson={"sslmode": "require", "options": "-c search_path=x"}))
    'postgresql://app:a%2Fb@db:5433/perennial?sslmode=require'
    """
    user = quote(connection.login or "postgres", safe="")
    secret = f":{quote(connection.password, safe='')}" if connection.password else ""
    place = (
        f"{connection.host or '127.0.0.1'}:{connection.port or 5432}/{quote(connection.schema or 'perennial', safe='')}"
    )
    extra = connection.extra_dejson
    query = urlencode({key: extra[key] for key in _EXTRAS if extra.get(key)})
    return f"postgresql://{user}{secret}@{place}{f'?{query}' if query else ''}"
