"""One private Airflow for all tests of this folder: booting it costs most of their time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.bridge.airflow_stack import Stack
from tests.postgres_fixture import Server

AGENTS = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def airflow_stack(request: pytest.FixtureRequest, postgres_server: Server) -> Iterator[Stack]:
    """Airflow with the repository's DAGs for three agents, on stub flows."""
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE airflow_bridge")
        admin.execute("CREATE DATABASE perennial_bridge TEMPLATE template_perennial")
    home = Path(tempfile.mkdtemp(prefix="perennial-bridge-"))
    stack = Stack(
        home=home,
        airflow_db=postgres_server.url("airflow_bridge"),
        perennial_db=postgres_server.url("perennial_bridge"),
    )
    try:
        stack.start(*AGENTS)
        yield stack
    finally:
        stack.stop()
    if not request.session.testsfailed:  # the logs tell why
        shutil.rmtree(home, ignore_errors=True)
