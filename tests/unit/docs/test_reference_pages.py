"""The committed pages say what the code says."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from perennial.fleet.agent import Agent
from perennial.settings import Settings
from perennial.trainers.catalogue import catalogue
from tests.reference_pages import DOCS, comments, pages, trainers_page
from tests.reference_settings import variable

ROOT = Path(__file__).resolve().parents[3]
INSIDE = {
    "PERENNIAL_BEFORE",  # the supervisor tells a part's shell
    "PERENNIAL_DB",  # the end of AIRFLOW_CONN_PERENNIAL_DB
    "PERENNIAL_ADMIT_DB",
    "PERENNIAL_RETENTION_",  # the beginning of several
}


@pytest.mark.parametrize("name", ["reference-agent.md", "reference-trainers.md", "reference-settings.md"])
def test_the_committed_page_is_what_the_code_says(name: str) -> None:
    (path, text) = next((path, text) for path, text in pages().items() if path.name == name)
    assert path.read_text(encoding="utf-8") == text, "run `python -m tests.reference_pages`"


def test_every_setting_of_every_trainer_is_there_with_its_meaning() -> None:
    page = trainers_page()
    for kind in catalogue().values():
        assert is_dataclass(kind)
        for item in fields(kind):
            assert f"| `{item.name}` |" in page
    assert comments(Agent)["update_threshold"] == "rows that make it due; None: the deployment's setting (50)"


def test_every_setting_is_there_with_its_meaning() -> None:
    page, told = pages()[DOCS / "reference-settings.md"], comments(Settings)
    for name, field in Settings.model_fields.items():
        assert f"| `{variable(name, field)}` |" in page
        assert told.get(name), f"say beside Settings.{name} what it means"


def test_every_variable_that_the_code_names_is_on_the_page() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for place in ("include/perennial", "dags", "plugins")
        for path in (ROOT / place).rglob("*.py")
    )
    named = set(re.findall(r"PERENNIAL_[A-Z_]+", code)) | set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", code))
    ours = {name for name in named if name.startswith(("PERENNIAL_", "DB_", "POSTGRES_", "DATABASE_"))}
    page = pages()[DOCS / "reference-settings.md"]
    assert [name for name in sorted(ours - INSIDE) if f"`{name}" not in page] == []


def test_every_setting_is_read_by_something() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "include" / "perennial").rglob("*.py")
        if path.name != "settings.py"
    )
    read = r"(?:settings|chosen|load_settings\(\))\.{name}\b|getattr\((?:ports\.)?settings, f?\"|\"{name}\""
    inside = {"database_url", "admit_database_url", "owner_database_url"}  # by app_url() and its sisters
    assert [
        name
        for name in Settings.model_fields
        if name not in inside and not re.search(read.replace("{name}", name), code)
    ] == []
