"""``perennial quarantine`` in a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from perennial.cli import build
from perennial.domain.origin import LABEL_CONFLICT, NEW_LABEL, SOURCE_CAP
from perennial.errors import AsideRefused, UnknownAgent
from perennial.flows import quarantine as flow
from perennial.ingest.aside import AsideMoved, AsideOrder
from tests.pages_world import PagesWorld
from tests.waiting_world import TASK, ask, hold, make_waiting_world, refuse

pytestmark = pytest.mark.req("J110")
WHY = ("--reason", "looked at them", "--actor", "ana")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> PagesWorld:
    made = make_waiting_world(full=False)
    monkeypatch.setattr("perennial.wiring.ports", lambda *_: made.ports)
    return made


def _said(*words: str) -> Result:
    return CliRunner().invoke(build(), ["quarantine", *words])


def test_it_shows_all_agents_then_reasons_then_rows_without_texts(world: PagesWorld) -> None:
    assert "nothing stands aside" in _said().output
    assert "nothing of scout stands aside" in _said("scout").output
    (held,) = hold(world, ["a secret"], SOURCE_CAP)
    refuse(world, ["b"], "too_long")
    assert json.loads(_said("--json").stdout) == [
        {"agent": "scout", "quarantined": "1", "held": "1", "unlabelled": "0", "unsure finds": "0"}
    ]
    reasons = json.loads(_said("scout", "--json").stdout)
    assert [(one["state"], one["reason code"], one["rows"]) for one in reasons] == [
        ("quarantined", "too_long", "1"), ("held", SOURCE_CAP, "1"),
    ]  # fmt: skip
    shown = _said("scout", "--reason-code", SOURCE_CAP).output
    assert str(held) in shown
    assert "SECRET" not in shown
    assert isinstance(_said("nobody").exception, UnknownAgent)


def test_rows_are_released_and_dropped_once(world: PagesWorld) -> None:
    first, second = hold(world, ["a", "b"], SOURCE_CAP)
    assert "say why" in _said("scout", "--release", str(first)).output
    done = _said("scout", "--release", str(first), "--drop", str(second), *WHY)
    assert done.output.split("\n")[:2] == ["1 row released; the next training may claim them", "1 row dropped"]
    again = _said("scout", "--release", str(first), "--drop", str(second), *WHY)
    assert again.exit_code == 0
    assert again.output.split("\n")[:2] == [
        "nothing changed: the row was released already", "nothing changed: the row was dropped already",
    ]  # fmt: skip
    assert world.buffer.counts("scout") == {(TASK, "ready"): 1, (TASK, "evicted"): 1}
    assert [entry.action for entry in world.audit.entries("scout")] == ["held_dropped", "held_released"]
    stranger = _said("desk", "--drop", str(first), *WHY)
    assert isinstance(stranger.exception, AsideRefused)


def test_a_whole_reason_moves_and_others_stay(world: PagesWorld) -> None:
    hold(world, ["a", "b"], SOURCE_CAP)
    hold(world, ["c"], LABEL_CONFLICT)
    hold(world, ["d"], NEW_LABEL)
    assert "say of what" in _said("scout", "--all", "release", *WHY).output
    assert "stands aside as 'x'" in _said("scout", "--reason-code", "x", "--all", "drop", *WHY).output
    assert "2 rows released" in _said("scout", "--reason-code", SOURCE_CAP, "--all", "release", *WHY).output
    assert world.buffer.counts("scout") == {(TASK, "ready"): 2, (TASK, "held"): 2}
    assert isinstance(_said("scout", "--reason-code", NEW_LABEL, "--all", "release", *WHY).exception, AsideRefused)
    told = json.loads(_said("scout", "--reason-code", LABEL_CONFLICT, "--all", "drop", "--json", *WHY).stdout)
    assert told == [{"rows": 1, "holdout": 0, "note": "1 row dropped"}]


@pytest.mark.req("D9")
def test_a_release_that_is_killed_goes_on_where_it_stopped(world: PagesWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(world, [f"text {number}" for number in range(25)], SOURCE_CAP)
    monkeypatch.setattr(flow, "STEP", 10)
    store: Any = world.ports.aside
    real, calls = store.settle, iter(range(100))

    def dies_second(order: AsideOrder, *, limit: int) -> AsideMoved:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(order, limit=limit)  # type: ignore[no-any-return]

    monkeypatch.setattr(store, "settle", dies_second)
    assert _said("scout", "--reason-code", SOURCE_CAP, "--all", "release", *WHY).exit_code != 0
    assert world.buffer.counts("scout") == {(TASK, "ready"): 10, (TASK, "held"): 15}
    assert "15 rows released" in _said("scout", "--reason-code", SOURCE_CAP, "--all", "release", *WHY).output
    entries = world.audit.entries("scout")
    assert [entry.detail["rows"] for entry in entries] == [5, 10, 10]
    assert len({identity for entry in entries for identity in entry.detail["ids"]}) == 25


def test_one_click_moves_only_so_many(world: PagesWorld) -> None:
    hold(world, [f"text {number}" for number in range(12)], SOURCE_CAP)
    key = flow.piles(world.ports, "scout")[0].key
    order = AsideOrder(agent="scout", action=flow.AsideAction.DROP, key=key, actor="ana", why="w")
    first = flow.settle(world.ports, order, at_once=10)
    assert (first.rows, first.more, "more of them wait" in first.note) == (10, True, True)
    second = flow.settle(world.ports, order, at_once=10)
    assert (second.rows, second.more) == (2, False)
    assert flow.settle(world.ports, order).note == "nothing changed: no such row stands aside for this reason any more"


@pytest.mark.req("K68")
def test_questions_are_shown_without_words_and_answered_once(world: PagesWorld) -> None:
    ask(world, ["Grace said it", "Hope told it"])
    assert json.loads(_said("--json").stdout)[0]["unsure finds"] == "2"
    listed = _said("scout", "--unsure", "--json")
    numbers = [one["number"] for one in json.loads(listed.stdout)]
    assert "Grace" not in listed.output
    assert "say why" in _said("scout", "--unsure", "--words").output
    assert "[Grace]" in _said("scout", "--unsure", "--words", *WHY).output
    assert [entry.action for entry in world.audit.entries("scout")] == ["redaction_words_shown"]
    done = _said("scout", "--not-personal", str(numbers[0]), "--personal", str(numbers[1]), *WHY).output
    assert "the next admission puts the words back" in done
    assert "its stand-ins stay" in done
    assert "already; nothing changed" in _said("scout", "--personal", str(numbers[0]), *WHY).output
    assert "no find of scout is unsure" in _said("scout", "--unsure").output
    assert "has no redaction task 99" in _said("scout", "--drop-text", "99", *WHY).output
