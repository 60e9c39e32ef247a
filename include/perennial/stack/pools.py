"""Airflow's pools as ``airflow_settings.yaml`` lists them: ``python -m perennial.stack.pools``.

A pool that exists keeps its size, which people may have changed in Airflow; PERENNIAL_POOL_<NAME> sets it for good.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from perennial.errors import PerennialError, StackError
from perennial.settings import load_settings
from perennial.stack.home import home, project_folder
from perennial.stack.secrets import read_or_make


def wanted_pools(file: Path) -> list[dict[str, Any]]:
    """Pools of the file in the words of Airflow's API. Raises StackError for a file that has another shape."""
    import yaml  # type: ignore[import-untyped]

    try:
        rows = (yaml.safe_load(file.read_text(encoding="utf-8")) or {})["airflow"]["pools"] or []
        return [
            {"name": row["pool_name"], "slots": int(row["pool_slot"]), "description": row.get("pool_description", "")}
            for row in rows
        ]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise StackError(
            f"{file} is not understood ({type(error).__name__}: {error}); it needs airflow.pools with pool_name and pool_slot"
        ) from error


def main() -> int:
    """Create what is missing; resize what a setting names."""
    import httpx

    file = project_folder() / "airflow_settings.yaml"
    if not file.is_file():
        print(f"no {file.name}; no pools made")
        return 0
    password = read_or_make(home()).login_admin
    with httpx.Client(base_url=load_settings().airflow_url, timeout=30.0) as link:
        token = link.post("/auth/token", json={"username": "admin", "password": password}).raise_for_status().json()
        link.headers["Authorization"] = f"Bearer {token['access_token']}"
        known = {row["name"] for row in link.get("/api/v2/pools").raise_for_status().json()["pools"]}
        for pool in wanted_pools(file):
            chosen = os.environ.get(f"PERENNIAL_POOL_{pool['name'].upper()}")
            if pool["name"] not in known:
                body = {**pool, "slots": int(chosen or pool["slots"]), "include_deferred": False}
                link.post("/api/v2/pools", json=body).raise_for_status()
            elif chosen:
                # the body is validated as a whole pool, whatever the mask says
                body = {"pool": pool["name"], "slots": int(chosen), "include_deferred": False}
                where = f"/api/v2/pools/{pool['name']}"
                link.patch(where, params={"update_mask": "slots"}, json=body).raise_for_status()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PerennialError as error:
        sys.exit(f"{type(error).__name__}: {error}")
