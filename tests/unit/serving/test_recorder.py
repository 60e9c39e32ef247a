"""Recording never makes a request wait, loses nothing in an outage that fits the queue, and counts what it drops."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perennial.domain.example import Example
from perennial.domain.words import Arm, Source
from perennial.errors import StoreError
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.rows import Answered
from perennial.serving.errors import ModelFailed
from perennial.serving.memory import MemoryServing
from perennial.serving.metrics import Metrics
from perennial.serving.recorder import CLEAN_SECONDS, Recorder
from perennial.serving.store import Recorded
from tests.unit.serving.world import Fixed, Sink, World


def _item(text: str = "text") -> Recorded:
    answer = Answered(
        prediction_id=uuid4(), agent="scout", task="topic", version="1.0.0", arm=Arm.CHAMPION, input_digest=b"x",
        output="sports", confidence=0.9, latency_ms=1.0,
    )  # fmt: skip
    return Recorded(answer=answer, text=text)


def _value(metrics: Metrics, name: str, labels: dict[str, str] | None = None) -> float:
    return metrics.registry.get_sample_value(name, labels or {}) or 0.0


def test_an_outage_that_fits_the_queue_loses_nothing_and_stops_nobody(world: World) -> None:
    world.champion("1.0.0")
    world.store.away = True
    began = time.monotonic()
    for number in range(500):
        world.gateway.predict("scout", "topic", [f"text {number}"])
    assert time.monotonic() - began < 2.0
    assert not world.store.recorded
    world.store.away = False
    assert world.recorder.flush(10)
    assert len(world.store.recorded) == 500
    assert _value(world.metrics, "perennial_recordings_dropped_total", {"why": "full"}) == 0


def test_beyond_its_size_the_oldest_leave_and_are_counted() -> None:
    store, metrics = MemoryServing(MemoryRollouts()), Metrics()
    recorder = Recorder(store, None, metrics, capacity=100)
    items = [_item(f"text {number}") for number in range(250)]
    recorder.put(items)
    recorder.start()
    assert recorder.flush()
    assert set(store.recorded) == {item.answer.prediction_id for item in items[150:]}
    assert _value(metrics, "perennial_recordings_dropped_total", {"why": "full"}) == 150
    recorder.stop()


def test_stopping_writes_what_waits() -> None:
    store = MemoryServing(MemoryRollouts())
    recorder = Recorder(store, None, Metrics())
    recorder.start()
    recorder.put([_item() for _ in range(1200)])
    recorder.stop()
    assert len(store.recorded) == 1200


def test_stopping_during_an_outage_gives_up_in_time_and_counts() -> None:
    store, metrics = MemoryServing(MemoryRollouts()), Metrics()
    store.away = True
    recorder = Recorder(store, None, metrics)
    recorder.start()
    recorder.put([_item() for _ in range(10)])
    began = time.monotonic()
    recorder.stop(0.3)
    assert time.monotonic() - began < 3
    assert _value(metrics, "perennial_recordings_dropped_total", {"why": "stopped"}) == 10


class _Picky(MemoryServing):
    def record(self, batch: Any) -> None:
        for item in batch:
            if item.text == "poison":
                raise StoreError("refused")
            if item.text == "surprise":
                raise TypeError("not serialisable")
        super().record(batch)


def test_a_record_that_the_store_refuses_poisons_no_other() -> None:
    store, metrics = _Picky(MemoryRollouts()), Metrics()
    recorder = Recorder(store, None, metrics)
    recorder.put([_item("a"), _item("poison"), _item("surprise"), _item("b")])
    recorder.start()
    assert recorder.flush()
    assert sorted(item.text or "" for item in store.recorded.values()) == ["a", "b"]
    assert _value(metrics, "perennial_recordings_dropped_total", {"why": "refused"}) == 2
    recorder.stop()


@pytest.mark.req("J26", "J103")
@pytest.mark.parametrize(("confidence", "kept"), [(0.41, False), (0.40, False), (0.39, True), (0.0, True)])
def test_unsure_answers_go_to_the_buffer_without_a_label_once(world: World, confidence: float, kept: bool) -> None:
    world.champion("1.0.0", topic=Fixed("sports", confidence))
    for text in ("An  unsure text", "an unsure TEXT", "an unsure text"):
        world.gateway.predict("scout", "topic", [text])
    world.recorder.flush()
    examples = list(world.sink.examples.values())
    assert len(examples) == (1 if kept else 0)
    if kept:
        (example,) = examples
        assert example.expected_output is None
        assert (example.predicted_output, example.source) == ("sports", Source.GATEWAY)
        assert example.uncertainty == pytest.approx(1 - confidence)


def test_only_the_newest_texts_are_kept(world: World) -> None:
    world.champion("1.0.0")
    for start in range(0, 1500, 100):
        world.gateway.predict("scout", "topic", [f"text {number}" for number in range(start, start + 100)])
        world.recorder.flush()
    assert len(world.rollouts.inputs) <= 600
    assert world.rollouts.recent_inputs("scout", 1)[0].text == "text 1499"


def test_a_slow_detector_costs_texts_and_neither_recordings_nor_the_processor() -> None:
    rollouts, looked = MemoryRollouts(), list[str]()
    store = MemoryServing(rollouts)

    def slow(text: str) -> str:
        looked.append(text)
        time.sleep(1.2 * CLEAN_SECONDS)
        return f"clean {text}"

    recorder = Recorder(store, None, Metrics(), clean=slow)
    items = [_item(f"text {number}") for number in range(400)]
    items[3] = replace(items[3], answer=replace(items[3].answer, agent="rare"))
    recorder.put(items)
    recorder.start()
    assert recorder.flush()
    assert set(store.recorded) == {item.answer.prediction_id for item in items}
    # what scout may use by itself, what all may use, and what the rare one may use
    assert looked == ["text 399", "text 398", "text 3"]
    assert [one.text for one in rollouts.recent_inputs("scout", 10)] == ["clean text 399", "clean text 398"]
    assert [one.text for one in rollouts.recent_inputs("rare", 10)] == ["clean text 3"]
    recorder.stop()


def test_no_text_reaches_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(tmp_path)
    model = Fixed("sports", 0.1)
    world.champion("1.0.0", topic=model)
    world.gateway.predict("scout", "topic", ["Ana Petrova wrote this"])
    model.raises = RuntimeError
    world.candidate("1.0.1", weight=0.5, topic=model)
    for number in range(20):
        with pytest.raises(ModelFailed) as caught:
            world.gateway.predict("scout", "topic", [f"Ana Petrova wrote {number}"])
        assert "Petrova" not in str(caught.value)
    world.store.away = True
    world.recorder.stop(0.1)
    assert "Petrova" not in caplog.text
    world.close()


def test_the_buffers_outage_keeps_examples_too() -> None:
    store, sink, metrics = MemoryServing(MemoryRollouts()), Sink(), Metrics()
    sink.away = True
    recorder = Recorder(store, sink, metrics)
    recorder.start()
    example = Example(agent="scout", task="topic", input_text="t", expected_output=None, uncertainty=0.9)
    recorder.put([_item()], [(b"d", example)])
    time.sleep(0.3)
    sink.away = False
    assert recorder.flush()
    assert list(sink.examples.values()) == [example]
    recorder.stop()
