"""What a task's process is told by importing our DAG files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")], ids=["none", "own"]
)
def test_openmp_waits_without_spinning_unless_the_user_says_otherwise(given: dict[str, str], found: str) -> None:
    code = "import os, sys, perennial.bridge.policy; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    known = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**known, "PYTHONPATH": "include", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"{found} False"
