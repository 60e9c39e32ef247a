"""What live traffic says about a candidate: promote, hold or roll back, with the reason and the numbers.

Modelled on the analysis of Argo Rollouts (successful, failed, inconclusive; consecutive errors) and Flagger (no
metrics is a failure), with three differences: evidence stays valid however often one looks (``sequential``), quality
is judged on outcomes that arrive late, and watching goes on after 100 % (``judge_bake``).

No data is never a pass: the candidate stays where it is, and after ``max_hold_seconds`` the rollout is reverted, or the plan's
policy for too little traffic decides: a person is asked, or the offline evidence (gates, shadow replay) must carry it alone. The
reason and ``evidence["decided_on"]`` say on what it was decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, log, sqrt
from typing import Any

from perennial.domain.verdict import RolloutVerdict
from perennial.domain.words import RolloutAction, TooLittleTraffic
from perennial.rollout.machine import Plan
from perennial.rollout.sequential import (
    difference_evidence,
    difference_interval,
    rate_evidence,
    variance_of_mean,
    wilson,
)
from perennial.rollout.slices import Slices, fallen_slice

# Chance of reverting a sound candidate per kind of evidence (errors, quality, labels), however often one looks: three of them
# stay below 1 %. Less would cost time: simulated at 0.001, one bad rollout in ten took longer than two check intervals.
ALPHA = 0.003
SURE = 3.3  # standard errors: the champion's own error rate lies below that bound, but for 1 in 2,000
TRAILING_ERRORS = 5  # Argo Rollouts gives up after more than 4 errors in a row (consecutiveErrorLimit)
TAIL_ANSWERS = 100  # below this, the 95th percentile is a handful of answers
MIN_OUTCOMES = 10  # per arm; below, the normal approximation of the quality test does not hold
STRANGE_AGREEMENT = 0.2  # a candidate that contradicts the champion more than this must be proven by outcomes
_COUNTABLE = 2.0**53  # beyond it a float cannot tell neighbouring counts apart: such a number is a fault of the sender
OFFLINE_AGREEMENT = 0.8  # share of replayed requests answered as the champion did, for a decision without traffic


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmStats:
    """What one version did since some time. Latencies in milliseconds of answers without error; ``correct_sum`` adds
    1 or 0 per outcome (1 - |error| for scores).

    ``agreement`` is the share of replayed requests that it answered as the champion did (shadow); None: not measured.
    """

    answers: int  # errors included
    errors: int = 0
    trailing_errors: int = 0  # errors since the last good answer
    p50_ms: float | None = None
    p95_ms: float | None = None
    outcomes: int = 0
    correct_sum: float = 0.0
    agreement: float | None = None

    @property
    def quality(self) -> float | None:
        """Share of outcomes that it answered right; None without any."""
        return self.correct_sum / self.outcomes if self.outcomes else None

    @property
    def sound(self) -> bool:
        """Whether these numbers can be: finite, countable, and parts not larger than their wholes."""
        known = [value for value in asdict(self).values() if value is not None]
        return (
            all(isfinite(value) and 0 <= value <= _COUNTABLE for value in known)
            and max(self.errors, self.trailing_errors) <= self.answers
            and self.correct_sum <= self.outcomes + 1e-6
        )


NOTHING = ArmStats(answers=0)


@dataclass(frozen=True, slots=True)
class _Finding:
    action: RolloutAction
    reason: str
    lacks: bool = False  # held for want of data, not because anything looks wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What else is known beside the two arms' numbers: quality by label, people who reported, whether the gates passed."""

    champion: Slices = field(default_factory=dict)
    candidate: Slices = field(default_factory=dict)
    recent: Slices = field(default_factory=dict)  # the candidate's newest outcomes alone
    reporters: int = 0  # distinct, within the plan's window
    gates_passed: bool = False


ALONE = Beside()


def judge(
    plan: Plan, champion: ArmStats | None, candidate: ArmStats, *, elapsed: float, step_answers: int | None = None,
    beside: Beside = ALONE, patient: bool = False,
) -> RolloutVerdict:  # fmt: skip
    """Judge one canary step. Stats cover the rollout so far; ``elapsed`` seconds and ``step_answers`` this step alone.

    ``champion`` None: there is none to compare with. ``step_answers`` None: all answers count towards ``min_samples``.
    When patience ends for want of data alone, the plan's ``on_too_little_traffic`` decides. ``patient``: it does not end, for what
    waits for other reasons and is looked at for days; only decisive evidence reverts then.

    >>> good = ArmStats(answers=400, p50_ms=9, p95_ms=14, outcomes=200, correct_sum=170)
    >>> same = ArmStats(answers=30, p50_ms=9, p95_ms=15, outcomes=20, correct_sum=17)
    >>> fell = ArmStats(answers=60, p50_ms=9, p95_ms=14, outcomes=40, correct_sum=20)
    >>> judge(Plan(), good, same, elapsed=6).action.value
    'promote'
    >>> judge(Plan(), good, fell, elapsed=6).reason
    'right on 50.0% of 40 outcomes, the champion on 85.0% of 200'
    >>> judge(Plan(), good, NOTHING, elapsed=6).action.value, judge(Plan(), good, NOTHING, elapsed=601).action.value
    ('hold', 'rollback')
    """
    late = elapsed >= plan.max_hold_seconds and not patient
    evidence = _evidence(plan, champion, candidate, elapsed)
    findings = [
        *_broken_numbers(champion, candidate, elapsed),
        *(_findings(plan, champion, candidate, late=late) if _finite(champion, candidate, elapsed) else ()),
        *_told(plan, beside),
        *_labels_to_come(plan, champion, candidate, elapsed),
        *_patience(plan, candidate.answers if step_answers is None else step_answers, elapsed),
    ]
    verdict = _decide(findings, evidence, _well(champion, candidate))
    if verdict.action is RolloutAction.HOLD and late:
        only_lacks = all(one.lacks for one in findings if one.action is RolloutAction.HOLD)
        return _without_traffic(plan, candidate, verdict, gates_passed=beside.gates_passed, only_lacks=only_lacks)
    return verdict


def _well(champion: ArmStats | None, candidate: ArmStats) -> str:
    if champion is None:
        return "errors hold; there is no champion to compare with"
    if min(champion.outcomes, candidate.outcomes) >= MIN_OUTCOMES:
        return "errors, latency and quality hold"
    return "errors and latency hold; of quality the shadow replay alone tells, too few outcomes came"


def _without_traffic(
    plan: Plan, candidate: ArmStats, held: RolloutVerdict, *, gates_passed: bool, only_lacks: bool
) -> RolloutVerdict:
    """What patience that ended decides: anything that looks wrong reverts; mere want of data follows the plan's policy."""
    reason = f"no verdict in {plan.max_hold_seconds:.0f} s: {held.reason}"
    policy = plan.on_too_little_traffic if only_lacks else TooLittleTraffic.REVERT
    if policy is TooLittleTraffic.ASK:
        evidence = {**held.evidence, "decided_on": "nothing yet: too little traffic, a person is asked"}
        return RolloutVerdict(action=RolloutAction.ASK, reason=f"{reason}; a person decides", evidence=evidence)
    if policy is TooLittleTraffic.REVERT:
        evidence = {**held.evidence, "decided_on": "the end of patience"}
        return RolloutVerdict(action=RolloutAction.ROLLBACK, reason=reason, evidence=evidence)
    agreed = candidate.agreement
    shown = "no shadow replay" if agreed is None else f"shadow replay agreed on {agreed:.0%}"
    evidence = {
        **held.evidence,
        "decided_on": f"offline evidence: gates {'passed' if gates_passed else 'not passed'}, {shown}",
    }
    if gates_passed and agreed is not None and agreed >= OFFLINE_AGREEMENT:
        text = f"{reason}; decided on offline evidence: gates passed, {shown}"
        return RolloutVerdict(action=RolloutAction.PROMOTE, reason=text, evidence=evidence)
    lacking = shown if gates_passed else "no passed gate report"
    text = f"{reason}; offline evidence does not carry it: {lacking} ({OFFLINE_AGREEMENT:.0%} asked for)"
    return RolloutVerdict(action=RolloutAction.ROLLBACK, reason=text, evidence=evidence)


def judge_bake(
    plan: Plan, previous: ArmStats | None, now: ArmStats, *, elapsed: float, recent: ArmStats | Sequence[ArmStats] = (),
    beside: Beside = ALONE,
) -> RolloutVerdict:  # fmt: skip
    """Judge a champion that serves everything. Promote means that the bake is over; without enough answers it goes on.

    ``previous`` is what its predecessor did before, ``recent`` the champion's newest answers alone (one or several spans): a long good past
    must not hide a bad present. With late labels the bake lasts their delay longer, so that its last answers are judged too.

    >>> before = ArmStats(answers=900, p50_ms=9, p95_ms=14, outcomes=300, correct_sum=255)
    >>> judge_bake(Plan(), before, ArmStats(answers=5, errors=5, trailing_errors=5), elapsed=3).reason
    'the last 5 answers failed'
    >>> judge_bake(Plan(), before, NOTHING, elapsed=10_000).action.value
    'hold'
    """
    evidence = _evidence(plan, previous, now, elapsed)
    looks = [now, *((recent,) if isinstance(recent, ArmStats) else recent)]
    findings = list(_broken_numbers(previous, now, elapsed))
    for stats in looks:
        if _finite(previous, stats, elapsed):
            findings += _findings(plan, previous, stats, late=True, baking=True)
    findings += _told(plan, beside)
    lasts = plan.bake_seconds + plan.label_delay_seconds
    if not elapsed >= lasts:
        findings.append(_Finding(RolloutAction.HOLD, f"bakes for {lasts:.0f} s"))
    if now.answers < plan.min_samples:
        findings.append(_Finding(RolloutAction.HOLD, f"{now.answers} answers of {plan.min_samples}", lacks=True))
    seen = f"{now.answers} answers, {now.outcomes} outcomes" if now.sound else "no sound numbers"
    return _decide(findings, evidence, f"baked for {elapsed:.0f} s without a fault ({seen})")


def _decide(findings: Iterable[_Finding], evidence: dict[str, Any], well: str) -> RolloutVerdict:
    kept = list(findings)
    for action in (RolloutAction.ROLLBACK, RolloutAction.HOLD):
        reasons = [finding.reason for finding in kept if finding.action is action]
        if reasons:
            return RolloutVerdict(action=action, reason="; ".join(dict.fromkeys(reasons)), evidence=evidence)
    return RolloutVerdict(action=RolloutAction.PROMOTE, reason=well, evidence=evidence)


def _finite(champion: ArmStats | None, candidate: ArmStats, elapsed: float) -> bool:
    return candidate.sound and (champion is None or champion.sound) and isfinite(elapsed)


def _broken_numbers(champion: ArmStats | None, candidate: ArmStats, elapsed: float) -> Iterable[_Finding]:
    if not candidate.sound:
        yield _Finding(RolloutAction.ROLLBACK, "the candidate's measurements are not numbers that can be")
    if champion is not None and not champion.sound:
        yield _Finding(RolloutAction.HOLD, "the champion's measurements are not numbers that can be")
    if not isfinite(elapsed):
        yield _Finding(RolloutAction.HOLD, "the time on this step is not known")


def _told(plan: Plan, beside: Beside) -> Iterable[_Finding]:
    for own in (beside.candidate, beside.recent):
        fallen = fallen_slice(beside.champion, own, max_drop=plan.max_slice_drop, alpha=ALPHA)
        if fallen is not None:
            yield _Finding(RolloutAction.ROLLBACK, fallen)
    if 0 < plan.reports_revert <= beside.reporters:
        text = f"{beside.reporters} people reported it within {plan.reports_window_seconds:.0f} s"
        yield _Finding(RolloutAction.ROLLBACK, text)


def _labels_to_come(plan: Plan, champion: ArmStats | None, candidate: ArmStats, elapsed: float) -> Iterable[_Finding]:
    """Wait for the outcomes of this step's first answers; not at all when they come later than patience lasts."""
    due = plan.label_delay_seconds + plan.step_seconds
    if champion is None or not plan.label_delay_seconds or due >= plan.max_hold_seconds:
        return
    if candidate.outcomes < MIN_OUTCOMES and elapsed < due:
        text = f"outcomes come after {plan.label_delay_seconds:.0f} s: {candidate.outcomes} of {MIN_OUTCOMES}"
        yield _Finding(RolloutAction.HOLD, text, lacks=True)


def _patience(plan: Plan, answers: int, elapsed: float) -> Iterable[_Finding]:
    if answers < plan.min_samples:
        yield _Finding(RolloutAction.HOLD, f"{answers} answers of {plan.min_samples}", lacks=True)
    if elapsed < plan.step_seconds:
        yield _Finding(RolloutAction.HOLD, f"a step lasts {plan.step_seconds:.0f} s at least")


def _findings(
    plan: Plan, champion: ArmStats | None, candidate: ArmStats, *, late: bool, baking: bool = False
) -> list[_Finding]:
    found = [*_errors(plan, champion, candidate)]
    if champion is not None and candidate.answers:
        found += _latency(plan, champion, candidate, baking=baking)
        found += _quality(plan, champion, candidate, late=late, baking=baking)
    return found


def _errors(plan: Plan, champion: ArmStats | None, candidate: ArmStats) -> Iterable[_Finding]:
    """More failures than the plan allows, and surely more than the champion has (or than the plan allows, whichever is lower)."""
    if candidate.trailing_errors >= TRAILING_ERRORS:
        yield _Finding(RolloutAction.ROLLBACK, f"the last {candidate.trailing_errors} answers failed")
        return
    rate = candidate.errors / candidate.answers if candidate.answers else 0.0
    if rate <= plan.max_error_rate:
        return
    reason = f"{rate:.1%} of {candidate.answers} answers failed, {plan.max_error_rate:.1%} may"
    usual = plan.max_error_rate
    if champion is not None and champion.answers:
        at_most = wilson(champion.errors, champion.answers, z=SURE)[1]
        usual = min(usual, max(at_most, plan.max_error_rate / 4))
    decisive = rate_evidence(candidate.errors, candidate.answers, usual) >= -log(ALPHA)
    yield _Finding(RolloutAction.ROLLBACK if decisive else RolloutAction.HOLD, reason)


def _latency(plan: Plan, champion: ArmStats, candidate: ArmStats, *, baking: bool) -> Iterable[_Finding]:
    if champion.p50_ms is None or champion.p95_ms is None or champion.answers < plan.min_samples:
        if not baking:
            text = f"the champion has {champion.answers} answers to compare with"
            yield _Finding(RolloutAction.HOLD, text, lacks=True)
        return
    if candidate.p50_ms is None or candidate.p95_ms is None:
        yield _Finding(RolloutAction.HOLD, "no latency of the candidate is known")
        return
    if candidate.answers >= plan.min_samples and slower(plan, champion.p50_ms, candidate.p50_ms):
        text = f"median latency {candidate.p50_ms:.0f} ms, the champion's {champion.p50_ms:.0f}"
        yield _Finding(RolloutAction.ROLLBACK, text)
    elif slower(plan, champion.p95_ms, candidate.p95_ms):
        text = f"95th percentile of latency {candidate.p95_ms:.0f} ms, the champion's {champion.p95_ms:.0f}"
        enough = min(candidate.answers, champion.answers) >= TAIL_ANSWERS
        yield _Finding(RolloutAction.ROLLBACK if enough else RolloutAction.HOLD, text)


def slower(plan: Plan, before: float, now: float) -> bool:
    """Whether a latency is beyond the plan's ratio, and by more than its slack in milliseconds.

    >>> slower(Plan(max_latency_ratio=3), 100, 301), slower(Plan(max_latency_ratio=3), 1, 40)
    (True, False)
    """
    return now - before > plan.latency_slack_ms and now > plan.max_latency_ratio * before


def _quality(plan: Plan, champion: ArmStats, candidate: ArmStats, *, late: bool, baking: bool) -> Iterable[_Finding]:
    was, now = champion.quality, candidate.quality
    if was is None or now is None or min(champion.outcomes, candidate.outcomes) < MIN_OUTCOMES:
        if not baking:
            yield from _unproven(candidate)
        return
    drop = was - now
    if drop <= plan.max_agreement_drop:
        return
    reason = f"right on {now:.1%} of {candidate.outcomes} outcomes, the champion on {was:.1%} of {champion.outcomes}"
    variance = _variance(champion, candidate)
    score = drop / sqrt(variance)
    # however often one looks / at the one look at which patience ends, 1 in 100
    decisive = difference_evidence(drop, variance, 4 * plan.max_agreement_drop) >= -log(ALPHA)
    if decisive or (late and not baking and score > 2.33):
        yield _Finding(RolloutAction.ROLLBACK, reason)
    elif score > 1 and not late:
        yield _Finding(RolloutAction.HOLD, f"{reason}: too few to tell")


def _unproven(candidate: ArmStats) -> Iterable[_Finding]:
    if candidate.agreement is None:
        text = "nothing says how good it is: neither enough outcomes nor a shadow replay"
        yield _Finding(RolloutAction.HOLD, text, lacks=True)
    elif candidate.agreement < STRANGE_AGREEMENT:
        text = (
            f"it agreed with the champion on {candidate.agreement:.0%} of the replayed requests; outcomes must prove it"
        )
        yield _Finding(RolloutAction.HOLD, text)


def _variance(champion: ArmStats, candidate: ArmStats) -> float:
    return variance_of_mean(champion.correct_sum, champion.outcomes) + variance_of_mean(
        candidate.correct_sum, candidate.outcomes
    )


def _evidence(plan: Plan, champion: ArmStats | None, candidate: ArmStats, elapsed: float) -> dict[str, Any]:
    """Plain JSON of the numbers; what is not finite becomes text, since jsonb holds no NaN."""
    evidence: dict[str, Any] = {
        "elapsed_s": _plain(elapsed), "candidate": _numbers(candidate),
        "champion": None if champion is None else _numbers(champion), "decided_on": "live traffic",
    }  # fmt: skip
    if candidate.sound and candidate.answers:
        evidence["error_rate_95"] = [round(edge, 4) for edge in wilson(candidate.errors, candidate.answers)]
    if champion is not None and _finite(champion, candidate, 0.0) and min(champion.outcomes, candidate.outcomes) > 0:
        drop = (champion.quality or 0.0) - (candidate.quality or 0.0)
        half = 1.96 * sqrt(_variance(champion, candidate))
        always = difference_interval(drop, _variance(champion, candidate), 4 * plan.max_agreement_drop, 0.05)
        evidence["quality_drop"] = round(drop, 4)
        evidence["quality_drop_95"] = [round(drop - half, 4), round(drop + half, 4)]
        evidence["quality_drop_95_always"] = [_plain(round(edge, 4)) for edge in always]
    return evidence


def _numbers(stats: ArmStats) -> dict[str, Any]:
    return {name: _plain(value) for name, value in asdict(stats).items()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not isfinite(value) else value
