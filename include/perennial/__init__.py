"""Perennial keeps a fleet of models fresh, on Apache Airflow."""

__version__ = "0.1.0"
