"""A password in MLflow's URL stays in the process that needs it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from perennial.bridge.links import GatewayLink
from perennial.demo.report import print_links
from perennial.errors import RegistryError
from perennial.registry.mlflow_store import MlflowStore
from perennial.settings import Settings, without_login

AWAY = "http://trainer:s3cret@127.0.0.1:1"
FOUND = SimpleNamespace(run_id="r1", version="3", tags={})


class Known(MlflowStore):
    """MLflow knows one version, and is not asked."""

    @contextmanager
    def _client(self) -> Iterator[Any]:
        info = SimpleNamespace(experiment_id="7")
        yield SimpleNamespace(search_model_versions=lambda _: [FOUND], get_run=lambda _: SimpleNamespace(info=info))


def test_links_lead_to_the_server_without_the_login() -> None:
    assert Known("http://trainer:s3cret@mlflow:5000/").links("scout", "1.0.0") == {
        "run_url": "http://mlflow:5000/#/experiments/7/runs/r1",
        "version_url": "http://mlflow:5000/#/models/scout/versions/3",
    }


@pytest.mark.parametrize("url", ["databricks", "sqlite:////srv/mlflow.db", "postgresql://mlflow:s3cret@db/mlflow"])
def test_what_has_no_pages_has_no_links(url: str) -> None:
    assert Known(url).links("scout", "1.0.0") == {}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://trainer:s3cret@mlflow:5000", "http://mlflow:5000"),
        ("http://trainer:s3c@ret/s3cret#s3cret?@mlflow:5000/base", "http://mlflow:5000/base"),
        ("https://token-s3cret@mlflow", "https://mlflow"),
        ("postgresql://db/mlflow?user=u&password=s3cret", "postgresql://db/mlflow"),
        ("http://127.0.0.1:5500", "http://127.0.0.1:5500"),
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("databricks", "databricks"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_user_and_password(url: str, shown: str) -> None:
    assert without_login(url) == shown
    assert "s3c" not in repr(MlflowStore(url))
    assert "s3c" not in repr(Settings(mlflow_url=url))


def test_a_server_that_is_away_is_told_without_the_login_all_the_way_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1 ") as refused:
        MlflowStore(AWAY).exists("scout", "1.0.0")
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_a_server_that_is_away_leaves_its_cause_where_there_is_no_login_to_hide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError) as refused:
        MlflowStore("http://127.0.0.1:1").exists("scout", "1.0.0")
    assert refused.value.__cause__ is not None


def test_the_demo_prints_addresses_without_logins() -> None:
    told = StringIO()
    address = "http://trainer:s3cret@host:5000"
    settings = Settings(mlflow_url=address, airflow_url=address, data_plane_url=address)
    print_links(Console(file=told, width=200), settings, Path("accuracy.png"))
    assert "s3cret" not in told.getvalue()
    assert told.getvalue().count("http://host:5000") == 3


def test_the_button_to_the_gateway_leads_there_without_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_DATA_PLANE_URL", "https://me:s3cret@plane/")
    assert GatewayLink().get_link(None, ti_key=None) == "https://plane/v1/agents"
