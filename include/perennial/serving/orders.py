"""Rollbacks that were ordered while the store was away, kept until they can be written."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Serve ``version`` again. ``epoch`` is that of the serving row it was given against: a newer row overtakes it."""

    agent: str
    version: str
    epoch: int
    actor: str
    reason: str


class Orders:
    """At most one order per agent, in a file when ``path`` is given, so that a restart does not forget a rollback.

    An order holds in this process even when the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._orders: dict[str, Order] = {}
        self._written = path is not None
        if path is not None and path.is_file():
            for item in json.loads(path.read_text(encoding="utf-8")):
                self._orders[item["agent"]] = Order(**item)

    def get(self, agent: str) -> Order | None:
        """The order that waits for an agent."""
        return self._orders.get(agent)

    def kept(self, agent: str) -> bool:
        """Whether an agent's order outlives a restart."""
        return self._written and agent in self._orders

    def all(self) -> list[Order]:
        """Every order that waits."""
        return list(self._orders.values())

    def put(self, order: Order) -> None:
        """Keep an order; it replaces an earlier one of the agent."""
        with self._guard:
            self._write({**self._orders, order.agent: order})

    def drop(self, agent: str) -> None:
        """Forget an agent's order."""
        with self._guard:
            self._write({name: order for name, order in self._orders.items() if name != agent})

    def _write(self, orders: dict[str, Order]) -> None:
        self._orders = orders
        if self._path is None:
            return
        aside = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps([asdict(order) for order in orders.values()]), encoding="utf-8")
            os.replace(aside, self._path)
            self._written = True
        except OSError as error:
            self._written = False
            # a full disk must not keep a bad model in service; an order that stays in the file is overtaken at the next start
            logger.error("the rollbacks that wait could not be written (%s); a restart goes by %s", error, self._path)
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
