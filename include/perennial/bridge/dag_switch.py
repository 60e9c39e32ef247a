"""Airflow's DAGs as the pages see and switch them. Runs in the api-server, which reads Airflow's own database."""

from __future__ import annotations

from collections.abc import Sequence

from perennial.flows.training_switch import DagFacts


class AirflowDags:
    """See ``flows.training_switch.Dags``."""

    def facts(self, dag_ids: Sequence[str]) -> dict[str, DagFacts]:
        """See ``Dags``."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session(scoped=False) as session:
            rows = session.execute(
                select(DagModel.dag_id, DagModel.is_paused, DagModel.next_dagrun_create_after).where(
                    DagModel.dag_id.in_(list(dag_ids))
                )
            ).all()
        return {dag_id: DagFacts(paused=bool(paused), next_run=next_run) for dag_id, paused, next_run in rows}

    def set_paused(self, dag_id: str, paused: bool) -> bool:
        """See ``Dags``; the same column that Airflow's own switch writes."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session
        from sqlalchemy import update

        with create_session(scoped=False) as session:
            done = session.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(is_paused=paused))
            return bool(done.rowcount)
