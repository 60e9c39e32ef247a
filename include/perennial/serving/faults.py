"""Planted faults, for drills: they make one version of one agent answer wrong, fail or crawl. Off unless
PERENNIAL_FAULTS=1."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from perennial.domain.model import Prediction
from perennial.errors import InvalidExample, NotConfigured
from perennial.serving.errors import ModelFailed

SLOW_SECONDS = 0.3


class FaultKind(StrEnum):
    """What a planted fault does; ``none`` takes it away."""

    WRONG = "wrong"
    ERROR = "error"
    SLOW = "slow"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One planted fault; ``rate`` is the share of answers that it spoils."""

    agent: str
    version: str
    kind: FaultKind
    rate: float

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON for ``/v1/agents``."""
        return {"agent": self.agent, "version": self.version, "kind": self.kind.value, "rate": self.rate}


class Faults:
    """The faults of one gateway process; gone with it. Every answer says where it comes from, and ``/v1/agents``
    lists them."""

    def __init__(self, *, enabled: bool = False, seed: int = 0) -> None:
        self.enabled = enabled
        self._planted: dict[tuple[str, str], Fault] = {}
        self._random = random.Random(seed)

    def plant(self, fault: Fault) -> None:
        """Add, change or (kind ``none``) remove one. NotConfigured unless the process was started for drills."""
        if not self.enabled:
            raise NotConfigured("PERENNIAL_FAULTS", "set it to 1 on the gateway's process; it is for drills only")
        if not 0 <= fault.rate <= 1:
            raise InvalidExample("rate", "is not between 0 and 1", "send the share of answers to spoil")
        planted = dict(self._planted)
        planted.pop((fault.agent, fault.version), None)
        if fault.kind is not FaultKind.NONE:
            planted[fault.agent, fault.version] = fault
        self._planted = planted

    def listed(self, agent: str) -> list[Fault]:
        """What is planted for an agent."""
        return [fault for fault in self._planted.values() if fault.agent == agent]

    def before(self, agent: str, version: str) -> None:
        """Fail or crawl before the model is asked."""
        fault = self._planted.get((agent, version))
        if fault is None or fault.kind is FaultKind.WRONG or self._random.random() >= fault.rate:
            return
        if fault.kind is FaultKind.ERROR:
            raise ModelFailed(f"{agent} {version} failed (a planted fault)")
        time.sleep(SLOW_SECONDS)

    def after(self, agent: str, version: str, found: Sequence[Prediction]) -> list[Prediction]:
        """Spoil answers after the model gave them."""
        fault = self._planted.get((agent, version))
        if fault is None or fault.kind is not FaultKind.WRONG:
            return list(found)
        return [spoilt(item) if self._random.random() < fault.rate else item for item in found]


def spoilt(prediction: Prediction) -> Prediction:
    """A confidently wrong answer: the label with the lowest score, the opposite number.

    >>> spoilt(Prediction(output="a", confidence=0.9, scores={"a": 0.9, "b": 0.1})).output
    'b'
    """
    output = prediction.output
    if isinstance(output, int | float) and not isinstance(output, bool):
        return replace(prediction, output=0.0 if output >= 0.5 else 1.0)
    others = sorted((score, label) for label, score in prediction.scores.items() if label != output)
    return replace(prediction, output=others[0][1] if others else f"not {output}"[:200])
