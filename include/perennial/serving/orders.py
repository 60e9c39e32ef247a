"""Rollbacks that were ordered while the store was away, kept until they can be written."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
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

    An order holds in this process even when the file cannot be written. Of a damaged file the orders that can be read
    hold; the file itself is set aside for a person, see ``unread``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._orders: dict[str, Order] = {}
        self._written = path is not None
        self._stuck: list[Path] = []
        if path is not None and path.is_file():
            self._take(path)

    def get(self, agent: str) -> Order | None:
        """The order that waits for an agent."""
        return self._orders.get(agent)

    def kept(self, agent: str) -> bool:
        """Whether an agent's order outlives a restart."""
        return self._written and agent in self._orders

    def all(self) -> list[Order]:
        """Every order that waits."""
        return list(self._orders.values())

    def unread(self) -> list[Path]:
        """Files in which there may be orders that nobody could read; a person looks and removes them."""
        aside = [] if self._path is None else sorted(self._path.parent.glob(f"{self._path.name}.unread-*"))
        return aside + self._stuck

    def put(self, order: Order) -> None:
        """Keep an order; it replaces an earlier one of the agent."""
        with self._guard:
            self._write({**self._orders, order.agent: order})

    def drop(self, agent: str) -> None:
        """Forget an agent's order."""
        with self._guard:
            self._write({name: order for name, order in self._orders.items() if name != agent})

    def _take(self, path: Path) -> None:
        try:
            orders, whole = _orders_of(path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            logger.error("%s could not be opened: %s", path, error)
            orders, whole = [], False
        self._orders = {order.agent: order for order in orders}
        if not whole:
            self._set_aside(path)

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(f"{path.name}.unread-{uuid4().hex[:8]}")
        try:
            os.replace(path, aside)
            if self._orders:
                self._write(self._orders)
        except OSError as error:
            aside = path
            self._stuck.append(path)
            logger.error("%s could not be set aside (%s)", path, error)
        logger.error(
            "%s could not be read whole: %s of its rollbacks hold here, others may be lost, and what they took back may serve again; "
            "see what /v1/agents says, roll back where need be, then remove %s", path, len(self._orders), aside,
        )  # fmt: skip

    def _write(self, orders: dict[str, Order]) -> None:
        self._orders = orders
        if self._path is None:
            return
        aside = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps([asdict(order) for order in orders.values()]), encoding="utf-8")
            with aside.open("rb") as written:
                os.fsync(written.fileno())  # a lost power supply must not leave an empty file under the name
            os.replace(aside, self._path)
            self._written = True
        except OSError as error:
            self._written = False
            # a full disk must not keep a bad model in service; an order that stays in the file is overtaken at the next start
            logger.error("the rollbacks that wait could not be written (%s); a restart goes by %s", error, self._path)
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)


def _orders_of(text: str) -> tuple[list[Order], bool]:
    """The orders that a file names, and whether that is all that it holds."""
    orders = [order for item in _objects(text) if (order := _order_of(item)) is not None]
    try:
        found = json.loads(text)
    except ValueError:
        return orders, False
    return orders, isinstance(found, list) and len(found) == len(orders)


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Every object that is whole, also where the text around it is not."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
            yield found
        except ValueError:
            end = at + 1
        at = text.find("{", end)


def _order_of(item: Mapping[str, Any]) -> Order | None:
    agent, version, epoch = item.get("agent"), item.get("version"), item.get("epoch")
    if not isinstance(agent, str) or not isinstance(version, str) or type(epoch) is not int:
        return None
    actor, reason = item.get("actor") or "data-plane", item.get("reason") or "ordered while PostgreSQL was away"
    return Order(agent=agent, version=version, epoch=epoch, actor=str(actor), reason=str(reason))
