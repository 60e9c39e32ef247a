"""Trains every agent with anything new each night, deeply; on Sundays every agent (airflow DAG ``nightly_retrain``)."""

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param, TriggerRule, get_current_context, task

from perennial.bridge.nightly import plan, tell
from perennial.bridge.policy import default_args

with DAG(
    dag_id="nightly_retrain",
    description="One graph and one note for the night",
    schedule="0 2 * * *",
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    params={"full": Param(None, type=["null", "boolean"], description="every agent; null: on Sundays only")},
    tags=["perennial", "train"],
    doc_md=__doc__,
):

    @task(multiple_outputs=False)
    def agents() -> list[dict[str, object]]:
        """The trainings of this night."""
        return plan(get_current_context())

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def summary(planned: list[dict[str, object]]) -> str:
        """What became of them, as the run's note."""
        return tell(get_current_context(), planned)

    tonight = agents()
    retrain = TriggerDagRunOperator.partial(
        task_id="retrain", wait_for_completion=True, deferrable=True, poke_interval=5, retries=0,
        execution_timeout=timedelta(hours=6), map_index_template="{{ task.trigger_dag_id }}",
    ).expand_kwargs(tonight)  # fmt: skip
    retrain >> summary(tonight)
