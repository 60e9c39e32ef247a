"""The settings of a running Airflow, over its REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from perennial.settings import Settings
from perennial.stack.airflow_settings import Entry, Kind
from perennial.storage.airflow_link import AirflowLink

_PATHS = {Kind.POOL: "pools", Kind.CONNECTION: "connections", Kind.VARIABLE: "variables"}


class AirflowApi:
    """``airflow_settings.Target`` for Airflow 3.3. The user of the settings needs the role Op."""

    def __init__(self, settings: Settings) -> None:
        self._link = AirflowLink(settings, purpose="change pools, connections and variables")

    def find(self, kind: Kind, id: str) -> Mapping[str, Any] | None:
        """See ``Target.find``."""
        return self._link.find(self._path(kind, id))

    def make(self, entry: Entry) -> None:
        """See ``Target.make``."""
        body = {**entry.body, "include_deferred": False} if entry.kind is Kind.POOL else entry.body
        self._link.call("POST", f"/api/v2/{_PATHS[entry.kind]}", body)

    def change(self, entry: Entry) -> None:
        """See ``Target.change``."""
        path, body = self._path(entry.kind, entry.id), dict(entry.body)
        if entry.kind is Kind.POOL:
            # the body is validated as a whole pool, whatever the mask says
            body = {"pool": body.pop("name"), "include_deferred": False, **body}
            path += f"?{urlencode({'update_mask': ['slots', 'description']}, doseq=True)}"
        self._link.call("PATCH", path, body)

    def _path(self, kind: Kind, id: str) -> str:
        return f"/api/v2/{_PATHS[kind]}/{quote(id, safe='')}"
