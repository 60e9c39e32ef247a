"""What a hundred agents must not multiply: counted, because times belong to the machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perennial.bridge import factory
from perennial.bridge.factory import fleet_dags, rollout_dag, train_dag
from perennial.bridge.policy import default_args
from perennial.fleet import Agent, Task, loader
from tests.dags.fleet import Nothing

FILE = """
from perennial.fleet import Agent, Task
from tests.dags.fleet import Nothing
AGENT = Agent(name="{name}", owner="me", tasks=(Task(name="tone"),), trainer=Nothing())
"""


def agent(name: str = "scout") -> Agent:
    return Agent(name=name, owner="newsroom", tasks=(Task(name="topic"),), trainer=Nothing())


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("scout", "big_scout", "analyst"):
        (tmp_path / f"{name}.py").write_text(FILE.format(name=name))
    (tmp_path / "odd_name.py").write_text(FILE.format(name="critic"))
    monkeypatch.setenv("PERENNIAL_FLEET_FOLDER", str(tmp_path))
    return tmp_path


def parse_for(monkeypatch: pytest.MonkeyPatch, dag_id: str | None) -> tuple[list[str], list[str]]:
    """The DAGs that a parse for one DAG builds, and the fleet files that it reads."""
    read: list[str] = []
    load_file = loader.load_file

    def counting(file: Path) -> Any:
        read.append(file.name)
        return load_file(file)

    monkeypatch.setattr(loader, "load_file", counting)
    monkeypatch.setattr(factory, "get_parsing_context", lambda: SimpleNamespace(dag_id=dag_id))
    return sorted(fleet_dags(train_dag)), read


@pytest.mark.req("D3")
def test_a_tasks_process_builds_its_own_dag_and_reads_its_own_file(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse_for(monkeypatch, "train_scout") == (["train_scout"], ["scout.py"])


def test_a_name_within_a_name_is_another_agent(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_for(monkeypatch, "train_big_scout") == (["train_big_scout"], ["big_scout.py"])


def test_a_file_of_another_name_is_found_by_reading_all(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, read = parse_for(monkeypatch, "train_critic")
    assert built == ["train_critic"]
    assert set(read) == {"analyst.py", "big_scout.py", "odd_name.py", "scout.py"}


def test_an_agent_that_is_gone_builds_nothing(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_for(monkeypatch, "train_gone")[0] == []


def test_a_parse_of_all_agents_reads_the_settings_once(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    load_settings = factory.load_settings

    def counting() -> Any:
        read.append(1)
        return load_settings()

    monkeypatch.setattr(factory, "load_settings", counting)
    assert len(fleet_dags(train_dag)) == len(fleet_dags(rollout_dag)) == 4
    assert len(read) == 2  # once per DAG file


@pytest.mark.req("D11")
@pytest.mark.parametrize("build", [train_dag, rollout_dag], ids=["train", "rollout"])
def test_a_form_is_stored_once_and_not_with_every_task(build: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    dag = build(agent())
    assert set(dag.params) >= {"reason"}
    assert [task.task_id for task in dag.tasks if dict(getattr(task, "params", {}))] == []
    text = json.dumps(DagSerialization.to_dict(dag))
    assert text.count(dag.params.get_param("reason").description) == 1


@pytest.mark.req("D11")
def test_a_task_still_sees_the_form_of_its_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.definitions.param import process_params
    from airflow.sdk.exceptions import ParamValidationError

    dag = train_dag(agent())
    claim = dag.get_task("claim")
    seen = process_params(dag, claim, {"force": True}, suppress_exception=False)
    assert (seen["force"], seen["mode"], set(seen)) == (True, "auto", set(dag.params))
    with pytest.raises(ParamValidationError):
        process_params(dag, claim, {"mode": "deep"}, suppress_exception=False)


def test_tasks_share_one_retry_policy() -> None:
    dag = train_dag(agent())
    shared = default_args()["retry_policy"]
    assert {id(task.retry_policy) for task in dag.tasks} == {id(shared)}
