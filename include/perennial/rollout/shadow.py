"""Shadow: the candidate answers recorded requests beside the champion, unseen by any caller, inside a rollout task."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from time import perf_counter
from typing import Any

from perennial.domain.model import Prediction, Predictor
from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import RolloutAction
from perennial.rollout.agreement import agrees
from perennial.rollout.machine import Plan
from perennial.rollout.rows import RecentInput
from perennial.rollout.verdict import slower

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowReport:
    """What a replay showed. ``agreement`` is None when nothing could be compared; latencies are medians in
    milliseconds."""

    requests: int
    errors: int
    agreement: float | None
    champion_ms: float | None
    candidate_ms: float | None
    changed: Mapping[str, int] = field(default_factory=dict)  # "task: champion's answer -> candidate's": how often

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON for the look; labels and counts, never texts."""
        return {
            "requests": self.requests, "errors": self.errors, "agreement": self.agreement,
            "champion_ms": self.champion_ms, "candidate_ms": self.candidate_ms, "changed": dict(self.changed),
        }  # fmt: skip

    def verdict(self, plan: Plan) -> RolloutVerdict:
        """Rollback when it fails or is much slower; hold when nothing was replayed; else promote to the first step.

        Disagreement alone is no fault, a retrained model is meant to differ: the canary demands outcomes when it is
        strange.
        """
        evidence = self.as_dict()
        if not self.requests:
            return RolloutVerdict(action=RolloutAction.HOLD, reason="no recorded request to replay", evidence=evidence)
        if self.errors / self.requests > plan.max_error_rate:
            reason = f"shadow: {self.errors} of {self.requests} replayed requests failed"
            return RolloutVerdict(action=RolloutAction.ROLLBACK, reason=reason, evidence=evidence)
        before, now = self.champion_ms, self.candidate_ms
        measured = before is not None and now is not None and self.requests >= plan.min_samples
        if measured and slower(plan, before or 0.0, now or 0.0):
            reason = f"shadow: median latency {now:.0f} ms, the champion's {before:.0f}"
            return RolloutVerdict(action=RolloutAction.ROLLBACK, reason=reason, evidence=evidence)
        share = "none of the answers could be compared" if self.agreement is None else f"{self.agreement:.0%} agree"
        reason = f"shadow: {self.requests} requests replayed, {share}"
        return RolloutVerdict(action=RolloutAction.PROMOTE, reason=reason, evidence=evidence)


def compare(
    champion: Mapping[str, Predictor], candidate: Mapping[str, Predictor], inputs: Sequence[RecentInput]
) -> ShadowReport:
    """Let both answer each request of a task that the champion knows, one by one and in turn, as live requests come.

    A failure of the candidate counts against it; one of the champion leaves that request out.
    """
    times: dict[str, list[float]] = {"champion": [], "candidate": []}
    same, compared, errors, requests = 0, 0, 0, 0
    changed: Counter[str] = Counter()
    for item in inputs:
        known = champion.get(item.task)
        before = None if known is None else _timed(known, item.text, times["champion"])
        if before is None:
            continue
        requests += 1
        other = candidate.get(item.task)
        now = None if other is None else _timed(other, item.text, times["candidate"])
        if now is None:
            errors += 1
            continue
        compared += 1
        if agrees(before.output, now.output):
            same += 1
        else:
            changed[f"{item.task}: {_short(before.output)} -> {_short(now.output)}"] += 1
    return ShadowReport(
        requests=requests, errors=errors, agreement=round(same / compared, 4) if compared else None,
        champion_ms=_median(times["champion"]), candidate_ms=_median(times["candidate"]),
        changed=dict(changed.most_common(20)),
    )  # fmt: skip


def _timed(predictor: Predictor, text: str, times: list[float]) -> Prediction | None:
    began = perf_counter()
    try:
        (answer,) = predictor.predict([text])
    except Exception as error:  # noqa: BLE001 - a candidate may fail in any way; that is what the shadow is to find out
        logger.info("a replayed request failed: %s", type(error).__name__)
        return None
    if not isfinite(answer.confidence):
        return None
    times.append((perf_counter() - began) * 1000)
    return answer


def _median(values: list[float]) -> float | None:
    return round(median(values), 3) if values else None


def _short(output: Any) -> str:
    return f"{output:.1f}" if isinstance(output, float) else str(output)[:40]
