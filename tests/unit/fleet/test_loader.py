"""The loader returns agents and errors and never raises for one bad file."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.errors import NotConfigured
from perennial.fleet.loader import load

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
