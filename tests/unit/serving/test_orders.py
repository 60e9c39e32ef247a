"""Rollbacks that wait on disk: what can be read of a damaged file holds, and the rest is said until somebody looked."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from perennial.serving.orders import Order, Orders
from tests.unit.serving.world import World, rolled_back_while_away

FIRST = Order(agent="scout", version="1.0.0", epoch=3, actor="ana", reason="it said {so}")
SECOND = Order(agent="analyst", version="2.0.0", epoch=5, actor="bo", reason="bad")
WHOLE = json.dumps([asdict(FIRST), asdict(SECOND)])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (b"", []), (b"{}", []), (b"7", []), (b"\xff\xfe", []), (b'[{"agent": "scout"}]', []), (b'["a text"]', []),
        (b'[{"agent": "scout", "version": "1.0.0", "epoch": "3"}]', []),
        (WHOLE.encode()[:-20], [FIRST]),  # it breaks off
        (WHOLE.replace('"epoch": 5', '"epoch": null').encode(), [FIRST]),
        (WHOLE.encode()[1:], [FIRST, SECOND]),
    ],
)  # fmt: skip
def test_a_damaged_file_is_set_aside_and_what_can_be_read_of_it_holds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: bytes, left: list[Order]
) -> None:
    path = tmp_path / "orders-8600.json"
    path.write_bytes(text)
    orders = Orders(path)
    assert orders.all() == left
    (aside,) = orders.unread()
    assert str(path) in caplog.text
    assert aside.name in caplog.text
    assert aside.read_bytes() == text
    again = Orders(path)  # what could be read outlives the next restart too, and nothing is forgotten meanwhile
    assert (again.all(), again.unread()) == (left, [aside])
    assert all(again.kept(order.agent) for order in left)
    aside.unlink()
    assert again.unread() == []


@pytest.mark.parametrize("text", ["[]", WHOLE, WHOLE.replace('"actor": "bo", ', '"since": 7, ')])
def test_a_file_of_another_version_that_names_what_to_serve_is_no_damaged_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "orders-8600.json"
    path.write_text(text)
    orders = Orders(path)
    assert [(one.agent, one.version, one.epoch) for one in orders.all()] == [
        (one["agent"], one["version"], one["epoch"]) for one in json.loads(text)
    ]
    assert orders.unread() == []


def test_a_damaged_file_that_cannot_be_moved_stops_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders-8600.json"
    path.write_text(WHOLE[:-20])

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("perennial.serving.orders.os.replace", refused)
    orders = Orders(path)
    assert orders.all() == [FIRST]
    assert orders.unread() == [path]
    assert path.read_text() == WHOLE[:-20]
    assert "Permission denied" in caplog.text


def test_orders_are_on_disk_before_they_take_the_place_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a machine that loses power may be left with an empty file."""
    done: list[str] = []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr("perennial.serving.orders.os.fsync", lambda number: (done.append("sync"), sync(number)))
    monkeypatch.setattr("perennial.serving.orders.os.replace", lambda *two: (done.append("move"), move(*two)))
    Orders(tmp_path / "orders.json").put(FIRST)
    assert done == ["sync", "move"]


def test_a_rollback_here_outlives_a_restart_with_the_end_of_its_file_lost(tmp_path: Path) -> None:
    world = rolled_back_while_away(tmp_path)
    path = tmp_path / "orders.json"
    path.write_text(path.read_text()[:-1])
    again = World(tmp_path)
    again.rollouts, again.store._rollouts, again.shelf.models = world.rollouts, world.rollouts, world.shelf.models
    again.settle()
    assert again.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert again.gateway.agents()["scout"]["rolled_back_here"]
    assert again.gateway.orders_not_read() == [path.name for path in tmp_path.glob("orders.json.unread-*")]
    again.close()
