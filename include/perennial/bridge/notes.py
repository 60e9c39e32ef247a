"""One line on a run that says what happened, by Airflow's REST API: the Task SDK has no call for it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from perennial.errors import PerennialError
from perennial.settings import Settings, load_settings
from perennial.storage.airflow_link import AirflowLink

logger = logging.getLogger(__name__)

_SECONDS = 5.0
_LONGEST = 900  # Airflow takes 1000 characters
_links: list[tuple[Settings, AirflowLink]] = []  # one at most: the notes of a process share a login


def note_run(context: Mapping[str, Any], text: str) -> None:
    """Write the note of the context's run. A note is a comfort: without one the run is as good, so a failure is only logged."""
    run = context["dag_run"]
    try:
        write_note(load_settings(), run.dag_id, run.run_id, text)
    except (PerennialError, ValueError) as error:  # ValueError: a setting is wrong
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

    StoreUnavailable when it is away or refuses, NotConfigured without token and password.
    """
    link = _link(settings)
    found = {dag_id: link.find(f"/api/v2/dags/{quote(dag_id, safe='')}") for dag_id in dag_ids}
    return frozenset(dag_id for dag_id, facts in found.items() if facts and facts.get("is_paused"))


def write_note(settings: Settings, dag_id: str, run_id: str, text: str) -> None:
    """PATCH the note of one run as the machine user.

    StoreUnavailable when Airflow is away or refuses, NotConfigured without token and password.
    """
    path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
    _link(settings).call("PATCH", path, {"note": text[:_LONGEST]})


def _link(settings: Settings) -> AirflowLink:
    if not _links or _links[0][0] != settings:
        _links[:] = [
            (settings, AirflowLink(settings, purpose="note runs and see which DAGs are paused", seconds=_SECONDS))
        ]
    return _links[0][1]
