"""The Airflow face of Perennial: the only room that imports airflow.

``factory`` builds the DAGs of an agent, ``operators`` and ``steps`` hold the task bodies (each two lines: ports, then a flow),
``triggers`` run in the triggerer, ``hooks`` turns Airflow connections into ports, ``warm`` runs in the scheduler.
"""
