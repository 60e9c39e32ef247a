"""Who wins when a database is named in several places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perennial.errors import NotConfigured, StackError
from perennial.settings import load_settings

NAMES = (
    "PERENNIAL_DATABASE_URL",
    "DATABASE_URL",
    *(f"POSTGRES_{word}" for word in ("HOST", "PORT", "USER", "PASSWORD", "DB")),
)
GIVEN = "postgresql://app@db/perennial"


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NAMES:
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
