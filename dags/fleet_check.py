"""Fails with file and line for a broken fleet file; every other agent keeps running (airflow DAG ``fleet_check``)."""

from datetime import timedelta

from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run
from perennial.bridge.policy import default_args
from perennial.fleet import loader
from perennial.settings import load_settings

# a broken file is seen at parse, so the check runs within a minute of it and is quiet otherwise
broken = loader.load(load_settings().fleet_folder).errors

with DAG(
    dag_id="fleet_check",
    description="Names file and line of every broken fleet file",
    schedule=timedelta(minutes=1) if broken else timedelta(hours=1),
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["perennial", "fleet"],
    doc_md=__doc__,
):

    @task(multiple_outputs=False)
    def check() -> list[dict[str, object]]:
        """Load every fleet file as the dag processor does."""
        from perennial.flows import fleet_check

        found = fleet_check.check(task_ports())
        lines = [f"{one['file']}:{one['line']}: {one['message']}" for one in found]
        note_run(get_current_context(), "; ".join(lines) or "every fleet file loads")
        if lines:
            raise AirflowFailException("broken fleet files:\n" + "\n".join(lines))
        return found

    check()
