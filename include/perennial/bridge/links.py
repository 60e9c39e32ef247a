"""Buttons on a task that lead to the model run, the model version and the gateway."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink

from perennial.settings import load_settings, without_login


class _ResultLink(BaseOperatorLink):  # type: ignore[misc]
    """Reads a URL from what the operator's own execution returned, so it costs no request. Runs in the worker."""

    field = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The URL, or an empty string when the task made none."""
        return str(getattr(operator, "links", {}).get(self.field) or "")


class ModelRunLink(_ResultLink):
    """The MLflow run of this training."""

    name = "MLflow run"
    field = "run_url"


class ModelVersionLink(_ResultLink):
    """The registered version in MLflow."""

    name = "MLflow version"
    field = "version_url"


class GatewayLink(BaseOperatorLink):  # type: ignore[misc]
    """What the gateway serves now."""

    name = "Gateway"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page that lists agents, versions and weights."""
        return f"{without_login(load_settings().data_plane_url).rstrip('/')}/v1/agents"
