"""Taking a deployment away: shown first, done with --yes, refused in the middle of a rollout, repeatable after a kill."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from perennial.cli import build
from perennial.errors import StackError
from perennial.settings import Settings
from perennial.stack import uninstall as flow
from perennial.stack.home import Home
from tests.postgres_fixture import Database

pytestmark = pytest.mark.req("J110")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(root=tmp_path / "home")
    made.make()
    monkeypatch.setenv("PERENNIAL_HOME", str(made.root))  # else the settings of a stack in this checkout would count
    (made.root / "settings.json").write_text("{}")
    (made.keys / "signing.pem").write_text("key")
    return made


def _settings(place: Home, database: Database) -> Settings:
    return Settings(home=place.root, database_url=SecretStr(database.app), owner_database_url=SecretStr(database.owner))


def _schema(database: Database) -> bool:
    with psycopg.connect(database.superuser) as connection:
        row = connection.execute("SELECT to_regnamespace('perennial') IS NOT NULL").fetchone()
    assert row is not None
    return bool(row[0])


def test_it_shows_first_and_removes_schema_and_home_with_yes_as_often_as_asked(
    place: Home, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("HOME", place.root), ("DATABASE_URL", database.app), ("OWNER_DATABASE_URL", database.owner)):
        monkeypatch.setenv(f"PERENNIAL_{name}", str(value))
    run = CliRunner()
    shown = run.invoke(build(), ["uninstall"])
    assert shown.exit_code == 0, shown.output
    assert "would remove" in shown.output
    assert "nothing was changed" in shown.output
    assert not any(
        database.owner.split(":")[2].split("@")[0] in line for line in shown.output.splitlines()
    )  # no password
    assert _schema(database)
    assert place.root.is_dir()
    for _ in range(2):
        done = run.invoke(build(), ["uninstall", "--yes"])
        assert (done.exit_code, _schema(database), place.root.exists()) == (0, False, False), done.output
        assert "stays" in done.output
        assert "pip uninstall perennial" in done.output


def test_it_refuses_in_a_rollout_unless_forced_and_goes_on_after_a_kill(
    place: Home, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(database.app) as connection:
        connection.execute(
            "INSERT INTO perennial.rollouts (agent, version, plan, state, run_id) VALUES ('scout', '1.0.1', '{}', 'canary', 'r')"
        )
    settings = _settings(place, database)
    with pytest.raises(StackError, match=r"not now: .*scout"):
        flow.uninstall(place, settings)
    assert (_schema(database), place.root.is_dir()) == (True, True)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flow, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            flow.uninstall(place, settings, force=True)
    assert (_schema(database), place.root.is_dir()) == (False, True)
    flow.uninstall(place, settings)
    assert not place.root.exists()


@pytest.mark.parametrize("after", range(1, 13))
def test_an_embedded_home_whose_removal_was_killed_is_removed_by_the_next(
    place: Home, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    place.database.mkdir()
    place.state_file.write_text("{}")
    (place.root / "connections.json").write_text('{"owner_database_url": "postgresql://x@127.0.0.1:9/perennial"}')
    (place.root / "secrets.json").write_text("{}")

    def settings() -> Settings:
        found = place.root / "connections.json"
        return Settings(home=place.root, **(json.loads(found.read_text()) if found.is_file() else {}))

    real, gone = (shutil.rmtree, Path.unlink), [0]

    def removing(remove: Any) -> Any:
        def call(*given: Any, **more: Any) -> None:
            remove(*given, **more)
            gone[0] += 1
            if gone[0] == after:
                raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", removing(real[0]))
        patch.setattr(Path, "unlink", removing(real[1]))
        with suppress(KeyboardInterrupt):
            flow.uninstall(place, settings(), with_airflow=True)
    assert gone[0] == after or not place.root.exists()
    if place.root.exists():
        flow.uninstall(place, settings(), with_airflow=True)
    assert not place.root.exists() or not any(place.root.iterdir())  # an empty folder may be anybody's


def test_an_embedded_stack_wants_the_word_for_airflows_data_and_a_strange_folder_is_left_alone(
    place: Home, database: Database, tmp_path: Path
) -> None:
    place.database.mkdir()
    settings = Settings(home=place.root)
    with pytest.raises(StackError, match="with-airflow-and-mlflow"):
        flow.uninstall(place, settings)
    assert place.database.is_dir()
    flow.uninstall(place, settings, with_airflow=True)
    assert not place.root.exists()
    strange = tmp_path / "letters"
    strange.mkdir()
    (strange / "letter.txt").write_text("dear")
    with pytest.raises(StackError, match="does not look like a home"):
        flow.plan(Home(root=strange), settings)
    shutil.rmtree(strange)
    assert flow.plan(Home(root=strange), settings).lines == []
