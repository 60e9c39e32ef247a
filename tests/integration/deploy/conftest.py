"""Nothing here reads the user's Airflow."""

import tests.unit.bridge.conftest  # noqa: F401
