"""The command line: found by walking, fast, and free of tracebacks for errors of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def run(code: str, *words: str, home: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [path, str(REPOSITORY / "include")])),
        "PERENNIAL_HOME": str(home),
    }
    return subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=False
    )


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
sys.argv = ["perennial", "--help"]
from perennial.cli import main
try:
    main()
except SystemExit as done:
    assert done.code == 0, done.code
heavy = {"airflow", "torch", "mlflow", "transformers", "pandas", "sklearn", "great_expectations", "psycopg", "pydantic"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
    done = run(code, home=tmp_path)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr
    for command in ("up", "down", "status", "doctor"):
        assert f" {command} " in done.stdout


def test_an_error_of_ours_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    done = run("from perennial.cli import main; main()", "status", home=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("StackError: ")
    assert "move it away" in done.stderr


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    code = (
        "import perennial.stack.status as s; s.read_state = lambda home: 1 / 0; from perennial.cli import main; main()"
    )
    done = run(code, "status", home=tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_status_and_down_of_a_home_that_never_was(tmp_path: Path) -> None:
    home = tmp_path / "none"
    done = run("from perennial.cli import main; main()", "status", "--json", home=home)
    assert done.returncode == 1
    assert '"phase": "stopped"' in done.stdout
    done = run("from perennial.cli import main; main()", "down", home=home)
    assert done.returncode == 0
    assert not home.exists()


@pytest.mark.parametrize("broken", [False, True])
def test_warm_settings_keep_the_users_own_and_survive_a_broken_import(tmp_path: Path, broken: bool) -> None:
    own = tmp_path / "config"
    own.mkdir()
    (own / "airflow_local_settings.py").write_text("ANSWER = 42\n_hidden = 1\ndef task_policy(task): return 'policy'\n")
    fake = tmp_path / "fake"
    fake.mkdir()
    body = "raise ImportError('torch is broken')" if broken else "print('preloaded')"
    code = f"""
import logging, sys, types
logging.basicConfig(level=logging.INFO)
warm = types.ModuleType("perennial.bridge.warm")
def preload():
    {body}
warm.preload = preload
sys.modules["perennial.bridge"] = types.ModuleType("perennial.bridge")
sys.modules["perennial.bridge.warm"] = warm
sys.path.append({str(own)!r})
import airflow_local_settings as ours
print(ours.ANSWER, ours.task_policy(None), sorted(ours.__all__))
"""
    done = run(code, home=tmp_path, path=str(REPOSITORY / "include" / "perennial" / "stack" / "warm"))
    assert "42 policy ['ANSWER', 'task_policy']" in done.stdout, done.stderr
    assert ("preloaded" in done.stdout) is not broken
    assert ("not warm" in done.stderr) is broken
