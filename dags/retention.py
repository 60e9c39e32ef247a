"""Removes what is old once a day; records of decisions stay for ever (airflow DAG ``retention``).

| task | what goes, by age in `PERENNIAL_RETENTION_*` |
|---|---|
| versions | files of versions beyond the newest, wherever they lie; what serves, bakes, is held or is a base stays |
| clean | runs of refused candidates, encoders that no version names, leftovers on disk, logs, old rows and texts, runs of our DAGs |
| tell | the run's note: what went, what stays, what could not be done here |

**Trigger** it with `dry_run` to see what would go; names are in the tasks' logs. `perennial retention hold` keeps a version.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, TriggerRule, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from perennial.bridge.hooks import task_ports
from perennial.bridge.notes import note_run
from perennial.bridge.policy import default_args
from perennial.bridge.pools import CPU

with DAG(
    dag_id="retention",
    description="Removes old versions' files, rows, leftovers and runs; champions, the last N and held versions stay",
    schedule="30 3 * * *",
    max_active_runs=1,
    catchup=False,
    is_paused_upon_creation=False,
    default_args=default_args(),
    params={"dry_run": Param(False, type="boolean", description="Only say what would go")},
    tags=["perennial", "upkeep"],
    doc_md=__doc__,
):

    @task(multiple_outputs=False, pool=CPU, execution_timeout=timedelta(hours=1))
    def clean(part: str) -> dict[str, object]:
        """One part of the pass; a repeat goes on where a killed one stopped."""
        from perennial.flows import retention

        dry_run = bool(get_current_context()["params"]["dry_run"])
        outcome = retention.run_part(task_ports(admit=True), part, dry_run=dry_run)
        print(*outcome.names, sep="\n")
        return outcome.counts()

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def tell(first: dict[str, object] | None, rest: list[dict[str, object]] | None) -> None:
        """What went and what stays, as the run's note; fails when a part did."""
        from perennial.flows import retention

        done = [one for one in (first, *(rest or ())) if one]
        note_run(get_current_context(), retention.told(done))
        if len(done) < len(retention.Part):
            raise AirflowFailException("a part failed: see its log, then clear it; a repeat takes up what is left")

    versions = clean.override(task_id="versions")("versions")
    others = clean.override(map_index_template="{{ task.op_kwargs['part'] }}", trigger_rule=TriggerRule.ALL_DONE)
    versions >> (rest := others.expand(part=["refused", "bases", "files", "rows", "airflow"]))
    tell(versions, rest)
