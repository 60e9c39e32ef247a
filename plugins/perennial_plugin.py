"""Makes Perennial known to an Airflow that finds it on PYTHONPATH only.

An installed package is found by its entry point; registering the same name a second time would show an error in Airflow's list.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="perennial"):
    from perennial.bridge.plugin import PerennialPlugin

    __all__ = ["PerennialPlugin"]
