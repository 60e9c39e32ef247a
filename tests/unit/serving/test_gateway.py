"""Swaps disturb nobody, untrusted bundles never answer, and a lost store changes nothing for callers."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perennial.domain.words import Arm
from perennial.errors import FilesRemoved, InvalidExample, RegistryError, UnknownAgent, UntrustedBundle
from perennial.rollout.machine import Plan
from perennial.rollout.rows import GatewayRow
from perennial.rollout.store import REFUSED
from perennial.serving.errors import ModelFailed, NotServing
from perennial.serving.gateway import RETRY_REFUSED_SECONDS
from perennial.serving.orders import Order, Orders
from perennial.serving.router import share
from tests.unit.serving.world import PLAN, Fixed, World, in_threads, rolled_back_while_away, settle


def _beat(world: World) -> GatewayRow:
    (row,) = [row for row in world.rollouts.gateways("scout") if row.instance == "g1"]
    return row


def _key(below: float) -> str:
    return next(key for key in (f"k{number}" for number in range(100_000)) if share(key, "scout") < below)


def test_before_the_first_champion_it_says_so(world: World) -> None:
    world.settle()
    with pytest.raises(NotServing, match="no model"):
        world.gateway.predict("scout", "topic", ["text"])
    with pytest.raises(UnknownAgent):
        world.gateway.predict("nobody", "topic", ["text"])
    assert world.gateway.agents()["scout"]["champion"] is None


def test_it_answers_by_task_name_and_alias(world: World) -> None:
    world.champion("1.0.0")
    for name in ("topic", "news_topic"):
        (answer,) = world.gateway.predict("scout", name, ["text"])
        assert (answer.output, answer.version, answer.arm) == ("sports", "1.0.0", Arm.CHAMPION)
    assert world.gateway.predict("scout", "quality", ["text"])[0].output == 0.7
    world.recorder.flush()
    assert {item.answer.task for item in world.store.recorded.values()} == {"topic", "quality"}


@pytest.mark.parametrize(
    ("task", "inputs", "field"),
    [("nothing", ["x"], "task"), ("topic", [""], "inputs"), ("topic", ["x" * 1001], "inputs"),
     ("topic", ["a\0b"], "inputs"), ("topic", ["\ud800"], "inputs"), ("topic", [None], "inputs")],
)  # fmt: skip
def test_unusable_requests_name_the_field(world: World, task: str, inputs: list[str], field: str) -> None:
    world.champion("1.0.0")
    with pytest.raises(InvalidExample) as caught:
        world.gateway.predict("scout", task, inputs)
    assert caught.value.field == field


@pytest.mark.req("K37", "K39")
def test_the_canary_gets_its_share_and_the_same_keys_every_time(world: World) -> None:
    world.champion("1.0.0")
    world.candidate("1.0.1", weight=0.25)
    met = Counter(world.gateway.predict("scout", "topic", ["t"], key=f"u{n}")[0].version for n in range(4000))
    assert abs(met["1.0.1"] / 4000 - 0.25) < 0.03
    key = _key(0.05)
    assert {world.gateway.predict("scout", "topic", ["a", "b"], key=key)[0].arm for _ in range(20)} == {Arm.CANDIDATE}
    without = world.gateway.predict("scout", "topic", [f"text {n}" for n in range(400)])
    assert abs(sum(answer.arm is Arm.CANDIDATE for answer in without) / 400 - 0.25) < 0.07


@pytest.mark.req("J49", "K39")
def test_fifty_swaps_under_load_fail_no_request(world: World) -> None:
    """Eight callers ask without a pause while the champion changes fifty times, a third of it by rollback."""
    world.champion("1.0.0", topic=Fixed("sports"))
    world.champion("1.0.1", topic=Fixed("sports"))
    world.gateway.start()
    stop, failed, answered = threading.Event(), [], Counter()
    approved = {"1.0.0", "1.0.1"}

    def ask(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            try:
                for answer in world.gateway.predict("scout", "topic", ["one", "two"], key=f"{number}-{count}"):
                    answered[answer.version] += 1
                    if answer.version not in approved:
                        failed.append(f"unapproved {answer.version}")
            except Exception as error:  # noqa: BLE001 - any failure at all is what the test looks for
                failed.append(repr(error))

    def change(number: int) -> None:
        if number % 3 == 2:
            serving = world.rollouts.serving("scout")
            world.rollouts.rollback("scout", serving.previous or "", actor="t", reason="t")
        else:
            version = f"1.1.{number}"
            world.shelf.put(version, topic=Fixed("sports"))
            approved.add(version)
            row = world.rollouts.open(agent="scout", version=version, plan=Plan(steps=(0.5, 1.0)), run_id=version)
            world.rollouts.set_step(row.id, step=0, weight=0.5, actor="t")
            world.rollouts.promote_full(row.id, actor="t", reason="t")
        world.gateway.wake()
        wanted = world.rollouts.serving("scout").champion
        deadline = time.monotonic() + 5
        while world.gateway.agents()["scout"]["champion"] != wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        if world.gateway.agents()["scout"]["champion"] != wanted:
            failed.append(f"{wanted} never served")

    def swap() -> None:
        try:
            for number in range(50):
                change(number)
        except Exception as error:  # noqa: BLE001 - a thread's failure must end the test, not hang it
            failed.append(repr(error))
        finally:
            stop.set()

    swapper = threading.Thread(target=swap)
    swapper.start()
    in_threads(8, ask)
    swapper.join()
    assert not failed
    assert sum(answered.values()) > 1000
    assert len(answered) > 10  # it really did change under the callers


@pytest.mark.req("J49", "K40")
def test_a_tampered_candidate_is_refused_and_the_champion_goes_on(world: World) -> None:
    world.champion("1.0.0")
    world.shelf.tampered.add("1.0.1")
    world.candidate("1.0.1", weight=0.9)
    assert {a.version for a in world.gateway.predict("scout", "topic", [f"t{n}" for n in range(200)])} == {"1.0.0"}
    assert _beat(world).candidate is None
    assert _beat(world).weight == 0.0
    refusal = world.rollouts.gateway_error("scout", "1.0.1")
    assert refusal is not None
    assert "signature" in refusal
    assert "signature" in world.gateway.agents()["scout"]["error"]
    assert world.shelf.fetched.count("1.0.1") == 1  # asked again only after a while


@pytest.mark.req("J49")
def test_a_tampered_champion_leaves_the_former_one_serving(world: World) -> None:
    world.champion("1.0.0")
    world.shelf.tampered.add("1.0.1")
    world.shelf.put("1.0.1")
    row = world.rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="r")
    world.rollouts.promote_full(row.id, actor="t", reason="t")
    world.settle()
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert _beat(world).champion == "1.0.0"
    again = World(world.shelf.root.parent)  # and so does a process that starts now
    again.rollouts, again.store._rollouts, again.shelf.models = world.rollouts, world.rollouts, world.shelf.models
    again.shelf.tampered.add("1.0.1")
    again.settle()
    assert again.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    again.close()


@pytest.mark.req("K37", "J49")
@pytest.mark.parametrize("champion", ["slow", "tampered", "away"])
def test_a_restart_gives_an_unjudged_candidate_no_key_while_its_champion_is_not_there(
    world: World, champion: str
) -> None:
    """The two load side by side, and the champion may be the later one, or be refused."""
    world.champion("1.0.0", topic=Fixed("sports"))
    world.candidate("1.0.1", topic=Fixed("world"))
    if champion == "slow":
        world.shelf.seconds["1.0.0"] = 1.0
    else:
        getattr(world.shelf, champion).add("1.0.0")
    again = world.restarted()
    again.refresh()
    deadline = time.monotonic() + 5
    while again.agents()["scout"]["candidate"] is None and time.monotonic() < deadline:
        time.sleep(0.002)
        again.refresh()
    assert again.agents()["scout"]["candidate"] == "1.0.1"
    for number in range(50):
        with pytest.raises(NotServing, match="no model"):
            again.predict("scout", "topic", ["t"], key=f"k{number}")
    assert (_beat(world).candidate, _beat(world).weight) == ("1.0.1", 0.0)
    again.stop()


@pytest.mark.req("K37")
def test_a_restart_keeps_the_share_of_a_canary_whose_champion_is_not_there(world: World) -> None:
    world.champion("1.0.0", topic=Fixed("sports"))
    world.candidate("1.0.1", weight=0.25, topic=Fixed("world"))
    world.shelf.away.add("1.0.0")
    again = world.restarted()
    settle(again)
    met: Counter[str] = Counter()
    for number in range(400):
        try:
            met[again.predict("scout", "topic", ["t"], key=f"u{number}")[0].version] += 1
        except NotServing:
            met["503"] += 1
    assert abs(met["1.0.1"] / 400 - 0.25) < 0.07
    assert met["503"] == 400 - met["1.0.1"]
    again.stop()


@pytest.mark.req("K37")
def test_a_task_that_the_wanted_champion_may_know_is_not_taken_for_new(world: World) -> None:
    """Its predecessor answers for it meanwhile and does not know the task: that makes no candidate fit to answer."""
    world.champion("1.0.0", topic=Fixed("sports"))
    world.champion("1.0.1")
    world.candidate("1.0.2")
    world.shelf.away.add("1.0.1")
    again = world.restarted()
    settle(again)
    assert again.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    with pytest.raises(NotServing, match="quality"):
        again.predict("scout", "quality", ["t"])
    again.stop()


def test_a_first_version_and_a_task_that_is_new_are_answered_by_the_candidate(world: World) -> None:
    world.candidate("1.0.0", topic=Fixed("sports"))
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    world.champion("1.0.1", topic=Fixed("sports"))
    world.candidate("1.0.2")
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.1"
    assert world.gateway.predict("scout", "quality", ["t"])[0].version == "1.0.2"


@pytest.mark.req("J95")
@pytest.mark.parametrize(
    "broken", [Fixed(None), Fixed(float("nan")), Fixed("sports", 7.0), Fixed("sports", float("nan"))]
)
def test_a_candidate_that_cannot_answer_a_probe_is_refused(world: World, broken: Fixed) -> None:
    world.champion("1.0.0")
    world.candidate("1.0.1", weight=0.5, topic=broken)
    assert world.rollouts.gateway_error("scout", "1.0.1") is not None
    assert world.gateway.agents()["scout"]["candidate"] is None


def test_a_store_that_is_away_is_no_refusal(world: World) -> None:
    world.champion("1.0.0")
    world.shelf.away.add("1.0.1")
    world.candidate("1.0.1", weight=0.5)
    assert world.rollouts.gateway_error("scout", "1.0.1") is None
    assert "cannot be loaded yet" in (_beat(world).error or "")


@pytest.mark.req("K40")
def test_a_failing_candidate_is_recorded_and_the_champion_answers(world: World) -> None:
    world.champion("1.0.0")
    bad = Fixed("world")
    world.candidate("1.0.1", weight=0.5, topic=bad)
    bad.raises = RuntimeError
    found = world.gateway.predict("scout", "topic", [f"t{n}" for n in range(100)])
    assert {answer.version for answer in found} == {"1.0.0"}
    world.recorder.flush()
    stats = world.rollouts.stats("scout", "1.0.1", since=None)
    assert stats.errors == stats.answers == stats.trailing_errors > 20
    assert world.rollouts.stats("scout", "1.0.0", since=None).errors == 0


def _ask_for_a_task_that_is_nobodys(world: World, *, times: int) -> None:
    for number in range(times):
        with pytest.raises(NotServing, match="quality"):
            world.gateway.predict("scout", "quality", ["t"], key=f"k{number}")
    world.recorder.flush()
    assert not world.rollouts.answers


@pytest.mark.req("K40")
def test_a_task_that_no_version_knows_is_nobodys_failure(world: World) -> None:
    """A fleet file may name a task before any model learned it; who asks for it takes no sound candidate down."""
    world.champion("1.0.0", topic=Fixed("sports"))
    world.candidate("1.0.1", weight=0.25, topic=Fixed("sports"))
    _ask_for_a_task_that_is_nobodys(world, times=100)


@pytest.mark.req("K40")
def test_a_task_that_a_first_version_had_no_rows_for_is_not_its_failure(world: World) -> None:
    world.candidate("1.0.0", topic=Fixed("sports"))
    _ask_for_a_task_that_is_nobodys(world, times=10)


@pytest.mark.req("K40")
def test_a_candidate_that_lost_a_task_of_its_champion_failed(world: World) -> None:
    world.champion("1.0.0")
    world.candidate("1.0.1", weight=0.5, topic=Fixed("sports"))
    found = world.gateway.predict("scout", "quality", [f"t{n}" for n in range(100)])
    assert {answer.version for answer in found} == {"1.0.0"}
    world.recorder.flush()
    stats = world.rollouts.stats("scout", "1.0.1", since=None)
    assert stats.errors == stats.answers > 20


def test_a_failing_champion_is_an_error_that_is_recorded(world: World) -> None:
    model = Fixed("sports")
    world.champion("1.0.0", topic=model)
    model.raises = ValueError
    with pytest.raises(ModelFailed, match="ValueError"):
        world.gateway.predict("scout", "topic", ["t"])
    world.recorder.flush()
    assert world.rollouts.stats("scout", "1.0.0", since=None).errors == 1


def test_numbers_of_numpy_leave_as_plain_json(world: World) -> None:
    world.champion("1.0.0", quality=Fixed(np.float32(0.25)), topic=Fixed(np.str_("sports")))
    assert type(world.gateway.predict("scout", "quality", ["t"])[0].output) is float


def test_a_slow_load_delays_nobody(world: World) -> None:
    world.champion("1.0.0")
    world.champion("1.0.1")
    world.shelf.put("1.0.2")
    world.shelf.seconds["1.0.2"] = 1.0
    world.rollouts.open(agent="scout", version="1.0.2", plan=PLAN, run_id="slow")
    began = time.monotonic()
    world.gateway.refresh()
    world.rollouts.rollback("scout", "1.0.0", actor="t", reason="t")
    world.gateway.refresh()
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert time.monotonic() - began < 0.5


@pytest.mark.req("K40", "J6")
def test_with_the_store_away_it_serves_and_rolls_back_and_makes_up_later(tmp_path: Path) -> None:
    carried: list[Order] = []
    world = World(tmp_path, carry_out=carried.append)
    world.champion("1.0.0")
    world.champion("1.0.1")
    world.store.away = True
    world.gateway.refresh()
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.1"
    assert not world.gateway.store_up
    began = time.monotonic()
    assert world.gateway.roll_back_here("scout", actor="ana", reason="bad") == "1.0.0"
    assert time.monotonic() - began < 0.5
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert world.gateway.agents()["scout"]["rolled_back_here"]
    assert not carried
    world.store.away = False

    def carry(order: Order) -> None:
        carried.append(order)
        world.rollouts.rollback(order.agent, order.version, actor=order.actor, reason=order.reason)

    world.gateway._carry_out = carry
    world.settle()
    assert [(order.version, order.actor) for order in carried] == [("1.0.0", "ana")]
    assert world.rollouts.serving("scout").champion == "1.0.0"
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert not world.gateway.agents()["scout"]["rolled_back_here"]
    assert world.recorder.flush()
    world.close()


def test_a_rollback_here_outlives_the_process_and_gives_way_to_a_newer_change(tmp_path: Path) -> None:
    world = rolled_back_while_away(tmp_path)
    again = World(tmp_path)
    again.rollouts, again.store._rollouts, again.shelf.models = world.rollouts, world.rollouts, world.shelf.models
    again.settle()
    assert again.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    again.champion("1.0.2")  # somebody released a better one
    assert again.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.2"
    assert not again.gateway.agents()["scout"]["rolled_back_here"]
    again.close()


@pytest.mark.req("K40", "J6")
@pytest.mark.parametrize("error", [RegistryError, UntrustedBundle, FilesRemoved, ValueError])
def test_an_order_that_cannot_be_carried_out_yet_holds_here_and_stops_nobody(
    tmp_path: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[Order] = []

    def fail(order: Order) -> None:
        tried.append(order)
        raise error("some words")

    world = World(tmp_path, carry_out=fail)
    world.champion("1.0.0")
    world.champion("1.0.1")
    world.store.away = True
    world.gateway.refresh()
    world.gateway.roll_back_here("scout", actor="ana", reason="bad")
    world.store.away = False
    for _ in range(3):
        world.gateway._beaten = -1000.0
        world.gateway.refresh()
    assert world.gateway.store_up
    assert _beat(world).champion == "1.0.0"
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert world.gateway.agents()["scout"]["rolled_back_here"]
    assert len(tried) == 1, "not at every look: each may cost a fetch"
    assert error.__name__ in caplog.text
    assert "some words" not in caplog.text

    def carry(order: Order) -> None:
        world.rollouts.rollback(order.agent, order.version, actor=order.actor, reason=order.reason)

    world.gateway._carry_out = carry
    now = time.monotonic()
    monkeypatch.setattr("perennial.serving.gateway.time.monotonic", lambda: now + RETRY_REFUSED_SECONDS)
    world.gateway.refresh()
    assert world.rollouts.serving("scout").champion == "1.0.0"
    assert not world.gateway.agents()["scout"]["rolled_back_here"]
    world.close()


def test_a_rollback_here_holds_without_a_place_for_its_order_and_when_it_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.champion("1.0.0")
    world.champion("1.0.1")
    world.store.away = True

    def full(self: Path, *_: Any, **__: Any) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        assert world.gateway.roll_back_here("scout", actor="ana", reason="bad") == "1.0.0"
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.0"
    assert not world.gateway.order_is_kept("scout")
    assert "No space left" in caplog.text
    assert not list(tmp_path.glob(".orders*"))
    assert world.gateway.roll_back_here("scout", actor="bob", reason="is it done?") == "1.0.0"
    assert world.gateway.order_is_kept("scout")
    assert [order.actor for order in Orders(tmp_path / "orders.json").all()] == ["ana"]
    world.close()


def test_an_order_that_cannot_be_forgotten_on_disk_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.champion("1.0.0")
    world.champion("1.0.1")
    world.store.away = True
    world.gateway.roll_back_here("scout", actor="ana", reason="bad")
    world.store.away = False

    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("perennial.serving.orders.os.replace", full)
    world.champion("1.0.2")
    assert world.gateway.predict("scout", "topic", ["t"])[0].version == "1.0.2"
    assert not world.gateway.agents()["scout"]["rolled_back_here"]
    world.close()


def test_a_rollback_here_needs_a_hot_predecessor(world: World) -> None:
    world.champion("1.0.0")
    with pytest.raises(NotServing, match="former champion"):
        world.gateway.roll_back_here("scout", actor="ana", reason="bad")


def test_models_that_nobody_wants_are_let_go(world: World) -> None:
    for version in ("1.0.0", "1.0.1", "1.0.2", "1.0.3"):
        world.champion(version)
    assert {version for _, version in world.gateway._models} == {"1.0.2", "1.0.3"}


def test_the_background_thread_outlives_a_load_that_panics(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library in Rust raises when it panics is no Exception."""

    class Panic(BaseException):
        pass

    world.champion("1.0.0")
    load = world.shelf.load

    def panics(folder: Path) -> Any:
        if "1.0.1" in str(folder):
            raise Panic("a secret text")
        return load(folder)

    monkeypatch.setattr(world.shelf, "load", panics)
    world.candidate("1.0.1")
    served = world.gateway.agents()["scout"]
    assert (served["champion"], served["candidate"]) == ("1.0.0", None)
    assert REFUSED in served["error"]
    assert served["error"].endswith("Panic")


def test_the_background_thread_outlives_a_surprise(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.champion("1.0.0")
    calls = 0
    wanted = world.store.wanted

    def surprise() -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("nobody thought of this")
        return wanted()

    monkeypatch.setattr(world.store, "wanted", surprise)
    world.gateway.start()
    world.shelf.put("1.0.1")
    row = world.rollouts.open(agent="scout", version="1.0.1", plan=PLAN, run_id="r")
    world.rollouts.promote_full(row.id, actor="t", reason="t")
    deadline = time.monotonic() + 5
    while world.gateway.agents()["scout"]["champion"] != "1.0.1" and time.monotonic() < deadline:
        world.gateway.wake()
        time.sleep(0.01)
    assert world.gateway.agents()["scout"]["champion"] == "1.0.1"
    assert calls > 1
