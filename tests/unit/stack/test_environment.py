"""What a part of the embedded stack is told, whatever the shell that ran `perennial up` exports."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from perennial.settings import load_settings
from perennial.stack.control import write_connections
from perennial.stack.environment import for_perennial, for_scheduler
from perennial.stack.home import Home, project_folder
from perennial.stack.parts import parts
from perennial.stack.ports import Ports
from perennial.stack.secrets import read_or_make

SHOP = {
    "DATABASE_URL": "postgresql://me@elsewhere/shop",
    "POSTGRES_HOST": "elsewhere", "POSTGRES_DB": "shop", "POSTGRES_PASSWORD": "of-the-shop",
    "PERENNIAL_DATABASE_URL": "postgresql://app@elsewhere/other",
    "PERENNIAL_ADMIT_DATABASE_URL": "postgresql://admit@elsewhere/other",
    "PERENNIAL_OWNER_DATABASE_URL": "postgresql://owner@elsewhere/other",
    "PERENNIAL_PASSWORD_PERENNIAL_APP": "of-another-deployment",
}  # fmt: skip


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    for name, value in {**SHOP, "AIRFLOW_CONN_SHOP": "postgres://me@elsewhere/shop", "MY_WORD": "x"}.items():
        monkeypatch.setenv(name, value)
    place = Home(root=tmp_path / "home")
    place.make()
    return place


def test_no_part_hears_of_another_database(home: Home) -> None:
    found = parts(home, Ports(), read_or_make(home))
    for name in sorted(set(found) - {"postgres", "pools"}):
        told = found[name].environment
        assert sorted(set(SHOP) & set(told)) == [], name
        assert (told["AIRFLOW_CONN_SHOP"], told["MY_WORD"]) == ("postgres://me@elsewhere/shop", "x"), name


def test_every_part_has_the_fleet_of_the_file_unless_the_shell_names_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERENNIAL_FLEET_FOLDER", raising=False)
    monkeypatch.setenv("PERENNIAL_HOME", str(home.root))
    secrets = read_or_make(home)
    assert for_perennial(home, Ports())["PERENNIAL_FLEET_FOLDER"] == str(project_folder() / "include" / "fleet")
    home.settings_file.write_text(json.dumps({"fleet_folder": "/srv/fleet"}))
    write_connections(home, Ports(), secrets)
    assert for_perennial(home, Ports())["PERENNIAL_FLEET_FOLDER"] == "/srv/fleet"
    assert for_scheduler(home, Ports(), secrets)["PERENNIAL_FLEET_FOLDER"] == "/srv/fleet"
    assert json.loads(home.connections_file.read_text())["fleet_folder"] == "/srv/fleet"
    assert load_settings().fleet_folder == Path("/srv/fleet")
    monkeypatch.setenv("PERENNIAL_FLEET_FOLDER", "/srv/other")
    assert for_perennial(home, Ports())["PERENNIAL_FLEET_FOLDER"] == "/srv/other"


def test_the_server_is_our_own_so_all_its_roles_are_made(home: Home) -> None:
    assert parts(home, Ports(), read_or_make(home))["databases"].command[-1] == "all-databases"


def test_airflow_settings_may_name_any_variable_of_the_shell(home: Home) -> None:
    told = parts(home, Ports(), read_or_make(home))["pools"].environment
    assert {name: told.get(name) for name in SHOP} == SHOP
    assert told["PERENNIAL_HOME"] == str(home.root)


@pytest.mark.parametrize("name", ["databases", "data-plane", "airflow-api", "scheduler", "triggerer"])
def test_a_part_finds_the_database_of_the_stack(home: Home, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = read_or_make(home)
    write_connections(home, Ports(), secrets)
    told = parts(home, Ports(), secrets)[name].environment
    for known in set(os.environ) - set(told):
        monkeypatch.delenv(known)
    for known, value in told.items():
        monkeypatch.setenv(known, value)
    settings = load_settings()
    place = f"@127.0.0.1:{Ports().postgres}/perennial"
    assert settings.app_url() == f"postgresql://perennial_app:{secrets.perennial_app}{place}"
    assert settings.admit_url() == f"postgresql://perennial_admit:{secrets.perennial_admit}{place}"
    assert settings.owner_url() == f"postgresql://perennial_owner:{secrets.perennial_owner}{place}"
