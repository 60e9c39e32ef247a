"""Examples of the two sensors: pages that are refreshed when a buffer is ready and when a model was promoted (airflow DAGs)."""

from datetime import timedelta

from airflow.sdk import DAG, task

from perennial.bridge.policy import default_args
from perennial.bridge.sensors import BufferReadySensor, ModelPromotedSensor

with DAG(
    dag_id="report_buffers",
    description="Writes what waits, at most once an hour, when a buffer asks for a training",
    schedule="@hourly",
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["perennial", "report", "example"],
    doc_md=__doc__,
):

    @task
    def buffer_page(ready: list[dict[str, str]]) -> str:
        """Rows by task and state of the agents that are due."""
        from perennial.bridge.reports import write_buffer_page

        return write_buffer_page(ready)

    waiting = BufferReadySensor(
        task_id="buffer_ready", seconds=5.0, timeout=3300.0, soft_fail=True, execution_timeout=timedelta(hours=1)
    )
    buffer_page(waiting.output)

with DAG(
    dag_id="report_promotions",
    description="Writes a page per agent whenever it serves another version",
    # one run waits at a time; the next counts from its start, and may see its promotion once more
    schedule=timedelta(minutes=1),
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    tags=["perennial", "report", "example"],
    doc_md=__doc__,
):

    @task
    def promotion_page(promoted: list[dict[str, str]]) -> str:
        """What serves now, instead of what, and the recent history."""
        from perennial.bridge.reports import write_promotion_page

        return write_promotion_page(promoted)

    changed = ModelPromotedSensor(
        task_id="model_promoted", since="{{ prev_start_date_success or '' }}", timeout=86_400.0, soft_fail=True,
        execution_timeout=timedelta(days=1),
    )  # fmt: skip
    promotion_page(changed.output)
