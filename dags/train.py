"""One training DAG per agent of the fleet (airflow: DAGs ``train_<agent>``)."""

from perennial.bridge.factory import fleet_dags, train_dag

globals().update(fleet_dags(train_dag))
