"""What each generated DAG is made of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perennial.bridge.factory import CRITICAL_WEIGHT, rollout_dag, train_dag
from perennial.bridge.operators import FAST_LANES, ApproveOperator, CanaryOperator
from perennial.bridge.pools import POOLS
from perennial.fleet import Agent, Rollout, Task
from tests.dags.fleet import Nothing

TRAIN_ORDER = [
    "admit",
    "claim",
    "validate",
    "redact",
    "select",
    "train",
    "evaluate",
    "gate",
    "approve",
    "register",
    "settle",
]


def agent(**changes: Any) -> Agent:
    return Agent(
        **{"name": "scout", "owner": "newsroom", "tasks": (Task(name="topic"),), "trainer": Nothing(), **changes}
    )


@pytest.fixture(scope="module")
def train() -> Any:
    return train_dag(agent(pool="cpu", tags=("news",)))


@pytest.mark.req("D7", "J74")
def test_train_has_the_tasks_in_order_and_one_run_at_a_time(train: Any) -> None:
    order = [task.task_id for task in train.topological_sort()]
    assert [name for name in order if name not in {"train_critical", *FAST_LANES}] == TRAIN_ORDER
    assert train.get_task("claim").downstream_task_ids == {"validate", "redact", "settle", *FAST_LANES}
    assert train.get_task("select").upstream_task_ids == {"validate", "redact"}
    assert train.max_active_runs == 1
    assert train.catchup is False
    assert train.is_paused_upon_creation is False
    assert {"perennial", "train", "agent:scout", "news"} <= set(train.tags)
    assert "scout" in train.doc_md
    (asset,) = train.timetable.asset_condition.objects
    assert asset.uri == "perennial://due/scout"
    assert [watcher.trigger.serialize() for watcher in asset.watchers] == [
        ("perennial.bridge.triggers.DueTrigger", {"agent": "scout"})
    ]


@pytest.mark.req("J34", "D8")
def test_a_critical_training_weighs_more_in_the_same_pool(train: Any) -> None:
    usual, critical = train.get_task("train"), train.get_task("train_critical")
    assert (usual.pool, critical.pool) == ("cpu", "cpu")
    assert (usual.priority_weight, critical.priority_weight) == (1, CRITICAL_WEIGHT)
    urgent, most_urgent = (train.get_task(name) for name in FAST_LANES)
    assert (urgent.pool, most_urgent.pool) == ("cpu", "cpu")
    assert usual.priority_weight < urgent.priority_weight < most_urgent.priority_weight
    for lane in (urgent, most_urgent):
        assert lane.downstream_task_ids == train.get_task("gate").downstream_task_ids == {"approve", "register"}
    assert {str(task.weight_rule) for task in train.tasks} == {"absolute"}


@pytest.mark.req("D10", "D11")
def test_every_task_ends_by_itself_and_tries_again_within_seconds(train: Any) -> None:
    for task in [*train.tasks, *rollout_dag(agent()).tasks]:
        assert task.execution_timeout is not None, task.task_id
        assert task.retry_delay <= timedelta(seconds=5), task.task_id
        assert task.retry_policy is not None, task.task_id
    approve = train.get_task("approve")
    assert isinstance(approve, ApproveOperator)
    assert approve.response_timeout == timedelta(hours=24)
    assert approve.defaults == ["Reject"]


def test_settle_always_runs_and_never_hides_a_failure(train: Any) -> None:
    settle = train.get_task("settle")
    assert settle.is_teardown
    assert not settle.on_failure_fail_dagrun
    assert train.get_task("claim").is_setup
    assert [outlet.uri for outlet in train.get_task("register").outlets] == ["perennial://candidate/scout"]


@pytest.mark.req("D6", "D11")
def test_the_form_refuses_what_no_training_understands(train: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    assert set(train.params) == {"mode", "reason", "why", "job_id", "force", "overrides"}
    for name, value in {"mode": "deep", "reason": "mood", "job_id": "x", "force": "yes", "overrides": []}.items():
        with pytest.raises(ParamValidationError):
            train.params.get_param(name).resolve(value)
    assert train.params.get_param("job_id").resolve(None, suppress_exception=False) is None


@pytest.mark.req("K67", "D7")
@pytest.mark.parametrize(("steps", "canaries"), [((0.05, 0.25, 0.5, 1.0), 3), ((0.1, 1.0), 1), ((1.0,), 0)])
def test_rollout_has_one_task_per_share_below_everything(steps: tuple[float, ...], canaries: int) -> None:
    dag = rollout_dag(agent(rollout=Rollout(steps=steps)))
    order = [task.task_id for task in dag.topological_sort()]
    assert order == ["verify", "shadow", *(f"canary_{i + 1}" for i in range(canaries)), "full", "revert"]
    assert [task.index for task in dag.tasks if isinstance(task, CanaryOperator)] == list(range(canaries))
    assert dag.get_task("revert").is_teardown
    assert dag.max_active_runs > 1  # a newer candidate must be able to supersede


def test_pools_are_the_two_of_the_design_with_the_sizes_of_the_shipped_file() -> None:
    from pathlib import Path

    from perennial.stack.pools import wanted_pools

    assert {pool.name: pool.slots for pool in POOLS} == {"gpu": 2, "cpu": 4}
    file = Path(__file__).resolve().parents[2] / "airflow_settings.yaml"
    assert {pool.name: pool.slots for pool in POOLS} == {pool["name"]: pool["slots"] for pool in wanted_pools(file)}


@pytest.mark.req("D8")
def test_trainings_go_to_the_queue_that_agent_or_deployment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def queues(dag: Any) -> dict[str, str]:
        return {
            name: dag.get_task(name).partial_kwargs.get("queue", "default") for name in ("train", "train_critical")
        } | {name: dag.get_task(name).queue for name in (*FAST_LANES, "evaluate", "register")}

    training = {"train", "train_critical", *FAST_LANES}
    assert set(queues(train_dag(agent())).values()) == {"default"}
    monkeypatch.setenv("PERENNIAL_TRAIN_QUEUE", "gpu")
    assert {name for name, queue in queues(train_dag(agent())).items() if queue == "gpu"} == training
    own = queues(train_dag(agent(queue="big")))
    assert {name for name, queue in own.items() if queue == "big"} == training
    assert {own["evaluate"], own["register"]} == {"default"}


@pytest.mark.req("K81", "D11")
def test_retention_takes_the_versions_first_and_tells_in_every_case() -> None:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import TriggerRule
    from airflow.sdk.exceptions import ParamValidationError

    from perennial.flows.retention import Part

    bag = DagBag(str(Path(__file__).resolve().parents[2] / "dags" / "retention.py"))
    dag = bag.dags["retention"]
    assert dag.max_active_runs == 1
    assert dag.get_task("versions").downstream_task_ids == {"clean", "tell"}
    assert {*dag.get_task("clean").op_kwargs_expand_input.value["part"], "versions"} == {part.value for part in Part}
    for name in ("clean", "tell"):
        assert dag.get_task(name).trigger_rule == TriggerRule.ALL_DONE
    assert all(task.execution_timeout is not None for task in dag.tasks)
    with pytest.raises(ParamValidationError):
        dag.params.get_param("dry_run").resolve("perhaps")
    assert "dry_run" in dag.doc_md
