"""Looks every minute at what is wrong and tells it once, over the connection `perennial_alerts` (airflow DAG ``alerts``).

Without the connection `perennial alerts` lists what is open. Each alert names its page in `docs/runbooks`.
Once a day the whole chain of the audit is verified.
"""

from datetime import timedelta

from airflow.sdk import DAG, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run
from perennial.bridge.policy import default_args

with DAG(
    dag_id="alerts",
    description="Tells people once per cause: failure, hold, rollback, breaker, budget, quiet, lease, audit",
    schedule=timedelta(minutes=1),
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["perennial", "upkeep"],
    doc_md=__doc__,
):

    @task(execution_timeout=timedelta(minutes=30))
    def audit() -> bool:
        """Verify the record of decisions, when that is due."""
        from perennial.flows import alerts

        sound = alerts.verify_audit(task_ports())
        if sound is None:
            raise AirflowSkipException("verified within the last day")
        return sound

    @task(multiple_outputs=False, trigger_rule=TriggerRule.ALL_DONE)
    def tell() -> dict[str, object]:
        """Raise, close and tell; fails when the channel does not take a message, which is told again."""
        from perennial.bridge.notifiers import channel
        from perennial.flows import alerts

        outcome = alerts.tick(task_ports(), channel())
        note = alerts.note(outcome)
        if note:
            note_run(get_current_context(), note)
        if outcome["undelivered"]:
            raise AirflowFailException(outcome["undelivered"])
        if not note:
            raise AirflowSkipException("all is well")
        return outcome

    audit() >> tell()
