"""A container's health check: ``python -m perennial.stack.probe URL`` or ``... scheduler|triggerer|dag-processor``.

Exits 0 when the part is well. Standard library alone: a check costs 0.1 s of processor time, where ``airflow jobs check`` imports
Airflow each time. A component of Airflow is well when its newest heartbeat, as the API server of PERENNIAL_AIRFLOW_URL tells it
to anybody, is younger than 30 seconds; when that server does not answer nobody knows, and the check fails.
"""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

from perennial.stack.health import AirflowHealth, Health, HeartbeatProbe, HttpProbe, Probe

COMPONENTS = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}
STALE_SECONDS = 30.0


def probe_of(word: str, airflow_url: str = "http://127.0.0.1:8080") -> Probe:
    """The probe of a URL or of a component of Airflow; ValueError for another word.

    >>> probe_of("http://127.0.0.1:8600/healthz")
    HttpProbe(port=8600, path='/healthz', host='127.0.0.1')
    """
    if word in COMPONENTS:
        parts = urlsplit(airflow_url)
        airflow = AirflowHealth(parts.port or 80, parts.hostname or "127.0.0.1")
        return HeartbeatProbe(airflow=airflow, component=COMPONENTS[word], stale=STALE_SECONDS)
    parts = urlsplit(word)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"say a URL that begins with http://, or one of {', '.join(COMPONENTS)}")
    return HttpProbe(port=parts.port or 80, path=parts.path or "/", host=parts.hostname)


def main(words: list[str]) -> int:
    """One look; 0 when it was good."""
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        probe = probe_of(words[0], os.environ.get("PERENNIAL_AIRFLOW_URL", "http://127.0.0.1:8080"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    found = probe.look(0.0)
    print(f"{words[0]}: {found.value}")
    return 0 if found is Health.GOOD else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
