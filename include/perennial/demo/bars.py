"""Progress bars of the demo: how far requests, a training and its rollout are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from perennial.domain.words import JobStatus, RolloutState
from perennial.rollout.machine import ENDED

if TYPE_CHECKING:
    from rich.console import Console

    from perennial.flows.ports import Ports

_TRAINING = {
    JobStatus.PENDING: (1, "claims rows"),
    JobStatus.VALIDATING: (2, "validates and redacts"),
    JobStatus.TRAINING: (3, "trains"),
    JobStatus.EVALUATING: (5, "champion and candidate answer the holdout; gates judge"),
    JobStatus.COMPLETED: (6, "training is settled"),
    JobStatus.CANCELLED: (6, "nothing to train"),
    JobStatus.FAILED: (6, "training failed; it is tried again"),
}
_FULL = 10
_BLINK = 0.4  # seconds between two looks at the database


def place(job: JobStatus | None, rollout: RolloutState | None, share: float) -> tuple[int, str]:
    """Where a journey from the claim (0) to all traffic (10) stands, and what happens there. ``share`` is that of the canary.

    >>> place(None, None, 0.0), place(JobStatus.TRAINING, None, 0.0), place(JobStatus.COMPLETED, RolloutState.CANARY, 0.25)
    ((0, 'waits for its run'), (3, 'trains'), (8, 'canary at 25 %'))
    """
    if rollout is RolloutState.CANARY:
        return 7 + (share >= 0.25) + (share >= 0.5), f"canary at {share:.0%}".replace("%", " %")
    if rollout in {RolloutState.BAKING, RolloutState.DONE}:
        return _FULL, "serves everything"
    if rollout is not None and rollout not in ENDED:
        return 6, "signature verified; answers recorded requests in the shadow"
    return _TRAINING[job] if job is not None else (0, "waits for its run")


class Bars:
    """Draws on the console while something lasts; a console that is no terminal gets no bars."""

    def __init__(self, console: Console, ports: Ports, agent: str) -> None:
        self._console, self._ports, self._agent = console, ports, agent

    @contextmanager
    def requests(self, total: int) -> Iterator[Callable[[int], None]]:
        """A bar over ``total`` requests; call what it yields with the number that were answered."""
        with self._bar("requests", total) as move:
            yield lambda done: move(done, f"{done} answered")

    @contextmanager
    def journey(self, what: str) -> Iterator[Callable[[], None]]:
        """A bar from the claim of rows to all traffic; call what it yields now and then."""
        began, looked = time.monotonic(), 0.0
        before = self._ports.rollouts.latest(self._agent)

        with self._bar(what, _FULL) as move:

            def look() -> None:
                nonlocal looked
                if time.monotonic() - looked < _BLINK or not self._console.is_terminal:
                    return
                looked = time.monotonic()
                jobs = self._ports.jobs.recent(self._agent, seconds=looked - began + 1.0)
                row = self._ports.rollouts.latest(self._agent)
                new = row if row is not None and (before is None or row.id != before.id) else None
                job = JobStatus(jobs[0].status) if jobs else None
                move(*place(job, new.state if new else None, new.weight if new else 0.0))

            yield look

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}"),
        )
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            bar = progress.add_task(title, total=total, now="")
            yield lambda done, now: progress.update(bar, completed=done, now=now)
