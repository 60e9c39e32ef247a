"""Rollbacks that were ordered while the store was away, kept until they can be written."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Serve ``version`` again. ``epoch`` is that of the serving row it was given against: a newer row overtakes it."""

    agent: str
    version: str
    epoch: int
    actor: str
    reason: str


class Orders:
    """At most one order per agent, in a file when ``path`` is given, so that a restart does not forget a rollback."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._orders: dict[str, Order] = {}
        if path is not None and path.is_file():
            for item in json.loads(path.read_text(encoding="utf-8")):
                self._orders[item["agent"]] = Order(**item)

    def get(self, agent: str) -> Order | None:
        """The order that waits for an agent."""
        return self._orders.get(agent)

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
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
            aside.write_text(json.dumps([asdict(order) for order in orders.values()]), encoding="utf-8")
            os.replace(aside, self._path)
        self._orders = orders
