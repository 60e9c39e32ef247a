"""The launcher is `python -m` in everything but the collector."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.stack import launch
from perennial.stack.home import Home
from perennial.stack.parts import parts
from perennial.stack.ports import Ports
from perennial.stack.secrets import read_or_make

INCLUDE = Path(launch.__file__).resolve().parents[2]
SHOWN = """
import gc, json, sys
print(json.dumps([__name__, sys.argv, gc.get_threshold()[0], gc.isenabled(), sys.path[0]]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shown.py").write_text(SHOWN)
    (tmp_path / "ended.py").write_text("raise SystemExit(7)")
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], env=os.environ | {"PYTHONPATH": str(INCLUDE)}, cwd=folder, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_a_module_sees_what_it_sees_from_python_itself(folder: Path) -> None:
    plain = json.loads(run(folder, "shown", "one", "--two").stdout)
    launched = json.loads(run(folder, launch.LAUNCH, "shown", "one", "--two").stdout)
    assert launched == [*plain[:2], launch.YOUNG, True, plain[4]]
    assert plain[0] == "__main__"
    assert plain[1][1:] == ["one", "--two"]


def test_its_end_is_the_modules(folder: Path) -> None:
    assert run(folder, launch.LAUNCH, "ended").returncode == 7


def test_every_part_in_python_is_started_by_it(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    made = parts(home, Ports(postgres=1, airflow=2, mlflow=3, data_plane=4), read_or_make(home))
    in_python = [part.command for part in made.values() if part.command[0] == sys.executable]
    assert len(in_python) == len(made) - 1  # all but PostgreSQL
    assert {command[1:3] for command in in_python} == {("-m", launch.LAUNCH)}
