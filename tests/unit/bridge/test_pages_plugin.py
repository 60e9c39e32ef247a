"""The pages in Airflow: what the plugin registers, who Airflow's users are to them, and its DAGs as they switch them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.api_fastapi.app import RESERVED_URL_PREFIXES
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse
from fastapi import FastAPI, HTTPException
from starlette.testclient import TestClient

from perennial.bridge import plugin, signed_in
from perennial.bridge.dag_switch import AirflowDags
from perennial.errors import AccessRefused
from perennial.flows.training_switch import DagFacts, Dags, MemoryDags
from perennial.pages.app import PAGES
from perennial.pages.identity import Identify, MemoryIdentity, User
from perennial.pages.roles import Role

pytestmark = pytest.mark.req("J50")


def test_airflow_finds_the_pages_and_their_places_in_the_menu() -> None:
    (mounted,) = plugin.PerennialPlugin.fastapi_apps
    assert mounted["url_prefix"] == "/perennial"
    assert not any(mounted["url_prefix"].startswith(prefix) for prefix in RESERVED_URL_PREFIXES)
    views = [ExternalViewResponse.model_validate(view) for view in plugin.PerennialPlugin.external_views]
    routes = [view.url_route for view in views]
    assert None not in routes
    assert len(routes) == len(set(routes))
    assert {view.destination for view in views} == {"nav", "dag", "dag_run"}
    assert [view.name for view in views if view.nav_top_level] == ["Perennial"]
    assert {page.path for page in PAGES if page.menu} <= {path for _, path in plugin.MENU}


def test_no_process_pays_for_pages_that_nobody_asked_for() -> None:
    seen = (
        "import sys, perennial.bridge.plugin as plugin\n"
        "heavy = ('torch', 'mlflow', 'transformers', 'great_expectations', 'sklearn', 'perennial.pages', 'perennial.wiring')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "import perennial.pages.app, perennial.wiring\n"
        "print([name for name in heavy[:5] if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[-3:-1] == ["[]", "[]"]


def test_the_first_request_of_all_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(token: str | None) -> User:
        raise AccessRefused(401, "sign in to Airflow first")

    monkeypatch.setattr(signed_in, "identify", nobody)
    airflow = FastAPI()
    airflow.mount("/perennial", plugin.LazyPages())
    with TestClient(airflow) as client:
        assert client.get("/perennial/nope").status_code == 401
        assert client.get("/perennial/healthz").status_code == 200


@pytest.mark.parametrize(
    ("role", "standing"),
    [
        ("VIEWER", Role.VIEWER),
        ("USER", Role.EDITOR),
        ("OP", Role.OPERATOR),
        ("ADMIN", Role.OPERATOR),
        (None, Role.NOBODY),
    ],
    ids=["viewer", "user", "op", "admin", "none"],
)
def test_what_airflow_lets_people_do_is_their_standing(
    role: str | None, standing: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow.api_fastapi.app.get_auth_manager", SimpleAuthManager)
    assert signed_in.standing_of(SimpleAuthManagerUser(username="ana", role=role)) is standing


@pytest.fixture(params=["memory", "airflow"])
def identify(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Identify:
    """Both forms of the sign-in seam know the token "good" of ana, and nobody else."""
    if request.param == "memory":
        return MemoryIdentity({"good": User(id="ana", name="ana", standing=Role.EDITOR)})

    async def resolve(token: str | None) -> SimpleAuthManagerUser:
        if not token:
            raise HTTPException(401, "Not authenticated")
        if token != "good":
            raise HTTPException(403, "Invalid JWT token")
        return SimpleAuthManagerUser(username="ana", role="USER")

    monkeypatch.setattr("airflow.api_fastapi.core_api.security.resolve_user_from_token", resolve)
    monkeypatch.setattr("airflow.api_fastapi.app.get_auth_manager", SimpleAuthManager)
    return signed_in.identify


def test_a_token_becomes_a_user_or_a_refusal(identify: Identify) -> None:
    assert asyncio.run(identify("good")) == User(id="ana", name="ana", standing=Role.EDITOR)
    for token, status in ((None, 401), ("", 401), ("bad", 403)):
        with pytest.raises(AccessRefused) as refused:
            asyncio.run(identify(token))
        assert refused.value.status == status


def test_nobody_comes_in_while_everybody_is_an_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    with pytest.raises(AccessRefused) as refused:
        asyncio.run(signed_in.identify("good"))
    assert refused.value.status == 503


def test_the_origin_of_the_configured_address_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/team")
    assert signed_in.own_origins() == ("https://airflow.example.org",)
    assert {view["href"].split("?")[0].rpartition("/")[0] for view in plugin._views()} == {"/team/perennial"}
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "")
    assert signed_in.own_origins() == ()


@pytest.fixture(params=["memory", "airflow"])
def dags(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dags]:
    """Both forms of the DAG seam, with train_scout running and the night at two."""
    night = datetime(2026, 11, 22, 2, tzinfo=UTC)
    if request.param == "memory":
        yield MemoryDags({"train_scout": DagFacts(paused=False), "nightly": DagFacts(paused=False, next_run=night)})
        return
    from airflow import settings
    from airflow.models.dag import DagModel
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker
    from sqlalchemy.pool import StaticPool

    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    table: Any = DagModel.__table__
    table.metadata.create_all(engine, tables=[table])
    monkeypatch.setattr(settings, "NonScopedSession", sessionmaker(engine))
    rest = {
        "max_active_tasks": 1, "max_consecutive_failed_dag_runs": 0, "has_task_concurrency_limits": False, "max_active_runs": 1,
    }  # fmt: skip
    with engine.begin() as connection:
        for dag_id, when in (("train_scout", None), ("nightly", night)):
            connection.execute(
                table.insert().values(
                    dag_id=dag_id, is_paused=False, bundle_name="dags", next_dagrun_create_after=when, **rest
                )
            )
    yield AirflowDags()
    engine.dispose()


def test_dags_are_seen_and_switched(dags: Dags) -> None:
    night = datetime(2026, 11, 22, 2, tzinfo=UTC)
    assert dags.facts(["train_scout", "nightly", "none"]) == {
        "train_scout": DagFacts(paused=False), "nightly": DagFacts(paused=False, next_run=night),
    }  # fmt: skip
    for paused in (True, True, False):
        assert dags.set_paused("train_scout", paused)
        assert dags.facts(["train_scout"])["train_scout"].paused is paused
    assert not dags.set_paused("none", True)
    assert not dags.facts(["nightly"])["nightly"].paused
