"""The pools that the generated DAGs use. Where they are missing ``missing_pools`` makes them; ``airflow_settings.yaml`` sizes them."""

from __future__ import annotations

from dataclasses import dataclass

GPU = "gpu"
CPU = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """One Airflow pool. A slot is a promise not to start more, not a device."""

    name: str
    slots: int
    description: str


POOLS = (
    Pool(name=GPU, slots=2, description="Trainings. One slot per device; two on a machine without one"),
    Pool(name=CPU, slots=4, description="Checks, evaluations and shadow replays"),
)
