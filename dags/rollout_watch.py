"""Keeps watching champions after 100 % and puts the predecessor back; looks after rollouts that no run carries on, and ends
what was left half done (airflow DAG ``rollout_watch``)."""

from datetime import timedelta

from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run
from perennial.bridge.policy import default_args

with DAG(
    dag_id="rollout_watch",
    description="Watches every champion that bakes and every parked rollout; skipped when there is none",
    schedule=timedelta(minutes=1),
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["perennial", "rollout"],
    doc_md=__doc__,
):

    @task(multiple_outputs=False)
    def look() -> list[dict[str, object]]:
        """Judge every bake; a bad one is reverted here and now."""
        from perennial.flows import watch

        ports = task_ports()
        if not watch.something_bakes(ports):
            raise AirflowSkipException("nothing bakes")
        looks = watch.look(ports)
        told = [f"{one['agent']} {one['version']}: {one['action']} ({one['reason']})" for one in looks]
        note_run(get_current_context(), "; ".join(told))
        return looks

    look()
