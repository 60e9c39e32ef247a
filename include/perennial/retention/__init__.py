"""What may go and what must stay: the rules, the rows, the folders and Airflow's runs."""
