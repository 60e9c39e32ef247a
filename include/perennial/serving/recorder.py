"""Writes down what was answered, behind the request: a bounded queue and one writer thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from perennial.domain.example import Example
from perennial.errors import StoreError, StoreUnavailable
from perennial.serving.allowance import Allowance
from perennial.serving.metrics import Metrics
from perennial.serving.store import Recorded, ServingStore

logger = logging.getLogger(__name__)

BATCH = 500
LINGER_SECONDS = 0.05  # lets a batch gather; also the longest time that an outcome of a just given answer must wait
CLEAN_SHARE = 0.05  # of the time, for cleaning the texts that are kept
AGENT_SHARE = 0.005  # of the time, for each agent before all: a busy one takes nothing from a rare one
CLEAN_SECONDS = 0.3  # of either that are saved up while nothing comes: some fifty texts
REMEMBERED = 20_000  # answers kept in memory, so that an outcome finds its answer before it is written
KEEP_INPUTS = 500  # texts per agent that stay for shadow replay and late outcomes
KEEP_HOURS = 24
PRUNE_EVERY = 100  # recorded answers of an agent


class ExampleSink(Protocol):
    """The buffer's door."""

    def add_many(self, examples: Sequence[Example]) -> Any:
        """Store durably; StoreUnavailable when nothing was stored."""
        ...


class Recorder:
    """Takes answers without ever making a request wait, and writes them in batches.

    Bounded: with PostgreSQL away ``capacity`` answers wait in memory, then the oldest are dropped and counted. ``stop``
    writes what waits, for ``drain_seconds`` at most. Texts go to ``recent_inputs`` alone, never to a log, and there as ``clean`` makes
    them, behind the request: None is not kept. In the memory of this process they stay as they came.
    """

    def __init__(
        self, store: ServingStore, sink: ExampleSink | None, metrics: Metrics, *, capacity: int = 10_000,
        clean: Callable[[str], str | None] = str,
    ) -> None:  # fmt: skip
        self._clean = clean
        self._all_agents = Allowance(share=CLEAN_SHARE, most=CLEAN_SECONDS, at=time.monotonic())
        self._agents: dict[str, Allowance] = {}
        self._store, self._sink, self._metrics = store, sink, metrics
        self._capacity = capacity
        self._waiting: deque[Recorded] = deque()
        self._examples: deque[Example] = deque()
        self._remembered: OrderedDict[UUID, Recorded] = OrderedDict()
        self._given: OrderedDict[bytes, None] = OrderedDict()  # inputs that already went to the buffer as unlabelled
        self._since_prune: dict[str, int] = {}
        self._guard = threading.Condition()
        self._busy = False
        self._stopping: float | None = None  # moment after which waiting answers are given up
        self._thread = threading.Thread(target=self._run, name="gateway-recorder", daemon=True)

    def start(self) -> None:
        """Start the writer thread of this process."""
        self._thread.start()

    def put(self, items: Sequence[Recorded], unlabelled: Sequence[tuple[bytes, Example]] = ()) -> None:
        """Take answers, and inputs that the model was unsure about (by input digest, each passed on once). Never
        waits."""
        with self._guard:
            for item in items:
                self._remembered[item.answer.prediction_id] = item
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
            self._waiting.extend(items)
            for digest, example in unlabelled:
                if self._sink is not None and digest not in self._given:
                    self._given[digest] = None
                    self._examples.append(example)
            while len(self._given) > REMEMBERED:
                self._given.popitem(last=False)
            self._drop(self._waiting, "full")
            self._drop(self._examples, "full")
            self._metrics.queue.set(len(self._waiting))
            self._guard.notify()

    def find(self, prediction_id: UUID) -> Recorded | None:
        """An answer of this process that it still remembers, written or not."""
        with self._guard:
            return self._remembered.get(prediction_id)

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until nothing waits; False when time was up."""
        deadline = time.monotonic() + seconds
        with self._guard:
            while self._waiting or self._examples or self._busy:
                self._guard.notify_all()
                if not self._guard.wait(min(0.05, max(0.0, deadline - time.monotonic()))) and (
                    time.monotonic() >= deadline
                ):
                    return False
        return True

    def stop(self, drain_seconds: float = 3.0) -> None:
        """Write what waits and end; what could not be written in time is counted as dropped."""
        with self._guard:
            self._stopping = time.monotonic() + drain_seconds
            self._guard.notify_all()
        if self._thread.is_alive():
            self._thread.join(drain_seconds + 2.5)

    def _run(self) -> None:
        while True:
            with self._guard:
                while not (self._waiting or self._examples or self._stopping is not None):
                    self._guard.wait()
                if self._stopping is None:
                    self._guard.wait_for(lambda: self._stopping is not None, LINGER_SECONDS)
                if not (self._waiting or self._examples):
                    if self._stopping is not None:
                        return
                    continue
                batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
                examples = [self._examples.popleft() for _ in range(min(BATCH, len(self._examples)))]
                self._busy = True
            self._write(self._cleaned(batch), self._store.record, "recording")
            if self._sink is not None:
                self._write(examples, self._sink.add_many, "example")
            self._prune(batch)
            with self._guard:
                self._busy = False
                self._metrics.queue.set(len(self._waiting))
                self._guard.notify_all()

    def _cleaned(self, batch: Sequence[Recorded]) -> list[Recorded]:
        """The batch with clean texts, the newest first, while their allowance lasts: a shadow replays the newest few hundred, and a
        detector at work takes the processor from answers. The others are recorded without a text."""
        done = [self._clean_one(item) for item in reversed(batch)]
        return done[::-1]

    def _clean_one(self, item: Recorded) -> Recorded:
        if item.text is None:
            return item
        began = time.monotonic()
        mine = self._agents.setdefault(item.answer.agent, Allowance(share=AGENT_SHARE, most=CLEAN_SECONDS, at=began))
        allowance = next((one for one in (mine, self._all_agents) if one.left(began) > 0.0), None)
        if allowance is None:
            return replace(item, text=None)
        try:
            return replace(item, text=self._clean(item.text))
        except Exception as error:  # noqa: BLE001 - the writer must outlive any text, and an error may quote it
            logger.warning("a recorded input is not kept: %s", type(error).__name__)
            return replace(item, text=None)
        finally:
            allowance.spend(time.monotonic() - began)

    def _write(self, items: list[Any], write: Callable[[Sequence[Any]], Any], what: str) -> None:
        """Write a batch: again while the store is away, one by one when the store refuses it, so that no item poisons
        others."""
        pause = 0.1
        while items:
            try:
                write(items)
                if what == "recording":
                    self._metrics.recorded.inc(len(items))
                return
            except StoreUnavailable as error:
                if self._given_up():
                    self._metrics.dropped.labels("stopped").inc(len(items))
                    logger.warning("%s %ss were not written before the end: %s", len(items), what, error)
                    return
                with self._guard:
                    self._guard.wait_for(self._given_up, pause)
                pause = min(2.0, 2 * pause)
            except Exception as error:  # noqa: BLE001 - the writer must outlive any record, and counts it
                if len(items) == 1:
                    self._metrics.dropped.labels("refused").inc()
                    logger.warning("the store refused one %s: %s", what, type(error).__name__)
                    return
                for item in items:
                    self._write([item], write, what)
                return

    def _given_up(self) -> bool:
        return self._stopping is not None and time.monotonic() >= self._stopping

    def _prune(self, batch: Sequence[Recorded]) -> None:
        for item in batch:
            self._since_prune[item.answer.agent] = self._since_prune.get(item.answer.agent, 0) + 1
        for agent, count in self._since_prune.items():
            if count < PRUNE_EVERY:
                continue
            self._since_prune[agent] = 0
            try:
                self._store.prune(agent, keep=KEEP_INPUTS, hours=KEEP_HOURS)
            except StoreError as error:
                logger.info("recent inputs of %s are pruned later: %s", agent, error)

    def _drop(self, queue: deque[Any], why: str) -> None:
        lost = len(queue) - self._capacity
        for _ in range(lost):
            queue.popleft()
        if lost > 0:
            self._metrics.dropped.labels(why).inc(lost)
