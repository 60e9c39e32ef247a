"""What parsing the DAG files costs and touches, seen from fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "numpy",
    "torch",
    "transformers",
    "mlflow",
    "spacy",
    "great_expectations",
    "presidio_analyzer",
    "sklearn",
    "model_signing",
)
EXPECTED = {
    "train_scout", "rollout_scout", "harvest", "nightly_retrain", "rollout_watch", "fleet_check", "report_buffers",
    "report_promotions", "retention", "alerts",
}  # fmt: skip

# socket.connect and the drivers' connect are what a DB call at parse would need
PROBE = """
import json, socket, sys, time
began = time.process_time()
from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, Param, TriggerRule, task  # noqa: what any DAG file imports
sdk = time.process_time() - began
from airflow.dag_processing.dagbag import DagBag
calls = []
def refuse(*args, **kwargs):
    calls.append(str(args[1:]))
    raise OSError("no network at parse")
socket.socket.connect = refuse
before = set(sys.modules)
began = time.process_time()
bag = DagBag(sys.argv[1])
spent = time.process_time() - began
print("RESULT " + json.dumps({
    "dags": sorted(bag.dags), "errors": bag.import_errors, "sdk": sdk, "spent": spent, "calls": calls,
    "heavy": [name for name in sys.argv[2].split(",") if name in sys.modules],
    "drivers": [name for name in ("psycopg", "psycopg_pool") if name in set(sys.modules) - before],
}))
"""


def probe(home: Path, fleet: Path = ROOT / "include" / "fleet") -> dict[str, Any]:
    environment = {
        **os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": str(ROOT / "include"),
        "PERENNIAL_FLEET_FOLDER": str(fleet), "PERENNIAL_HOME": str(home / "perennial"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(ROOT / "dags"), ",".join(HEAVY)], env=environment, cwd=home, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, done.stderr[-3000:]
    return dict(json.loads(line.removeprefix("RESULT ")))


@pytest.mark.req("D3")
def test_every_file_parses_light_and_alone(tmp_path: Path) -> None:
    found = probe(tmp_path)
    assert found["errors"] == {}
    assert set(found["dags"]) >= EXPECTED
    assert found["heavy"] == []
    assert found["drivers"] == []
    assert found["calls"] == []
    # processor seconds, so a busy machine does not decide; all files together cost less than one may
    assert found["spent"] < 0.5 + 0.1 * found["sdk"]


@pytest.mark.req("D3")
def test_a_broken_fleet_file_costs_its_own_agent_alone(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    scout = (ROOT / "include" / "fleet" / "scout.py").read_text()
    (fleet / "scout.py").write_text(scout)
    (fleet / "other.py").write_text(scout.replace('name="scout"', 'name="other"', 1))
    (fleet / "broken.py").write_text("AGENT = undefined_name\n")
    (fleet / "stops.py").write_text("raise SystemExit(3)\n")
    found = probe(tmp_path, fleet)
    assert found["errors"] == {}
    assert {"train_scout", "rollout_scout", "train_other", "rollout_other", "fleet_check"} <= set(found["dags"])


def test_an_empty_fleet_is_no_error(tmp_path: Path) -> None:
    found = probe(tmp_path, tmp_path / "nothing")
    assert found["errors"] == {}
    assert "fleet_check" in found["dags"]
    assert not any(name.startswith(("train_", "rollout_s")) for name in found["dags"])


def test_dag_files_only_wire() -> None:
    for file in sorted((ROOT / "dags").glob("*.py")):
        assert len(file.read_text().splitlines()) <= 60, file.name
