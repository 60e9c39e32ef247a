"""Who wins when a setting is named in several places, and which names count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perennial.errors import NotConfigured, StackError
from perennial.settings import Settings, load_settings

NAMES = (
    "PERENNIAL_DATABASE_URL",
    "DATABASE_URL",
    *(f"POSTGRES_{word}" for word in ("HOST", "PORT", "USER", "PASSWORD", "DB")),
)
THRESHOLDS = {"update_threshold": 7, "max_buffer_size": 8, "performance_window": 9, "rollback_threshold": 0.25}
GIVEN = "postgresql://app@db/perennial"


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*NAMES, *(f"TRAINING_{word.upper()}" for word in THRESHOLDS), "PERENNIAL_LOG_LEVEL", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path))


@pytest.mark.parametrize("name", ["PERENNIAL_DATABASE_URL", "DATABASE_URL", "POSTGRES_HOST"])
def test_the_constructor_beats_every_name_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "shop" if name == "POSTGRES_HOST" else "postgresql://me@elsewhere/shop")
    assert load_settings(database_url=GIVEN).app_url() == GIVEN


def test_our_own_name_beats_the_common_ones_and_each_beats_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(NotConfigured, match="PERENNIAL_DATABASE_URL"):
        load_settings().app_url()
    (tmp_path / "connections.json").write_text(json.dumps({"database_url": "postgresql://home/p"}))
    assert load_settings().app_url() == "postgresql://home/p"
    monkeypatch.setenv("POSTGRES_HOST", "parts")
    monkeypatch.setenv("POSTGRES_PASSWORD", "a/b")
    assert load_settings().app_url() == "postgresql://postgres:a%2Fb@parts:5432/perennial"
    monkeypatch.setenv("DATABASE_URL", "postgresql://common/p")
    assert load_settings().app_url() == "postgresql://common/p"
    monkeypatch.setenv("PERENNIAL_DATABASE_URL", "")  # a container's variable that nobody filled in
    assert load_settings().app_url() == "postgresql://common/p"
    monkeypatch.setenv("PERENNIAL_DATABASE_URL", "postgresql://ours/p")
    assert load_settings().app_url() == "postgresql://ours/p"
    assert "ours/p" not in repr(load_settings())  # it may hold a password


@pytest.mark.parametrize("content", [b'{\n"log_level": secret', b"[1]", b'"\xff"'])
def test_a_damaged_file_is_named_and_nothing_of_it_is_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(StackError, match=r"settings\.json .*move it away") as refused:
        load_settings()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_of_another_program_is_not_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for foreign in (name, name.upper()):
        monkeypatch.setenv(foreign, "0.9" if name == "rollback_threshold" else "3")
    assert getattr(load_settings(), name) == Settings.model_fields[name].default


@pytest.mark.parametrize(("name", "value"), THRESHOLDS.items())
def test_a_threshold_is_the_constructors_then_the_environments_then_the_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: float
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({name: value}))
    assert getattr(load_settings(), name) == value
    monkeypatch.setenv(f"TRAINING_{name.upper()}", str(value * 2))
    assert getattr(load_settings(), name) == value * 2
    assert getattr(load_settings(**{name: value * 3}), name) == value * 3


def test_the_log_level_too_has_one_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"log_level": "ERROR"}')
    assert load_settings().log_level == "ERROR"
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    assert load_settings().log_level == "WARNING"
    monkeypatch.setenv("PERENNIAL_LOG_LEVEL", "DEBUG")
    assert load_settings().log_level == "DEBUG"
    assert load_settings(log_level="INFO").log_level == "INFO"
