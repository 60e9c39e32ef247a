"""The embedded stack: PostgreSQL, Airflow, MLflow and the data plane on one machine, under one supervisor.

``control`` is what the command line calls; ``supervisor`` is the detached process that owns every part;
``parts`` says what runs and how its health is read. For development and small fleets on Linux.
"""
