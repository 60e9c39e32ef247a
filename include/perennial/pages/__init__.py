"""What people look at in Airflow's web UI: server-rendered pages over the flows. Knows no Airflow; the bridge hands it in."""
