"""Use cases as plain functions over ports: what a task body calls, testable without Airflow."""
