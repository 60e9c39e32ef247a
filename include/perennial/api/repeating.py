"""Something that is done every few seconds beside the requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from perennial.errors import PerennialError

logger = logging.getLogger(__name__)


class Repeating:
    """Calls ``work`` at once and then every ``seconds``, in a thread of the data plane; a failure is logged once per
    cause."""

    def __init__(self, name: str, work: Callable[[], Any], *, seconds: float) -> None:
        self._name, self._work, self._seconds = name, work, seconds
        self._stopped = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present call, which is waited for up to five seconds."""
        self._stopped.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._work()
                self._said = ""
            except Exception as error:  # noqa: BLE001 - the next round may go well; the data plane must not end with one
                text = str(error) if isinstance(error, PerennialError) else type(error).__name__
                if text != self._said:
                    logger.warning("%s failed and is tried again: %s", self._name, text)
                self._said = text
            self._stopped.wait(self._seconds)
