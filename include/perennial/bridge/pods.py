"""The pod of a training under the KubernetesExecutor."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from perennial.errors import NotConfigured


@lru_cache(maxsize=4)
def pod_override(file: Path) -> Any:
    """A pod (``V1Pod``) for ``executor_config``, which the executor merges over the pod of every task (Airflow's documentation,
    "pod_override"). Read once per process, in the DAG processor.

    NotConfigured when the file is missing, is no pod, or Airflow's provider for Kubernetes is not installed.
    """
    if not file.is_file():
        raise NotConfigured("PERENNIAL_TRAIN_POD_OVERRIDE", f"there is no file {file}")
    try:
        from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    except ModuleNotFoundError as error:
        raise NotConfigured(
            "apache-airflow-providers-cncf-kubernetes",
            "PERENNIAL_TRAIN_POD_OVERRIDE needs it: pip install 'perennial[kubernetes]'",
        ) from error
    pod = PodGenerator.deserialize_model_file(str(file))
    if pod.kind != "Pod" or pod.spec is None:
        raise NotConfigured("PERENNIAL_TRAIN_POD_OVERRIDE", f"{file} holds no pod with a spec")
    return pod
