"""Airflow's pools, connections and variables as ``airflow_settings.yaml`` lists them: ``python -m perennial.stack.pools``.

What exists stays as it is: people may have changed it in Airflow. PERENNIAL_POOL_<NAME> sets the size of a pool for good. The
supervisor starts this; ``perennial airflow-settings apply`` does the same for an Airflow of one's own.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from perennial.errors import PerennialError
from perennial.settings import load_settings
from perennial.stack import airflow_settings
from perennial.stack.airflow_api import AirflowApi
from perennial.stack.airflow_settings import Kind
from perennial.stack.home import home, project_folder
from perennial.stack.secrets import read_or_make


def wanted_pools(file: Path) -> list[dict[str, Any]]:
    """Pools of the file in the words of Airflow's API. Raises StackError for a file that has another shape."""
    return [dict(entry.body) for entry in airflow_settings.read(file) if entry.kind is Kind.POOL]


def main() -> int:
    """Make what is missing; resize what a setting names."""
    file = project_folder() / "airflow_settings.yaml"
    if not file.is_file():
        print(f"no {file.name}; no pools made")
        return 0
    password = read_or_make(home()).login_admin
    airflow = AirflowApi(load_settings(airflow_user="admin", airflow_password=password, airflow_token=None))
    entries = airflow_settings.read(file)
    chosen = {
        entry.id: replace(entry, body={**entry.body, "slots": int(slots)})
        for entry in entries
        if entry.kind is Kind.POOL and (slots := os.environ.get(f"PERENNIAL_POOL_{entry.id.upper()}"))
    }
    made = [chosen.get(entry.id, entry) if entry.kind is Kind.POOL else entry for entry in entries]
    for entry, outcome in airflow_settings.apply(made, airflow, keep=True):
        print(f"{entry.kind.value} {entry.id}: {outcome.value}")
    for entry, outcome in airflow_settings.apply(list(chosen.values()), airflow):
        print(f"{entry.kind.value} {entry.id}: {outcome.value}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PerennialError as error:
        sys.exit(f"{type(error).__name__}: {error}")
