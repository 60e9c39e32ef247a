"""What the data plane makes of a log level when it starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from perennial.api import data_plane
from perennial.settings import Settings


@pytest.mark.parametrize(
    ("wanted", "level", "words"),
    [("debug", logging.DEBUG, ""), (" Warning ", logging.WARNING, ""), ("trace", logging.INFO, "'trace'"), ("5", logging.INFO, "'5'")],
)  # fmt: skip
def test_a_log_level_of_another_program_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, wanted: str, level: int, words: str
) -> None:  # fmt: skip
    configured: dict[str, Any] = {}
    ran: list[Settings] = []
    monkeypatch.delenv("PERENNIAL_LOG_LEVEL", raising=False)
    monkeypatch.setenv("LOG_LEVEL", wanted)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    logging.addLevelName(5, "TRACE")  # as uvicorn does
    monkeypatch.setattr(logging, "basicConfig", lambda **given: configured.update(given))
    monkeypatch.setattr(data_plane, "run", ran.append)
    data_plane.main()
    assert len(ran) == 1
    assert configured["level"] == level
    assert words in caplog.text
    assert bool(caplog.text) == bool(words)
    assert not words or "DEBUG, INFO, WARNING, ERROR or CRITICAL" in caplog.text


def test_a_damaged_settings_file_ends_in_its_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(SystemExit, match=r"settings\.json is damaged"):
        data_plane.main()
