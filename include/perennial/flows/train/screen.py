"""The screening of a claim against poisoned data: reads what is known of the senders, holds back what must wait."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.job import BatchRef
from perennial.domain.words import Source
from perennial.errors import StoreError
from perennial.fleet.agent import Agent
from perennial.flows.ports import Ports
from perennial.flows.train.guard import by_task
from perennial.flows.workspace import Workspace
from perennial.registry.rows import Release
from perennial.selection.screening import Rules, Screening, screen
from perennial.selection.sent import Sent, alias_of, senders
from perennial.selection.source_caps import Caps, cap_sources

logger = logging.getLogger(__name__)

TRAINED = 2000  # newest trained rows per task that a batch may not contradict
MAIN_SHARE = 0.20  # who brought this much of the first version is the deployment's own source
_FILE = "screening.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Senders:
    """What one agent's settings and history say about its senders, as of the start of a job's attempt.

    ``own`` are the aliases of the deployment's own sources; ``founded`` is when the first version was made, None before.
    """

    agent: Agent
    own: frozenset[str]
    now: datetime
    founded: datetime | None

    def of(self, ports: Ports, rows: Sequence[TrainingRow]) -> tuple[Sent, ...]:
        """The rows with their senders, in order."""
        selection = self.agent.selection
        return senders(
            self.agent.name, rows, ports.buffer.origins([row.example_id for row in rows]),
            patterns=selection.trusted_sources, own=self.own, young_days=selection.young_days, now=self.now,
            founded=self.founded,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Screened:
    """The rows of a claim that may teach now, by task, and the ``report`` by task; the others are ``held``."""

    rows: dict[str, list[TrainingRow]]
    report: dict[str, Any]
    senders: Senders

    def holdout(self, ports: Ports, task: str, rows: Sequence[TrainingRow]) -> tuple[TrainingRow, ...]:
        """Holdout rows without what untrusted senders have beyond their shares; the report counts what was left out.

        Who may not fill a batch may not fill the measurement either: rows of the same hand in both would confirm each other.
        Champion and candidate answer the same rows. The first version is measured on all of them.
        """
        caps = Caps()
        if self.senders.founded is not None:
            selection = self.senders.agent.selection
            caps = cap_sources(
                self.senders.of(ports, rows), total=len(rows), share=selection.source_share,
                young_share=selection.young_share, seed=self.senders.agent.seed,
            )  # fmt: skip
        gone = {*caps.over_source, *caps.over_young}
        self.report[task]["holdout_left_out"] = len(gone)
        return tuple(row for row in rows if row.example_id not in gone)


def screened(ports: Ports, ref: BatchRef, agent: Agent, space: Workspace) -> Screened:
    """Judge the claimed rows and hold back what must wait.

    Runs in the select task. The decision is kept in the workspace before a row moves, so a task that is killed and run again
    holds back the same rows. A new attempt judges anew what is still claimed.
    """
    claimed = ports.buffer.claimed_rows(ref.job_id, ref.attempt)
    known = _senders(ports, ref, agent)
    if not space.has(_FILE):
        space.write_json(_FILE, _decide(ports, known, claimed))
    decision = space.read_json(_FILE)
    for reason, ids in decision["aside"].items():
        moved = ports.buffer.set_aside(
            ref.job_id, ref.attempt, [UUID(identity) for identity in ids], state="held", reason=reason
        )
        if moved:
            logger.warning("%s rows of the batch of %s wait: %s", moved, ref.agent, reason)
    gone = {identity for ids in decision["aside"].values() for identity in ids}
    rows = by_task([row for row in claimed if str(row.example_id) not in gone])
    return Screened(rows=rows, report=decision["report"], senders=known)


def _decide(ports: Ports, known: Senders, claimed: Sequence[TrainingRow]) -> dict[str, Any]:
    agent, selection = known.agent, known.agent.selection
    rules = Rules(
        source_share=selection.source_share, young_share=selection.young_share,
        near_duplicates=selection.near_duplicates, self_labelled_share=selection.self_labelled_share, seed=agent.seed,
    )  # fmt: skip
    aside: dict[str, list[str]] = {}
    report: dict[str, Any] = {}
    for task, rows in by_task(list(claimed)).items():
        sent = known.of(ports, rows)
        trained = () if known.founded is None else _trained(ports, agent.name, task, sent)
        result: Screening = screen(sent, trained, rules, first_version=known.founded is None)
        report[task] = dict(result.report)
        for reason, ids in result.aside.items():
            aside.setdefault(reason, []).extend(str(identity) for identity in ids)
    return {"aside": aside, "report": report}


def _trained(ports: Ports, agent: str, task: str, sent: Sequence[Sent]) -> tuple[Sent, ...]:
    if all(one.urgent for one in sent):
        return ()  # a correction may contradict anything, and somebody waits for it
    return tuple(
        Sent(row=row, kind=Source.EXAMPLE, alias=alias_of(agent, row.source_id), trusted=False, young=False)
        for row in ports.buffer.recent_trained(agent, task, TRAINED)
    )


def _senders(ports: Ports, ref: BatchRef, agent: Agent) -> Senders:
    first = min(ports.ledger.versions(ref.agent), key=lambda release: release.order, default=None)
    return Senders(
        agent=agent, own=frozenset(_own_sources(ports, first)), now=ports.buffer.job_started(ref.job_id),
        founded=first.created_at if first else None,
    )  # fmt: skip


def _own_sources(ports: Ports, first: Release | None) -> Collection[str]:
    """Aliases of who brought a fifth or more of what some task of the first version learned, from its job's record."""
    if first is None or first.job_id is None:
        return ()
    try:
        record = ports.buffer.job(first.job_id).dataset
    except StoreError:
        logger.info(
            "the job of the first version is not in the books any more: no source counts as the deployment's own"
        )
        return ()
    return {
        line["source"]
        for part in record.get("screening", {}).values()
        for line in part["sources"]
        if line["rows"] >= MAIN_SHARE * part["rows"]
    }
