"""Some of these tests import Airflow: it gets a home of its own, never the user's."""

import tests.unit.bridge.conftest  # noqa: F401
