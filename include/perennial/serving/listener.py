"""Wakes the gateway when a serving row changes: LISTEN on a connection of its own, opened again when it is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from perennial.rollout.store import CHANNEL

logger = logging.getLogger(__name__)

_SLICE_SECONDS = 0.5  # how long a stop may take
_RETRY_SECONDS = 1.0


class Listener:
    """A thread of the gateway's process that calls ``told`` after each notification and after each new connection.

    Only a speed-up: the gateway polls as well, so a lost notification costs a second.
    """

    def __init__(self, url: str, told: Callable[[], None]) -> None:
        self._url, self._told = url, told
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-listen", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End within about a second."""
        self._stopped.set()
        self._thread.join(2 * _SLICE_SECONDS)

    def _run(self) -> None:
        import psycopg

        while not self._stopped.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    self._told()
                    while not self._stopped.is_set():
                        if list(connection.notifies(timeout=_SLICE_SECONDS, stop_after=1)):
                            self._told()
            except psycopg.Error as error:
                # the class alone: the driver's text may name hosts and users
                logger.info("notifications are lost (%s); polling goes on", type(error).__name__)
                self._stopped.wait(_RETRY_SECONDS)
