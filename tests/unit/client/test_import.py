"""What an agent pays for the import, and the rules that need no store."""

from __future__ import annotations

import subprocess
import sys

import pytest

from perennial.client.limits import DefaultInt, limits_of
from perennial.client.shared import forget_coordinator, get_online_training_status, get_training_coordinator

HEAVY = (
    "airflow", "torch", "pydantic", "psycopg", "psycopg_pool", "numpy", "pandas", "mlflow", "transformers", "spacy", "sklearn",
    "perennial.settings", "perennial.ingest.buffer",
)  # fmt: skip


@pytest.mark.req("J113")
def test_the_import_is_cheap_and_loads_no_driver() -> None:
    code = (
        "import sys, time; began = time.process_time(); import perennial.client; spent = time.process_time() - began;"
        f"print(spent, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert {run.stdout.split(" ", 1)[1].strip() for run in runs} == {"[]"}
    assert min(float(run.stdout.split()[0]) for run in runs) < 0.15


def test_nothing_is_connected_before_it_is_needed() -> None:
    forget_coordinator()
    assert get_training_coordinator() is None
    assert get_online_training_status() == {"status": "not_initialized"}


def test_a_value_given_on_purpose_is_told_from_the_same_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRAINING_UPDATE_THRESHOLD", raising=False)
    assert limits_of({"update_threshold": DefaultInt(50)}).explicit == {}
    assert limits_of({"update_threshold": 50}).explicit == {"update_threshold": 50}
    monkeypatch.setenv("TRAINING_UPDATE_THRESHOLD", "x")
    with pytest.raises(ValueError, match="TRAINING_UPDATE_THRESHOLD"):
        limits_of({"update_threshold": DefaultInt(50)})
    assert limits_of({"update_threshold": 7}).environment == {}
