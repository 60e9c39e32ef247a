"""The data plane over HTTP: what agents ask, tell and send. Examples never go through Airflow's api-server."""
