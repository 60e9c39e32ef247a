"""Brings in what waits outside, makes it ready, and passes announcements on (airflow DAG ``harvest``)."""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

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

        return {**harvest.drain(task_ports(), source), "source": source}

    @task(multiple_outputs=False, trigger_rule=TriggerRule.ALL_DONE)
    def guard_and_relay(names: list[str] | None, drained: list[dict[str, object]] | None) -> dict[str, object]:
        """Admit what is raw, relay the outbox, and seal the audit, whatever a source did; fails at its end when one could not be read."""
        from perennial.flows import harvest, sealing

        admitted = harvest.admit_waiting(task_ports(admit=True))
        relayed = harvest.relay_outbox(task_ports())
        sealing.seal(task_ports())
        came = {str(one["source"]): one for one in drained or ()}  # a source that failed left nothing
        note = told({**came, **admitted, "announcements": relayed})
        if note:
            note_run(get_current_context(), note)
        if names is None or set(names) - set(came):
            raise AirflowFailException(
                "a source could not be read: see the logs of `sources` and `drain`; the rest was done"
            )
        if not note:
            raise AirflowSkipException("nothing waited")
        return {"admitted": admitted, **relayed}

    found = sources()
    guard_and_relay(found, drain.expand(source=found))
