"""Decisions as values: an action, the reason in a sentence, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perennial.domain.words import GateAction, RolloutAction


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one gate says about one candidate; ``evidence`` is plain JSON for the report."""

    gate: str
    action: GateAction
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutVerdict:
    """What one look at live traffic says."""

    action: RolloutAction
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
