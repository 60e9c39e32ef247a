"""What Airflow loads at start: the name under which Perennial appears among the plugins, its pages and where they stand in the menu.

Every Airflow process imports this, so the pages themselves are imported by the api-server alone, at the first request for one.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from perennial.bridge import missing_pools

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from perennial.pages.page import Site

PREFIX = "/perennial"
CATEGORY = "Perennial"
# name in Airflow's menu, path of the page; a test compares them with the pages that there are
MENU = (
    ("Fleet", "/fleet"), ("Version", "/version"), ("Rollout", "/rollout"), ("Validation", "/validation"),
    ("Quarantine", "/quarantine"), ("Explain", "/explain"),
)  # fmt: skip


def site() -> Site:
    """What the pages may reach, made once per process and database. Raises NotConfigured when no database is set."""
    from perennial import wiring
    from perennial.bridge.dag_switch import AirflowDags
    from perennial.pages.overview import PostgresOverview
    from perennial.pages.page import Site as Made
    from perennial.pages.roles import mistaken_grants
    from perennial.settings import load_settings
    from perennial.storage.database import Database

    settings = load_settings()
    url = settings.app_url()
    with _guard:
        if url not in _pools:
            _pools[url] = Database(url, max_size=4)
            for mistake in mistaken_grants(settings.pages_grants):
                logger.error("%s", mistake)
    return Made(ports=wiring.ports(settings), overview=PostgresOverview(_pools[url]), dags=AirflowDags())


_guard = threading.Lock()
_pools: dict[str, Any] = {}
logger = logging.getLogger(__name__)


class LazyPages:
    """The pages' app, built when the first request comes in; its guard answers that request too."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if self._app is None:
            from anyio import to_thread

            await to_thread.run_sync(self._build)
        assert self._app is not None
        await self._app(scope, receive, send)

    def _build(self) -> None:
        with self._lock:
            if self._app is None:
                from perennial.bridge.signed_in import cookie_name, identify, own_origins
                from perennial.pages.app import pages_app

                self._app = pages_app(site, identify=identify, cookie=cookie_name(), origins=own_origins())


def _views() -> list[dict[str, Any]]:
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + PREFIX
    views: list[dict[str, Any]] = [
        {
            "name": name,
            "href": f"{base}{path}",
            "destination": "nav",
            "category": CATEGORY,
            "url_route": f"perennial-{path[1:]}",
        }
        for name, path in MENU
    ]
    views[0] |= {
        "name": CATEGORY, "category": None, "nav_top_level": True, "icon": f"{base}/static/leaf.svg",
        "icon_dark_mode": f"{base}/static/leaf-dark.svg",
    }  # fmt: skip
    views += [
        {"name": CATEGORY, "href": f"{base}/version?dag={{DAG_ID}}", "destination": "dag", "url_route": "perennial-agent"},
        {"name": CATEGORY, "href": f"{base}/version?dag={{DAG_ID}}&run={{RUN_ID}}", "destination": "dag_run",
         "url_route": "perennial-run"},
    ]  # fmt: skip
    return views


class PerennialPlugin(AirflowPlugin):  # type: ignore[misc]
    """Perennial in Airflow: the pages, and where Airflow's UI links to them."""

    name = "perennial"
    fastapi_apps = [{"app": LazyPages(), "url_prefix": PREFIX, "name": "Perennial pages"}]
    external_views = _views()
    listeners = [missing_pools]
