"""What the doctor says, and why an agent is not training: pure, so that every cause has a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Of one check."""

    OK = "ok"
    NOTE = "note"  # as it should be, and good to know
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the doctor's table; the remedy is empty when nothing needs doing."""

    check: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def why_not_training(
    row: Mapping[str, Any], dead: tuple[str, ...], paused: bool = False, waits: str | None = None
) -> Finding:
    """Which cause applies to one agent, the first of: a dead scheduler or triggerer, a lock, a pause, a wait, a threshold.

    ``waits`` says why a due training does not start: a spent budget, an open circuit breaker, or a first version in rollout.

    ``row`` is a row of the statement ``why_not_training``; ``dead`` names the parts of Airflow that do not run.

    >>> row = {"agent": "scout", "threshold": 50, "waiting": 12, "urgent": False, "held": 0, "job_id": None, "last_status": None}
    >>> why_not_training(row, ()).detail
    'threshold not reached: 12 of 50 examples wait'
    """
    check = f"training of {row['agent']}"
    due = row["urgent"] or row["waiting"] >= row["threshold"]
    if dead:
        return Finding(
            check=check, verdict=Verdict.WRONG, detail=f"{' and '.join(dead)} not running: nothing can start a training",
            remedy="the supervisor restarts it; if it does not last, read its log in logs/, then `perennial down` and `perennial up`",
        )  # fmt: skip
    if row["job_id"]:
        return _locked(check, row)
    if due and paused:
        return Finding(
            check=check, verdict=Verdict.WRONG, detail=f"examples wait, and the DAG train_{row['agent']} is paused",
            remedy="switch it on in Airflow",
        )  # fmt: skip
    if due and waits:
        return Finding(
            check=check, verdict=Verdict.NOTE, detail=waits,
            remedy="`perennial budget` and `perennial rollout AGENT` say more; a person's Trigger in Airflow does not wait",
        )  # fmt: skip
    if due:
        return _due(check, row)
    return _below(check, row)


def _locked(check: str, row: Mapping[str, Any]) -> Finding:
    held = f"lock held by job {row['job_id']} ({row['status']} for {row['running_seconds'] or 0:.0f} s, run {row['run_id']})"
    if row["alive"]:
        return Finding(
            check=check, verdict=Verdict.NOTE, detail=held,
            remedy="wait for it, answer its required action if it has one, or mark its run failed in Airflow",
        )  # fmt: skip
    return Finding(
        check=check, verdict=Verdict.WARNING, detail=f"{held}; its worker is dead, its lease ran out",
        remedy="the next training sweeps it within seconds; start one with the DAG's Trigger button if none comes",
    )  # fmt: skip


def _due(check: str, row: Mapping[str, Any]) -> Finding:
    why = "a correction waits" if row["urgent"] else f"{row['waiting']} examples wait"
    if row["last_status"] == "failed" and (row["last_seconds"] or 0) < 600:
        return Finding(
            check=check, verdict=Verdict.WARNING, detail=f"{why}, but the last training failed: {row['last_note']}",
            remedy="it rests before it tries again (10 s, then twice as long each time); read the failed run in Airflow",
        )  # fmt: skip
    return Finding(check=check, verdict=Verdict.NOTE, detail=f"due: {why}; a run should start within seconds")


def _below(check: str, row: Mapping[str, Any]) -> Finding:
    held = f"; {row['held']} more are held or in quarantine and wait for a person" if row["held"] else ""
    return Finding(
        check=check, verdict=Verdict.OK,
        detail=f"threshold not reached: {row['waiting']} of {row['threshold']} examples wait{held}",
        remedy="send more, lower update_threshold, correct with priority 2, or trigger the DAG with force",
    )  # fmt: skip
