"""The imports that the parent of all tasks makes."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from perennial.bridge import warm

BROKEN = {
    "broken_import": "import there_is_no_such_module\n",
    "broken_exit": "raise SystemExit(1)\n",
    "broken_error": "raise RuntimeError('at import')\n",
}


def test_a_broken_library_is_logged_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in BROKEN.items():
        (tmp_path / f"{name}.py").write_text(text)
    with caplog.at_level(logging.WARNING):
        seconds = warm.preload(("json", *BROKEN, "decimal", "there_is_none"))
    assert set(seconds) == {"json", "decimal"}
    assert all(name in caplog.text for name in (*BROKEN, "there_is_none"))


def test_off_where_tasks_are_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none=False: "spawn")
    assert warm.preload(("json",)) == {}


def test_the_parent_keeps_one_thread_in_openblas() -> None:
    code = (
        "import os; os.environ.pop('OPENBLAS_NUM_THREADS', None)\n"
        "from perennial.bridge.warm import preload\n"
        "seconds = preload(('numpy',))\n"
        "print(os.environ['OPENBLAS_NUM_THREADS'], len(os.listdir('/proc/self/task')), sorted(seconds))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.split() == ["1", "1", "['numpy']"]


def _environment() -> dict[str, str]:
    import os

    root = Path(__file__).resolve().parents[3]
    return {**os.environ, "PYTHONPATH": str(root / "include")}
