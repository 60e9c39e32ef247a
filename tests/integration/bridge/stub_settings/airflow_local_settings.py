"""Puts recorded flows in the place of the real ones in every Airflow process of the bridge's own test stack."""

import sys

from tests.integration.bridge import stub_flows

stub_flows.install()
if "scheduler" in sys.argv:
    from perennial.bridge.warm import preload

    preload(("perennial.bridge.factory", "perennial.bridge.sensors", "json.tool"))
