"""An agent whose trainer is a script of its user: from raw rows to a champion, through the same gates, and made again later."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from perennial.domain.example import Example
from perennial.domain.words import Mode, RolloutDecision
from perennial.flows import rollout
from perennial.flows.decide import decide
from perennial.flows.reproduce import Outcome, reproduce
from perennial.flows.rollout import predictors
from tests.acceptance.world import World, make_world
from tests.postgres_fixture import Database

FLEET = """
from perennial.fleet import Agent, Gates, Selection, Task
from perennial.trainers.command import Command

AGENT = Agent(
    name="scout", owner="tests", max_buffer_size=20000,
    tasks=(Task(name="length", labels=("long", "short")),),
    trainer=Command(script="scripts/words.py"),
    selection=Selection(holdout_share=0.3),
    gates=Gates(min_holdout=40),
)
"""

# counts words and splits where the two labels' means meet; no bag of words can learn that
SCRIPT = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
for name in ("--data", "--base", "--out", "--seed", "--load"):
    parser.add_argument(name)
parser.add_argument("--predict", action="store_true")
given = parser.parse_args()
if given.predict:
    split = json.loads(pathlib.Path(given.load, "split.json").read_text())["split"]
    print(json.dumps({"protocol": 1}), flush=True)
    for line in sys.stdin:
        counts = [len(text.split()) for text in json.loads(line)["texts"]]
        print(json.dumps({"answers": [{"output": "long" if n > split else "short", "confidence": 0.9} for n in counts]}), flush=True)
else:
    counts = {"long": [], "short": []}
    for line in open(given.data):
        row = json.loads(line)
        counts[row["label"]].append(len(row["text"].split()))
    split = sum(sum(found) / len(found) for found in counts.values()) / 2
    pathlib.Path(given.out, "split.json").write_text(json.dumps({"split": split, "updated": bool(given.base)}))
"""
WORDS = ("tram", "river", "market", "window", "garden", "letter", "station", "bridge", "lamp", "paper")


def rows(count: int, seed: int) -> list[Example]:
    draw = random.Random(seed)
    found = []
    for number in range(count):
        size = draw.randint(4, 9) if number % 2 else draw.randint(12, 17)
        text = " ".join(draw.choice(WORDS) for _ in range(size))
        found.append(
            Example(
                agent="scout",
                task="length",
                input_text=text,
                expected_output="short" if number % 2 else "long",
                uncertainty=0.5,
            )
        )
    return found


@pytest.fixture
def world(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("PERENNIAL_RUN_SCRIPTS", "true")
    monkeypatch.setenv("PERENNIAL_FLEET_FOLDER", str(tmp_path / "fleet"))
    made = make_world(database, tmp_path, FLEET)
    (tmp_path / "fleet" / "scripts").mkdir()
    (tmp_path / "fleet" / "scripts" / "words.py").write_text(SCRIPT)
    return made


@pytest.mark.req("J58", "K59", "D7")
def test_a_script_of_ones_own_becomes_champion_and_a_worse_one_does_not(world: World, tmp_path: Path) -> None:
    world.ports.buffer.add_many(rows(260, seed=1))
    verdict, settled = world.train_once(mode=Mode.ONLINE)
    assert verdict["action"] in ("pass", "approve"), verdict["summary"]
    assert settled["version"] == "1.0.0"
    world.promote()
    assert world.ports.ledger.champion("scout") == "1.0.0"
    model = predictors(world.ports, world.ports.fleet().agent("scout"), "1.0.0")["length"]
    assert [one.output for one in model.predict(["tram " * 5, "river " * 14])] == ["short", "long"]

    # the file changes to something worse: the gate holds it, and what serves answers as before
    script = tmp_path / "fleet" / "scripts" / "words.py"
    script.write_text(SCRIPT.replace("/ 2\n", "* 9\n"))
    world.ports.buffer.add_many(rows(120, seed=2))
    verdict, _ = world.train_once(mode=Mode.ONLINE)
    assert verdict["action"] == "hold", verdict["summary"]
    assert [one.output for one in model.predict(["tram " * 5, "river " * 14])] == ["short", "long"]

    # made again from its signed manifest, with the script of then
    again = reproduce(world.ports, "scout", "1.0.0")
    assert (again.outcome, again.reasons) == (Outcome.EQUAL, ())


@pytest.mark.req("K30", "K73")
def test_a_first_version_that_never_served_is_followed_by_another(world: World) -> None:
    world.ports.buffer.add_many(rows(260, seed=1))
    _, settled = world.train_once(mode=Mode.ONLINE)
    assert settled["version"] == "1.0.0"
    assert rollout.verify(world.ports, "scout", "first") is not None
    decide(world.ports, "scout", RolloutDecision.ABORT, actor="ana", reason="looks wrong")
    assert world.ports.ledger.champion("scout") is None
    world.ports.buffer.add_many(rows(260, seed=2))
    verdict, settled = world.train_once(mode=Mode.ONLINE)
    assert settled["version"] == "2.0.0", verdict["summary"]
    world.promote()
    assert world.ports.ledger.champion("scout") == "2.0.0"
    again = reproduce(world.ports, "scout", "2.0.0")
    assert (again.outcome, again.reasons) == (Outcome.EQUAL, ())
