"""What Airflow loads at start: the name under which Perennial appears among the plugins."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from perennial.bridge import missing_pools


class PerennialPlugin(AirflowPlugin):  # type: ignore[misc]
    """Perennial in Airflow. Links live on their operators and triggers in the DAGs, so nothing has to be registered to run."""

    name = "perennial"
    listeners = [missing_pools]
