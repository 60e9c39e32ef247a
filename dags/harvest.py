"""Brings in what waits outside, makes it ready, and passes announcements on (airflow DAG ``harvest``)."""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run, told
from perennial.bridge.policy import default_args

with DAG(
    dag_id="harvest",
    description="Drains the event sources into the buffer; ends skipped when nothing waits",
    schedule=timedelta(minutes=1),
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["perennial", "data"],
    doc_md=__doc__,
):

    @task(multiple_outputs=False)
    def sources() -> list[str]:
        """Sources with something to drain."""
        from perennial.flows import harvest

        return harvest.sources(task_ports())

    @task(multiple_outputs=False, map_index_template="{{ task.op_kwargs['source'] }}")
    def drain(source: str) -> dict[str, object]:
        """One source into the buffer, each record once."""
        from perennial.flows import harvest

        return harvest.drain(task_ports(), source)

    @task(multiple_outputs=False, trigger_rule=TriggerRule.NONE_FAILED)
    def guard_and_relay(names: list[str], drained: list[dict[str, object]]) -> dict[str, object]:
        """Admit what is raw, relay the outbox, and seal the audit."""
        from perennial.flows import harvest, sealing

        admitted = harvest.admit_waiting(task_ports(admit=True))
        relayed = harvest.relay_outbox(task_ports())
        sealing.seal(task_ports())
        note = told({**dict(zip(names, drained or (), strict=False)), **admitted, "announcements": relayed})
        if not note:
            raise AirflowSkipException("nothing waited")
        note_run(get_current_context(), note)
        return {"admitted": admitted, **relayed}

    found = sources()
    guard_and_relay(found, drain.expand(source=found))
