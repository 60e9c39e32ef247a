"""deploy/kubernetes: the values for Airflow's chart and the pod of a training name only what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.bridge.pods import pod_override
from perennial.errors import NotConfigured
from perennial.settings import Settings

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
POD: dict[str, Any] = yaml.safe_load((FOLDER / "gpu-pod.yaml").read_text())


def test_variables_are_settings_and_secrets_come_from_secrets() -> None:
    given = [*VALUES["env"], *VALUES["workers"]["env"]]
    names = {one["name"] for one in given} | {one["envName"] for one in VALUES["secret"]}
    ours = {name.removeprefix("PERENNIAL_").lower() for name in names if name.startswith("PERENNIAL_")}
    assert ours - set(Settings.model_fields) == {"redaction_key"}  # guard/keys.py reads it
    assert {one for one in names if not one.startswith("PERENNIAL_")} == {
        "AIRFLOW_CONN_PERENNIAL_DB", "AIRFLOW_CONN_PERENNIAL_ADMIT_DB",
    }  # fmt: skip
    plain = [one["name"] for one in given if "value" in one]
    assert [name for name in plain if re.search("PASSWORD|SECRET|TOKEN|CONN", name)] == []


def test_options_of_airflow_exist() -> None:
    from airflow.configuration import conf

    known = conf.configuration_description
    for section, options in VALUES["config"].items():
        if section == "kubernetes_executor":  # its provider is in the containers' lock alone
            continue
        assert set(options) <= set(known[section]["options"]), section


def test_the_pod_of_a_training_asks_for_one_device_and_is_where_the_values_look() -> None:
    (container,) = POD["spec"]["containers"]
    assert container["name"] == "base"  # the executor merges by this name
    resources = container["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == 1
    place = {one["name"]: one.get("value") for one in VALUES["env"]}["PERENNIAL_TRAIN_POD_OVERRIDE"]
    assert place == "/opt/perennial/deploy/kubernetes/gpu-pod.yaml"
    assert "COPY deploy ./deploy" in (FOLDER.parents[1] / "Dockerfile").read_text()


def test_the_executor_reads_the_pod() -> None:
    pytest.importorskip(
        "kubernetes", reason="apache-airflow-providers-cncf-kubernetes is in the containers' lock alone"
    )
    pod = pod_override(FOLDER / "gpu-pod.yaml")
    assert pod.spec.containers[0].resources.limits["nvidia.com/gpu"] == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="PERENNIAL_TRAIN_POD_OVERRIDE"):
        pod_override(tmp_path / "none.yaml")
