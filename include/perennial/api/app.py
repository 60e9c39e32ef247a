"""The data plane's routes: thin, each hands its work to a lane and turns errors into answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perennial.api import body
from perennial.api.body import Reply
from perennial.api.guard import Guard
from perennial.api.intake import Taken
from perennial.api.lanes import Busy, Lane
from perennial.api.services import Services
from perennial.errors import (
    InvalidExample,
    NotConfigured,
    PerennialError,
    RolloutError,
    StoreUnavailable,
    UnknownAgent,
)
from perennial.flows.quiet import place_of
from perennial.guard.said import said
from perennial.serving.errors import ModelFailed, NotServing, Overloaded
from perennial.serving.faults import Fault, FaultKind
from perennial.serving.feedback import OutcomeResult
from perennial.settings import DataPlanePart

logger = logging.getLogger(__name__)

_INGEST = frozenset({"/v1/examples", "/v1/feedback", "/v1/corrections", "/v1/reports"})
_GATEWAY = frozenset({"/v1/predict", "/v1/outcomes", "/v1/rollback", "/v1/faults", "/v1/agents"})
# what a process does not serve because another one does
_ELSEWHERE: dict[DataPlanePart, frozenset[str]] = {
    DataPlanePart.BOTH: frozenset(), DataPlanePart.INGEST: _GATEWAY, DataPlanePart.GATEWAY: _INGEST,
}  # fmt: skip

_SMALL = 64 * 1024  # bytes of a body that are read in the event loop: less than a millisecond

Handler = Callable[[Request], Awaitable[Response]]

# the first that fits decides
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownAgent, 404), (InvalidExample, 422), (NotServing, 503), (ModelFailed, 503), (StoreUnavailable, 503),
    (Busy, 429), (Overloaded, 429), (NotConfigured, 403), (RolloutError, 409), (PerennialError, 500),
)  # fmt: skip


def create_app(services: Services) -> Starlette:
    """The ASGI app of one data plane process; everything it needs is handed in."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for part in services.parts:
                await to_thread.run_sync(part.start)
                stack.push_async_callback(to_thread.run_sync, part.stop)
            yield

    plane = _Plane(services)
    routes: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/predict", plane.predict), ("POST", "/v1/outcomes", plane.outcomes),
        ("POST", "/v1/examples", plane.examples), ("POST", "/v1/feedback", plane.feedback),
        ("POST", "/v1/corrections", plane.corrections), ("POST", "/v1/rollback", plane.rollback),
        ("POST", "/v1/reports", plane.reports),
        ("POST", "/v1/faults", plane.faults), ("GET", "/v1/agents", plane.agents),
        ("GET", "/healthz", plane.health), ("GET", "/metrics", plane.metrics),
    ]  # fmt: skip
    elsewhere = _ELSEWHERE[services.serves]
    guard = Middleware(
        Guard, token=services.limits.token, max_body=services.limits.max_body, full=plane.full, shed=plane.shed,
        reading=services.limits.reading,
    )  # fmt: skip
    return Starlette(
        routes=[
            Route(path, plane.answering(path, handler), methods=[method])
            for method, path, handler in routes
            if path not in elsewhere
        ],
        lifespan=lifespan, middleware=[guard], exception_handlers={HTTPException: _not_here},
    )  # fmt: skip


async def _not_here(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "there is no such route; see /v1/agents", 405: "this route knows another method"}
    return Reply({"error": words.get(status, "the request cannot be answered")}, status_code=status)


class _Plane:
    """The handlers; each agent and the store have lanes of their own, so that a slow store delays no answer, and a slow
    model none of another agent."""

    def __init__(self, services: Services) -> None:
        self._services = services
        limits = services.limits
        self._agents: dict[str, Lane] = {}
        self._store = Lane(threads=limits.store_threads, waiting=limits.waiting)
        # whoever puts a bad model back must not stand in the line of a flood of examples
        self._orders = Lane(threads=1, waiting=8)
        # large bodies of predictions, whose agent is known when they are read: what waits here is whole in memory
        self._parses = Lane(threads=2, waiting=limits.reading)
        self._lanes = {"/v1/outcomes": self._store} | dict.fromkeys(_INGEST, self._store)

    def full(self, path: str) -> bool:
        """Whether the line for the work of this path is full; a path without a line never is, and which line a prediction has is
        only known when its body was read."""
        lane = self._lanes.get(path)
        return lane is not None and lane.full

    def shed(self, path: str) -> None:
        """Count a request that was refused before its body was read."""
        # a caller must not choose the names of our numbers
        known = path if path in self._lanes or path in _GATEWAY else "other"
        self._services.metrics.requests.labels(known, "429").inc()

    def answering(self, path: str, handler: Handler) -> Handler:
        """The handler with every error turned into an answer that names no value and no secret."""

        async def answered(request: Request) -> Response:
            try:
                response = await handler(request)
            except Exception as error:  # noqa: BLE001 - no request may end without an answer
                response = _failure(error)
            self._services.metrics.requests.labels(path, str(response.status_code)).inc()
            return response

        return answered

    async def predict(self, request: Request) -> Response:
        """Answer texts."""
        raw = await request.body()
        # the lane depends on the agent, so a body is read first: a usual one here, a large one where it holds up nobody
        value = body.parse(raw) if len(raw) <= _SMALL else await self._parses.run(lambda: body.parse(raw))
        asked = body.record(value)
        return await self._lane(body.name(asked, "agent")).run(lambda: self._predict(asked))

    def _lane(self, agent: str) -> Lane:
        if agent not in self._agents:
            limits = self._services.limits
            lane = Lane(threads=limits.predict_threads, waiting=limits.waiting)
            if not self._services.gateway.knows(agent):
                return lane  # used once, to say so: names that callers make up are not kept
            self._agents[agent] = lane
        return self._agents[agent]

    def _predict(self, asked: Mapping[str, Any]) -> Response:
        answers = self._services.gateway.predict(
            body.name(asked, "agent"), body.name(asked, "task"),
            body.inputs_of(asked, most=self._services.limits.max_inputs), body.key_of(asked),
        )  # fmt: skip
        return Reply({"predictions": [answer.as_dict() for answer in answers]})

    async def outcomes(self, request: Request) -> Response:
        """Take what was true."""
        raw = await request.body()
        return await self._store.run(lambda: self._outcomes(raw))

    def _outcomes(self, raw: bytes) -> Response:
        given, _ = body.records(body.parse(raw), "outcomes", most=self._services.limits.max_records)
        pairs = [
            (one.get("prediction_id"), one.get("actual")) if isinstance(one, dict) else (None, None) for one in given
        ]
        told = self._services.outcomes.tell(pairs, self._services.gateway.task_of)
        rejected = sum(item.result is OutcomeResult.REJECTED for item in told)
        results = [
            {key: value for key, value in {
                "index": index, "status": item.result.value, "correct": item.correct, "example": item.example or None,
                "field": item.field, "reason": item.reason,
            }.items() if value is not None}
            for index, item in enumerate(told)
        ]  # fmt: skip
        status = 200 if not rejected else 422 if rejected == len(told) else 207
        counts = {word.value: sum(item.result is word for item in told) for word in OutcomeResult}
        return Reply({**counts, "results": results}, status_code=status)

    async def examples(self, request: Request) -> Response:
        """Take examples."""
        return await self._take(request, "examples", self._services.intake.examples)

    async def feedback(self, request: Request) -> Response:
        """Take feedback on answers."""
        return await self._take(request, "feedback", self._services.intake.feedback)

    async def corrections(self, request: Request) -> Response:
        """Take corrections."""
        return await self._take(request, "corrections", self._services.intake.corrections)

    async def _take(self, request: Request, kind: str, take: Callable[[list[Any]], Taken]) -> Response:
        raw = await request.body()

        def work() -> Response:
            given, _ = body.records(body.parse(raw), kind, most=self._services.limits.max_records)
            taken = take(given)
            for item in taken.items:
                self._services.metrics.ingested.labels(kind, item.status.value).inc()
            return Reply(taken.as_dict(), status_code=taken.status_code)

        return await self._store.run(work)

    async def reports(self, request: Request) -> Response:
        """Take what users report about answers."""
        raw = await request.body()

        def work() -> Response:
            given, _ = body.records(body.parse(raw), "reports", most=self._services.limits.max_records)
            told = self._services.reports.take(given)
            for item in told.items:
                self._services.metrics.ingested.labels("reports", item["status"]).inc()
            return Reply(told.as_dict(), status_code=told.status_code)

        return await self._store.run(work)

    async def rollback(self, request: Request) -> Response:
        """Serve the former champion again; without PostgreSQL in this process alone, and for all when it is back."""
        raw = await request.body()
        return await self._orders.run(lambda: self._rollback(raw))

    def _rollback(self, raw: bytes) -> Response:
        asked = body.record(body.parse(raw))
        agent, reason = body.name(asked, "agent"), said(body.note(asked, "reason", "asked for at the data plane"))
        actor = body.note(asked, "actor", "data-plane")
        version = body.name(asked, "version") if asked.get("version") is not None else None
        try:
            done = self._services.roll_back(agent, version=version, actor=actor, reason=reason)
        except StoreUnavailable:
            if version is not None:
                raise
            back = self._services.gateway.roll_back_here(agent, actor=actor, reason=reason)
            text = "PostgreSQL is away: this process serves it now, all others when PostgreSQL is back"
            if not self._services.gateway.order_is_kept(agent):
                text += "; its disk took no note, so a restart forgets it: make room there, and send this again"
            return Reply({"agent": agent, "to": back, "everywhere": False, "note": text}, status_code=202)
        self._services.gateway.wake()
        return Reply({**done, "everywhere": True})

    async def faults(self, request: Request) -> Response:
        """Plant a fault; for drills."""
        asked = body.record(body.parse(await request.body()))
        word, rate = body.name(asked, "kind"), asked.get("rate", 1.0)
        if word not in set(FaultKind):
            raise InvalidExample("kind", "is not a fault", f"send one of {', '.join(FaultKind)}")
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise InvalidExample("rate", "is not a number", "send the share of answers to spoil")
        # as it is: a whole number may be too large for a float
        fault = Fault(
            agent=body.name(asked, "agent"), version=body.name(asked, "version"), kind=FaultKind(word), rate=rate
        )
        self._services.gateway.faults.plant(fault)
        logger.warning("a fault was planted: %s", fault)
        return Reply({"planted": fault.as_dict()})

    async def agents(self, _: Request) -> Response:
        """What is served."""
        gateway = self._services.gateway
        return Reply(
            {"instance": gateway.instance, "store": "up" if gateway.store_up else "away",
             "drills": gateway.faults.enabled, "rollbacks_not_read": gateway.orders_not_read(), "agents": gateway.agents()}
        )  # fmt: skip

    async def health(self, _: Request) -> Response:
        """Whether the process lives; it does as long as it answers, with or without PostgreSQL."""
        gateway = self._services.gateway
        if (
            self._services.serves is DataPlanePart.INGEST
        ):  # it has no model; a store that is away is said by each answer
            return Reply({"status": "ok"})
        well = gateway.store_up and not gateway.errors() and not gateway.orders_not_read()
        # anybody may ask this, so it names nothing; /v1/agents tells the reasons
        return Reply({"status": "ok" if well else "degraded", "store": "up" if gateway.store_up else "away"})

    async def metrics(self, _: Request) -> Response:
        """Numbers for Prometheus."""
        return Response(self._services.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _failure(error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers = {"retry-after": "1" if status == 429 else "2"} if status in {429, 503} else {}
    if isinstance(error, InvalidExample):
        return Reply({"error": str(error), "field": error.field}, status_code=status, headers=headers)
    if isinstance(error, Busy):
        return Reply({"error": "too many requests wait; come again in a second"}, status_code=status, headers=headers)
    if isinstance(error, PerennialError):
        if status == 500:
            logger.error("a request failed: %s", error)
        return Reply({"error": str(error)}, status_code=status, headers=headers)
    logger.error("a request failed: %s", place_of(error))  # a stranger's text may hold what was sent
    return Reply({"error": f"the data plane failed ({type(error).__name__}); its log says where"}, status_code=500)
