"""Pools, connections and variables of an Airflow in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perennial.stack.airflow_settings import MASK, Entry, Kind


class MemoryAirflow:
    """The twin in memory. Like Airflow it shows no password."""

    def __init__(self) -> None:
        self.known: dict[tuple[Kind, str], dict[str, Any]] = {}

    def find(self, kind: Kind, id: str) -> Mapping[str, Any] | None:
        """See ``Target.find``."""
        found = self.known.get((kind, id))
        if found is None:
            return None
        return {name: MASK if name == "password" and value else value for name, value in found.items()}

    def make(self, entry: Entry) -> None:
        """See ``Target.make``."""
        self.known[(entry.kind, entry.id)] = dict(entry.body)

    def change(self, entry: Entry) -> None:
        """See ``Target.change``."""
        self.known[(entry.kind, entry.id)].update(entry.body)
