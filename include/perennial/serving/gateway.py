"""The gateway: keeps the wanted versions loaded, answers from them, and swaps them without a failed request.

Requests read one immutable snapshot and keep the objects that they found, so a swap never disturbs them and nothing
on the request path takes a lock or asks the database. A background thread follows the serving rows (a notification
wakes it, and it looks once a second anyway); loads run in threads of their own, so a slow one does not delay another
agent's rollback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from perennial.domain.model import Prediction
from perennial.domain.words import JSON, Arm, TaskKind
from perennial.errors import InvalidExample, RolloutError, StoreError, UnknownAgent
from perennial.ingest.checks import text_of
from perennial.rollout.rows import Answered, GatewayRow, ServingRow
from perennial.rollout.store import REFUSED
from perennial.serving.batching import lost_to_others
from perennial.serving.errors import ModelFailed, NotServing
from perennial.serving.faults import Faults
from perennial.serving.feedback import digest_of, unlabelled
from perennial.serving.metrics import Metrics
from perennial.serving.models import (
    BundleSource,
    ComponentLoader,
    LoadedModel,
    LoadFailure,
    failure_of,
    load_model,
)
from perennial.serving.orders import Order, Orders
from perennial.serving.recorder import Recorder
from perennial.serving.router import arm_for
from perennial.serving.store import Recorded, ServingStore, TaskInfo, Wanted

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
BEAT_SECONDS = 2.0
RETRY_SECONDS = 3.0  # a load that failed because something was away
RETRY_REFUSED_SECONDS = 30.0  # a refused bundle may have been repaired; a kept rollback may be carried out by then
_LOADERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a caller gets for one input. ``confidence`` lies in [0, 1]."""

    prediction_id: UUID
    output: JSON
    confidence: float
    version: str
    arm: Arm

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "prediction_id": str(self.prediction_id), "output": self.output, "confidence": self.confidence,
            "version": self.version, "arm": self.arm.value,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One agent's snapshot: what really answers now, whatever is wanted."""

    row: ServingRow
    tasks: Mapping[str, TaskInfo] = field(default_factory=dict)
    champion: LoadedModel | None = None
    previous: LoadedModel | None = None
    candidate: LoadedModel | None = None
    failures: tuple[LoadFailure, ...] = ()

    @property
    def weight(self) -> float:
        """The candidate's share; nothing goes to a candidate that is not loaded, everything to a first version. A
        champion that is not loaded gives away none of its keys: nobody may have judged the candidate yet."""
        if self.candidate is None:
            return 0.0
        return self.row.weight if self.row.champion is not None else 1.0

    @property
    def error(self) -> str | None:
        """What is wrong, a line per version; refused bundles are named so (rollouts read this)."""
        lines = [
            f"{item.version} {REFUSED if item.final else 'cannot be loaded yet'}: {item.reason}"
            for item in self.failures
        ]
        return "\n".join(lines) or None

    def beat(self, instance: str) -> GatewayRow:
        """The heartbeat row of this snapshot."""
        return GatewayRow(
            instance=instance, agent=self.row.agent, champion=_version(self.champion), previous=_version(self.previous),
            candidate=_version(self.candidate), weight=self.weight, epoch=self.row.epoch, error=self.error,
        )  # fmt: skip


class Gateway:
    """Serves every agent of the fleet in one process. ``instance`` names it in ``gateways`` and must be stable over
    restarts.

    ``carry_out`` writes a rollback that was ordered while the store was away; see ``roll_back_here``.
    """

    def __init__(
        self, *, store: ServingStore, source: BundleSource, loader: ComponentLoader, recorder: Recorder,
        metrics: Metrics, instance: str, faults: Faults | None = None, orders: Orders | None = None,
        carry_out: Callable[[Order], None] | None = None,
    ) -> None:  # fmt: skip
        self._store, self._source, self._loader = store, source, loader
        self._recorder, self._metrics = recorder, metrics
        self.instance, self.faults = instance, faults or Faults()
        self._orders, self._carry_out = orders or Orders(), carry_out
        self._carry_again: dict[str, float] = {}  # when an agent's order that failed is tried again
        self._served: Mapping[str, Served] = {}
        self._wanted: list[Wanted] | None = None  # until the store was read
        self._looked = False  # whether what is served follows what was read
        self._models: dict[tuple[str, str], LoadedModel] = {}
        self._loading: dict[tuple[str, str], Future[LoadedModel]] = {}
        self._failed: dict[tuple[str, str], tuple[LoadFailure, float]] = {}
        self._reading, self._applying = threading.Lock(), threading.Lock()
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._beaten = -BEAT_SECONDS
        self._store_up = False
        self._pool = ThreadPoolExecutor(_LOADERS, thread_name_prefix="gateway-load")
        self._thread = threading.Thread(target=self._run, name="gateway-refresh", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load what is wanted and follow it from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End the threads; requests that run keep their models until they are answered."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(3.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """Look at the serving rows now; called by the listener of notifications, from any thread."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.refresh()
            except Exception:
                # the thread that swaps must outlive every surprise: without it a rollback would reach nobody
                logger.exception("the gateway could not follow the serving rows; it tries again")
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    # -- answering -----------------------------------------------------------------------------------------------------

    def predict(self, agent: str, task: str, inputs: Sequence[str], key: str | None = None) -> list[Answer]:
        """Answer each input, in order. One key meets one arm; without a key each text is its own.

        A candidate that fails is recorded and the champion answers instead. Raises UnknownAgent, InvalidExample (task,
        inputs), NotServing when no model is loaded or the store was not read yet, ModelFailed when the champion fails.
        """
        served = self._known(agent)
        info = _task(served, task)
        for text in inputs:
            text_of(text, "inputs", info.max_length)
        arms: dict[Arm, list[int]] = {}
        for index, text in enumerate(inputs):
            arms.setdefault(_arm(served, info.task, text if key is None else key), []).append(index)
        answers: dict[int, Answer] = {}
        for arm, places in arms.items():
            found = self._ask(served, arm, info.task, [inputs[place] for place in places])
            answers.update(zip(places, found, strict=True))
        return [answers[index] for index in range(len(inputs))]

    def _known(self, agent: str) -> Served:
        looked, served = self._looked, self._served.get(agent)  # in this order: who looked has filled what is served
        if served is not None:
            return served
        if not looked:
            raise NotServing("the gateway has not read yet what it serves; ask again, and see that PostgreSQL is there")
        raise UnknownAgent(agent, list(self._served))

    def _ask(self, served: Served, arm: Arm, task: str, texts: Sequence[str]) -> list[Answer]:
        model = served.candidate if arm is Arm.CANDIDATE else served.champion
        # a task that neither knows is no failure of the candidate; one that the champion knows is
        knows = any(one is not None and task in one.predictors for one in (model, served.champion))
        if model is None or not knows:
            what = f" ({served.error})" if served.error else ""
            raise NotServing(f"{served.row.agent} has no model that answers {task} yet{what}; see /v1/agents")
        began = time.perf_counter()
        lost_to_others()  # what an earlier request of this thread lost
        try:
            self.faults.before(model.agent, model.version)
            found = self.faults.after(model.agent, model.version, model.answer(task, texts))
        except ModelFailed as error:
            cause = type(error.__cause__ or error).__name__
            self._record(model, arm, task, texts, None, began, cause)
            if arm is Arm.CANDIDATE and served.champion is not None:
                logger.warning("%s; the champion answers instead", error)
                return self._ask(served, Arm.CHAMPION, task, texts)
            raise
        return self._record(model, arm, task, texts, found, began, None)

    def _record(
        self, model: LoadedModel, arm: Arm, task: str, texts: Sequence[str], found: Sequence[Prediction] | None,
        began: float, error: str | None,
    ) -> list[Answer]:  # fmt: skip
        each = (time.perf_counter() - began) / len(texts)
        own = max(0.0, each - lost_to_others() / len(texts))
        items: list[Recorded] = []
        unsure = []
        for place, text in enumerate(texts):
            prediction = found[place] if found is not None else None
            answered = Answered(
                prediction_id=uuid4(), agent=model.agent, task=task, version=model.version, arm=arm,
                input_digest=digest_of(model.agent, task, text), latency_ms=own * 1000, error=error,
                output=None if prediction is None else prediction.output,
                confidence=None if prediction is None else prediction.confidence,
            )  # fmt: skip
            items.append(Recorded(answer=answered, text=text if error is None else None))
            candidate = unlabelled(answered, text)
            unsure += [candidate] if candidate is not None else []
        self._recorder.put(items, unsure)
        counter = self._metrics.answers if error is None else self._metrics.failures
        counter.labels(model.agent, task, arm.value).inc(len(texts))
        self._metrics.seconds.labels(model.agent, arm.value).observe(each)
        return [
            Answer(
                prediction_id=item.answer.prediction_id, output=item.answer.output, version=model.version, arm=arm,
                confidence=item.answer.confidence or 0.0,
            )
            for item in items
        ]  # fmt: skip

    def knows(self, agent: str) -> bool:
        """Whether the agent is one of the fleet."""
        return agent in self._served

    def task_of(self, agent: str, task: str) -> TaskInfo:
        """The task as it is served; a classification without a holdout when the fleet no longer knows it."""
        served = self._served.get(agent)
        info = served.tasks.get(task) if served is not None else None
        return info or TaskInfo(task=task, kind=TaskKind.CLASSIFICATION, max_length=0)

    # -- following -----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what is wanted, start loads, swap what is ready, and say so. Never waits for a load."""
        with self._reading:
            self._read_wanted()
        changed = self._apply()
        self._beat(changed=changed)

    def _read_wanted(self) -> None:
        try:
            self._wanted = self._store.wanted()
            self._follow_orders()
            self._set_store(up=True)
        except StoreError as error:
            self._set_store(up=False, why=str(error))

    def _apply(self) -> bool:
        """Make the snapshots agree with what is wanted, as far as it is loaded. Asks no store, so a lost one delays
        nothing."""
        with self._applying:
            for key, future in list(self._loading.items()):
                if future.done():
                    self._take(key, self._loading.pop(key))
            read = self._wanted
            wanted = [self._with_order(item) for item in read or ()]
            for item in wanted:
                self._load_missing(item.row)
            before = self._served
            after = {item.row.agent: self._snapshot(item, before.get(item.row.agent)) for item in wanted}
            self._served = after
            self._looked = read is not None
            self._forget(after)
            changed = [agent for agent, served in after.items() if served != before.get(agent)]
            for agent in changed:
                self._tell_change(before.get(agent), after[agent])
            return bool(changed)

    def _set_store(self, *, up: bool, why: str = "") -> None:
        if self._store_up and not up:
            logger.warning("the gateway goes on with what it has loaded: %s", why)
        self._store_up = up
        self._metrics.store_up.set(1 if up else 0)

    def _load_missing(self, row: ServingRow) -> None:
        for version in (row.champion, row.candidate, row.previous):
            key = (row.agent, version or "")
            if version is None or key in self._models or key in self._loading:
                continue
            if key in self._failed and self._failed[key][1] > time.monotonic():
                continue
            if self._stopped.is_set():
                return
            future = self._pool.submit(load_model, self._source, self._loader, row.agent, version)
            self._loading[key] = future
            future.add_done_callback(lambda _: self.wake())

    def _take(self, key: tuple[str, str], future: Future[LoadedModel]) -> None:
        error = future.exception()
        if error is None:
            self._models[key] = future.result()
            self._failed.pop(key, None)
            return
        failure = failure_of(key[1], error)
        if key not in self._failed:
            self._metrics.refused.labels(key[0]).inc()
            logger.error("%s %s is not loaded: %s", *key, failure.reason)
        wait = RETRY_REFUSED_SECONDS if failure.final else RETRY_SECONDS
        self._failed[key] = (failure, time.monotonic() + wait)

    def _snapshot(self, item: Wanted, before: Served | None) -> Served:
        row = item.row
        versions = [version for version in (row.champion, row.previous, row.candidate) if version is not None]
        loaded = {version: self._models.get((row.agent, version)) for version in versions}
        champion = loaded.get(row.champion or "")
        if champion is None and row.champion is not None:
            # what served goes on until the wanted one is ready; a fresh process falls back to the former champion
            champion = (before.champion if before is not None else None) or loaded.get(row.previous or "")
        return Served(
            row=row, tasks=item.tasks, champion=champion, previous=loaded.get(row.previous or ""),
            candidate=loaded.get(row.candidate or ""),
            failures=tuple(
                self._failed[row.agent, version][0] for version in versions if (row.agent, version) in self._failed
            ),
        )  # fmt: skip

    def _forget(self, served: Mapping[str, Served]) -> None:
        used = {
            (item.row.agent, version)
            for item in served.values()
            for version in (
                item.row.champion, item.row.previous, item.row.candidate, _version(item.champion),
            )
            if version is not None
        }  # fmt: skip
        for key in [key for key in self._models if key not in used]:
            del self._models[key]
        for key in [key for key in self._failed if key not in used]:
            del self._failed[key]

    def _tell_change(self, before: Served | None, after: Served) -> None:
        agent = after.row.agent
        self._metrics.weight.labels(agent).set(after.weight)
        if before is None or before.champion is not after.champion or before.candidate is not after.candidate:
            self._metrics.swaps.labels(agent).inc()
            logger.info(
                "%s: champion %s, candidate %s at %.0f %%", agent, _version(after.champion),
                _version(after.candidate), after.weight * 100,
            )  # fmt: skip

    def _beat(self, *, changed: bool) -> None:
        now = time.monotonic()
        if not changed and now - self._beaten < BEAT_SECONDS:
            return
        try:
            self._store.heartbeat([served.beat(self.instance) for served in self._served.values()])
            self._beaten = now
        except StoreError as error:
            self._set_store(up=False, why=str(error))

    # -- rollback without the store ------------------------------------------------------------------------------------

    def roll_back_here(self, agent: str, *, actor: str, reason: str) -> str:
        """Serve the former champion at once, without the store; for when PostgreSQL is away. Returns the version.

        It reaches this process alone. The order is kept (on disk when there is room, see ``order_is_kept``) and carried out for
        the whole fleet when the store is back, unless somebody changed the serving row meanwhile. Asked again while it holds, it
        answers the same. NotServing without a hot predecessor, and before the store was read.
        """
        served = self._known(agent)
        order = self._orders.get(agent)
        if order is not None and order.version == _version(served.champion):
            self._orders.put(order)  # it may not be on disk yet
            return order.version
        if served.previous is None:
            raise NotServing(f"{agent} has no former champion loaded; nothing can be put back without PostgreSQL")
        version = served.previous.version
        self._carry_again.pop(agent, None)
        self._orders.put(Order(agent=agent, version=version, epoch=served.row.epoch, actor=actor, reason=reason))
        self._apply()
        return version

    def order_is_kept(self, agent: str) -> bool:
        """Whether the rollback that was ordered here is on disk, and outlives a restart."""
        return self._orders.kept(agent)

    def orders_not_read(self) -> list[str]:
        """Names of files in which there may be rollbacks that this process could not read."""
        return [path.name for path in self._orders.unread()]

    def _with_order(self, item: Wanted) -> Wanted:
        order = self._orders.get(item.row.agent)
        if order is None or order.version == item.row.champion:
            return item
        row = replace(item.row, champion=order.version, previous=None, candidate=None, weight=0.0)
        return replace(item, row=row)

    def _follow_orders(self) -> None:
        for order in self._orders.all():
            row = next((item.row for item in self._wanted or () if item.row.agent == order.agent), None)
            if row is None or row.epoch != order.epoch or row.champion == order.version:
                logger.warning("the rollback of %s to %s is overtaken by a newer change", order.agent, order.version)
                self._orders.drop(order.agent)
                continue
            if self._carry_out is None or self._carry_again.get(order.agent, 0.0) > time.monotonic():
                continue
            try:
                self._carry_out(order)
                logger.warning("%s was rolled back to %s for the whole fleet", order.agent, order.version)
            except StoreError:
                raise
            except RolloutError as error:
                logger.error("the rollback of %s could not be carried out: %s", order.agent, error)
            except Exception as error:  # noqa: BLE001 - the order stays with what serves here, and no other change waits for it
                why = f"the rollback of {order.agent} to {order.version} holds here and not yet for the whole fleet"
                logger.error("%s (%s); it is tried again", why, type(error).__name__)
                self._carry_again[order.agent] = time.monotonic() + RETRY_REFUSED_SECONDS
                continue
            self._orders.drop(order.agent)
            self._wanted = self._store.wanted()

    # -- showing -------------------------------------------------------------------------------------------------------

    @property
    def store_up(self) -> bool:
        """Whether the store answered the last time."""
        return self._store_up

    def agents(self) -> dict[str, dict[str, Any]]:
        """What each agent is served with, for ``/v1/agents``."""
        return {agent: self._shown(served) for agent, served in sorted(self._served.items())}

    def errors(self) -> dict[str, str]:
        """What is wrong, by agent; empty when all is well."""
        return {agent: served.error for agent, served in sorted(self._served.items()) if served.error}

    def _shown(self, served: Served) -> dict[str, Any]:
        return {
            "champion": _version(served.champion), "previous": _version(served.previous),
            "candidate": _version(served.candidate), "weight": served.weight, "epoch": served.row.epoch,
            "wanted": {"champion": served.row.champion, "candidate": served.row.candidate},
            "tasks": sorted({info.task for info in served.tasks.values()}), "error": served.error,
            "rolled_back_here": self._orders.get(served.row.agent) is not None,
            "faults": [fault.as_dict() for fault in self.faults.listed(served.row.agent)],
        }  # fmt: skip


def _arm(served: Served, task: str, key: str) -> Arm:
    arm = arm_for(key, served.row.agent, served.weight)
    if arm is Arm.CHAMPION and served.candidate is not None and task in served.candidate.predictors:
        # a task that is new: only the candidate can answer. What its predecessor lacks, the wanted champion may know
        lacks = served.champion is None or task not in served.champion.predictors
        return Arm.CANDIDATE if lacks and _version(served.champion) == served.row.champion else Arm.CHAMPION
    return arm


def _task(served: Served, name: str) -> TaskInfo:
    info = served.tasks.get(name)
    if info is None:
        known = ", ".join(sorted(served.tasks)) or "none"
        raise InvalidExample("task", f"is not one of {served.row.agent}'s ({known})", "name one of these")
    return info


def _version(model: LoadedModel | None) -> str | None:
    return None if model is None else model.version
