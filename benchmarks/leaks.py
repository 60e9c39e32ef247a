"""Twenty planted pieces of personal data on a running stack: what of them is found anywhere afterwards.

    PERENNIAL_HOME=/path PYTHONPATH=.:include python benchmarks/leaks.py [--agent scout] [--wait 600]

Sends the canaries of tests/acceptance/leaks.py through the HTTP API of the stack of PERENNIAL_HOME (examples, feedback, corrections,
reports, predictions, broken and oversized bodies), waits until a job that began after them has ended, then searches: the logs and every
file below PERENNIAL_HOME but the database's own, all tables of Perennial as the app role, and all tables of Airflow and MLflow. Prints
places, what was searched and hits; exit code 1 on a hit, 2 when nothing was trained. For a stack for trials: it sends wrong labels.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from perennial.settings import load_settings
from perennial.stack import postgres
from perennial.stack.home import home
from perennial.stack.secrets import read_or_make
from perennial.stack.state import read_state
from tests.acceptance.leaks import CANARIES, Search, tables_as


def _post(url: str, path: str, body: Any, token: str | None, search: Search) -> int:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url.rstrip("/") + path, data=raw, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            search.look("answers of the API", path, answer.read())
            return int(answer.status)
    except urllib.error.HTTPError as error:
        search.look("answers of the API", path, error.read())
        return error.code


def plant(agent: str, task: str, label: str, search: Search) -> None:
    """Every canary in every field of every way in; ``label`` is one that the task takes."""
    settings = load_settings()
    token = settings.data_plane_token.get_secret_value() if settings.data_plane_token else None

    def post(path: str, body: Any) -> None:
        _post(settings.data_plane_url, path, body, token, search)

    for number, canary in enumerate(CANARIES):
        value, text = canary.value, canary.text
        named = {"agent": agent, "task": task}
        post("/v1/examples", [
            {**named, "text": f"{text} in row {number}", "label": label, "source_id": value, "tag": value, "feedback": text,
             "source_url": f"https://news.example/?who={value}"},
            {**named, "text": f"{text} as a label", "label": value, "predicted_output": value},
            {**named, "text": f"{text} without a label", "label": None}, {**named, "text": f"{text} \x07 bell", "label": label},
            {**named, "text": text + " word" * 3900, "label": label}, {**named, "task": value, "text": text, "label": label},
            {**named, "agent": value, "text": text}, {**named, "text": text, "uncertainty": value}, {value: value}, text,
        ])  # fmt: skip
        post(
            "/v1/feedback",
            {**named, "text": f"{text} he said", "predicted_output": value, "actual_output": label, "confidence": 0.4},
        )
        post("/v1/corrections", {
            **named, "text": f"{text} she said", "incorrect_output": value, "correct_output": label, "explanation": text, "priority": 2,
            "source_id": value, "source_tag": value,
        })  # fmt: skip
        post("/v1/reports", {"agent": agent, "version": "1.0.0", "kind": "wrong", "reporter": value, "comment": text})
        post("/v1/predict", {**named, "inputs": [text], "key": value})
        post("/v1/rollback", {"agent": value, "reason": text})
        post("/v1/outcomes", {"prediction_id": value, "actual": value})
    post("/v1/examples", b'{"text": "' + " ".join(canary.text for canary in CANARIES).encode() + b'", ')


def wait(agent: str, since: datetime, seconds: float) -> str | None:
    """The status of the first job of the agent that began and ended since; None when none did in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with psycopg.connect(load_settings().app_url(), autocommit=True) as connection:
            row = connection.execute(
                "SELECT status::text FROM perennial.jobs WHERE agent = %s AND started_at >= %s AND completed_at IS NOT NULL LIMIT 1",
                (agent, since),
            ).fetchone()
        if row is not None:
            return str(row[0])
        time.sleep(2.0)
    return None


def look(search: Search) -> None:
    """Files below PERENNIAL_HOME, and the tables of the three databases."""
    place = home()
    for name, number, row in tables_as(load_settings().app_url()):
        search.look(name, str(number), row)
    for folder in sorted(path for path in place.root.iterdir() if path.is_dir() and path != place.database):
        # what people dropped there is theirs; a component that is a script holds the script's own text
        search.files(f"files of {folder.name}/", folder, but=("inbox", "script.json"))
    state = read_state(place)
    if not place.database.is_dir() or "postgres" not in state.ports:
        print(
            "the databases of Airflow and MLflow are not in this home: search them with their own addresses",
            file=sys.stderr,
        )
        return
    secrets = read_or_make(place)
    for role in ("airflow", "mlflow"):
        url = postgres.url(state.ports["postgres"], role, role, str(getattr(secrets, role)))
        for name, number, row in tables_as(url, schemas=("public",)):
            search.look(f"{role}: {name.partition('.')[2]}", str(number), row)


def main() -> int:
    """Plant, wait, search, print."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--agent", default="scout")
    asked.add_argument("--task", default="sentiment")
    asked.add_argument("--label", default="negative")
    asked.add_argument("--wait", type=float, default=600.0, help="seconds to wait for a training")
    asked.add_argument("--json", type=Path)
    given = asked.parse_args()
    search, since = Search(), datetime.now(UTC)
    plant(given.agent, given.task, given.label, search)
    ended = wait(given.agent, since, given.wait)
    print(f"training: {ended or 'none ended in time'}")
    look(search)
    print(search.table())
    if given.json:
        given.json.write_text(json.dumps({"training": ended, "looked": search.looked, "hits": search.hits}, indent=1))
    return 1 if search.hits else 0 if ended else 2


if __name__ == "__main__":
    sys.exit(main())
