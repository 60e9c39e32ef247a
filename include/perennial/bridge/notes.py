"""One line on a run that says what happened, by Airflow's REST API: the Task SDK has no call for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from perennial.errors import NotConfigured
from perennial.settings import Settings, load_settings

logger = logging.getLogger(__name__)

_SECONDS = 5.0
_LONGEST = 900  # Airflow takes 1000 characters
_tokens: dict[str, str] = {}


def note_run(context: Mapping[str, Any], text: str) -> None:
    """Write the note of the context's run. A note is a comfort: without one the run is as good, so a failure is only logged."""
    run = context["dag_run"]
    try:
        write_note(load_settings(), run.dag_id, run.run_id, text)
    except (OSError, ValueError, KeyError, NotConfigured) as error:
        logger.warning("the note of %s %s was not written: %s: %s", run.dag_id, run.run_id, type(error).__name__, error)


def told(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Counts by name as one line; zeros and what is no number are left out, and so is a name with nothing to say.

    >>> told({"inbox": {"accepted": 120, "rejected": 2, "parts": 1}, "scout": {"ready": 0}})
    'inbox: 120 accepted, 2 rejected, 1 parts'
    """
    lines = []
    for name, values in counts.items():
        said = [f"{value} {word}" for word, value in values.items() if isinstance(value, int) and value]
        if said:
            lines.append(f"{name}: {', '.join(said)}")
    return "; ".join(lines)


def paused_dags(settings: Settings, dag_ids: Collection[str]) -> frozenset[str]:
    """Which of these DAGs are paused, as Airflow's REST API tells the machine user.

    OSError when it is away, NotConfigured without one.
    """
    found = set()
    for dag_id in dag_ids:
        try:
            facts = _as_machine(settings, "GET", f"/api/v2/dags/{quote(dag_id, safe='')}", None)
        except HTTPError as error:
            if error.code != 404:  # not parsed yet: not paused either
                raise
            continue
        if facts.get("is_paused"):
            found.add(dag_id)
    return frozenset(found)


def write_note(settings: Settings, dag_id: str, run_id: str, text: str) -> None:
    """PATCH the note of one run as the machine user.

    OSError when Airflow is away or refuses, NotConfigured without a password.
    """
    path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
    _as_machine(settings, "PATCH", path, {"note": text[:_LONGEST]})


def _as_machine(settings: Settings, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    try:
        return _send(settings, method, path, body, token=_token(settings))
    except HTTPError as error:
        if error.code not in {401, 403}:
            raise
        _tokens.pop(settings.airflow_url, None)  # expired or revoked: one fresh login
        return _send(settings, method, path, body, token=_token(settings))


def _token(settings: Settings) -> str:
    known = _tokens.get(settings.airflow_url)
    if known is None:
        if settings.airflow_password is None:
            raise NotConfigured("PERENNIAL_AIRFLOW_PASSWORD", "run notes need the machine user's credential")
        body = {"username": settings.airflow_user, "password": settings.airflow_password.get_secret_value()}
        known = str(_send(settings, "POST", "/auth/token", body)["access_token"])
        _tokens[settings.airflow_url] = known
    return known


def _send(
    settings: Settings, method: str, path: str, body: dict[str, Any] | None, token: str | None = None
) -> dict[str, Any]:
    url = settings.airflow_url.rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise ValueError("PERENNIAL_AIRFLOW_URL must begin with http:// or https://")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = Request(url, data=None if body is None else json.dumps(body).encode(), headers=headers, method=method)
    try:
        with urlopen(request, timeout=_SECONDS) as answer:
            return dict(json.loads(answer.read() or b"{}"))
    except (
        HTTPException
    ) as error:  # an answer that is garbled or breaks off is no OSError, and the same to whoever asked
        raise ConnectionError(f"Airflow's answer broke off ({type(error).__name__})") from error
