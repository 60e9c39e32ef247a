"""An agent's DAGs take the place of none that Perennial ships: Airflow keeps one DAG per id."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perennial.domain.names import name_problem
from perennial.errors import FleetError
from perennial.fleet.agent import Agent, Task
from perennial.fleet.check import check_file
from perennial.fleet.writing import write_fleet_file
from perennial.trainers.ewc_text import EwcText

DAGS = Path(__file__).parents[3] / "dags"
SHIPPED = {found for file in DAGS.glob("*.py") for found in re.findall(r'dag_id="(\w+)"', file.read_text("utf-8"))}
FILE = """from perennial.fleet import Agent, Task
from perennial.trainers.ewc_text import EwcText
AGENT = Agent(name="watch", owner="me", tasks=(Task(name="tone"),), trainer=EwcText())
"""


def _agent(name: str) -> Agent:
    return Agent(name=name, owner="me", tasks=(Task(name="watch"),), trainer=EwcText())  # a task may be called so


def test_an_agent_cannot_take_the_dag_that_watches_all_rollouts() -> None:
    with pytest.raises(ValueError, match="takes the place of the DAG rollout_watch; choose another name"):
        _agent("watch")
    assert name_problem("watch") is None


def test_every_shipped_dag_is_out_of_reach_of_every_agent() -> None:
    assert {"rollout_watch", "harvest", "fleet_check"} <= SHIPPED
    names = {dag.removeprefix(kind) for dag in SHIPPED for kind in ("train_", "rollout_") if dag.startswith(kind)}
    assert names
    for name in names:
        with pytest.raises(ValueError, match="takes the place of the DAG"):
            _agent(name)
    for name in ("check", "buffers", "watcher", "harvest"):  # what is free stays free
        assert not {f"train_{name}", f"rollout_{name}"} & SHIPPED
        assert _agent(name).name == name


def test_a_file_that_declares_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(FILE)
    (error,) = check_file(tmp_path / "watch.py")
    assert "takes the place of the DAG rollout_watch; choose another name" in error.message
    with pytest.raises(FleetError, match="rollout_watch"):
        write_fleet_file(tmp_path / "fleet", "watch", FILE)
