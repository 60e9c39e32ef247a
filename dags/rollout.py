"""One rollout DAG per agent of the fleet (airflow: DAGs ``rollout_<agent>``)."""

from perennial.bridge.factory import fleet_dags, rollout_dag

globals().update(fleet_dags(rollout_dag))
