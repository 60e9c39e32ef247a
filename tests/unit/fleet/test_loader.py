"""The loader returns agents and errors and never raises for one bad file."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.errors import NotConfigured
from perennial.fleet import loader
from perennial.fleet.loader import find, load

GOOD = """
from perennial.fleet import Agent, Task
from perennial.trainers.ewc_text import EwcText
AGENT = Agent(name="{name}", owner="me", tasks=(Task(name="tone"),), trainer=EwcText())
"""


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.req("D3", "J75")
def test_one_broken_file_leaves_the_others(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", GOOD.format(name="alpha"))
    broken = _write(tmp_path, "b.py", "x = 1\ny = (\n")
    fleet = load(tmp_path)
    assert [agent.name for agent in fleet.agents] == ["alpha"]
    assert [(error.file, error.line) for error in fleet.errors] == [(str(broken), 2)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import nowhere_at_all\n", 1, "ModuleNotFoundError"),
        ("\n\nraise SystemExit(3)\n", 3, "SystemExit"),
        ("AGENT = 'scout'\n", 1, "has no AGENT"),
        (GOOD.format(name="Bad Name"), 4, "must match"),
    ],
)
def test_errors_name_file_line_and_cause(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = _write(tmp_path, "agent.py", text)
    (error,) = load(tmp_path).errors
    assert (error.file, error.line) == (str(path), line)
    assert words in error.message


def test_two_files_may_not_declare_one_agent(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", GOOD.format(name="same"))
    _write(tmp_path, "b.py", GOOD.format(name="same"))
    fleet = load(tmp_path)
    assert len(fleet.agents) == 1
    assert "declared in a.py too" in fleet.errors[0].message


def test_files_with_an_underscore_and_an_empty_folder_are_fine(tmp_path: Path) -> None:
    _write(tmp_path, "_shared.py", "raise RuntimeError('not a fleet file')")
    fleet = load(tmp_path)
    assert (fleet.agents, fleet.errors) == ((), ())
    with pytest.raises(NotConfigured, match="add include/fleet/nobody"):
        fleet.agent("nobody")


def test_a_changed_file_is_read_again_within_the_same_second(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", GOOD.format(name="alpha"))
    first = load(tmp_path).members[0].digest
    _write(tmp_path, "a.py", GOOD.format(name="omega"))
    second = load(tmp_path)
    assert [agent.name for agent in second.agents] == ["omega"]
    assert second.members[0].digest != first


@pytest.mark.req("D3")
def test_the_shipped_fleet_loads() -> None:
    fleet = load(Path(__file__).parents[3] / "include" / "fleet")
    assert fleet.errors == ()
    assert {"news_classification", "quality_assessment", "sentiment"} == {
        task.name for task in fleet.agent("scout").tasks
    }


COUNTED = (
    GOOD
    + """
from pathlib import Path
seen = Path(__file__).with_suffix(".runs")
seen.write_text((seen.read_text() if seen.exists() else "") + "x")
"""
)


def _runs(path: Path) -> int:
    return len(path.with_suffix(".runs").read_text())


def test_the_same_bytes_are_not_run_again_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, "a.py", COUNTED.format(name="alpha"))
    assert load(tmp_path) == load(tmp_path)
    assert _runs(path) == 1
    _write(tmp_path, "a.py", COUNTED.format(name="alpha").replace('owner="me"', 'owner="you"'))
    assert load(tmp_path).agent("alpha").owner == "you"
    assert _runs(path) == 2
    monkeypatch.setattr(loader, "REMEMBERED_SECONDS", 0.0)
    load(tmp_path)
    assert _runs(path) == 3  # what a file reads beside itself may have changed


def test_a_broken_file_is_tried_again_at_every_look(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", "from perennial_beside_this_one import AGENT\n")
    assert len(load(tmp_path).errors) == 1
    assert len(load(tmp_path).errors) == 1


def test_find_takes_the_file_of_that_name_and_else_any(tmp_path: Path) -> None:
    own = _write(tmp_path, "alpha.py", COUNTED.format(name="alpha"))
    other = _write(tmp_path, "b.py", COUNTED.format(name="beta"))
    found = find(tmp_path, "alpha")
    assert found is not None
    assert (found.file, other.with_suffix(".runs").exists()) == (own, False)
    found = find(tmp_path, "beta")
    assert found is not None
    assert found.file == other
    assert find(tmp_path, "gamma") is None
    assert find(tmp_path / "nowhere", "alpha") is None
