"""A deployment in memory behind the pages: two agents (one full, one empty), people in every role, and a browser-like client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from fastapi import FastAPI
from starlette.testclient import TestClient

from perennial.audit.memory import MemoryAuditLog
from perennial.domain.example import Example
from perennial.domain.job import JobRequest
from perennial.domain.words import JobStatus, Reason, RolloutAction
from perennial.fleet.agent import Agent, Task
from perennial.fleet.loader import Fleet, FleetFileError, Member
from perennial.flows.ports import Ports
from perennial.flows.training_switch import DagFacts, MemoryDags
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.pages.app import PAGES, pages_app
from perennial.pages.identity import MemoryIdentity, User
from perennial.pages.overview import PortsOverview
from perennial.pages.page import Page, Site
from perennial.pages.roles import Role
from perennial.registry.rows import Release
from perennial.rollout.memory import MemoryRollouts
from perennial.settings import Settings
from tests.dags.fleet import Nothing
from tests.rollout_world import Clock, JoinedLedger

NOW = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)
ORIGIN = "http://testserver"
TOKENS = {role: f"token-of-{role.word}" for role in Role}


def people() -> MemoryIdentity:
    """One person per role; the id is the role's word, the token ``TOKENS[role]``."""
    return MemoryIdentity(
        {TOKENS[role]: User(id=role.word, name=f"Ms {role.word.title()}", standing=role) for role in Role}
    )


@dataclass
class PagesWorld:
    """The twins, the site over them and the app. ``ports`` is made of the twins; ``clock`` moves rollouts and ledger."""

    clock: Clock
    buffer: MemoryBuffer
    ledger: JoinedLedger
    rollouts: MemoryRollouts
    audit: MemoryAuditLog
    dags: MemoryDags
    ports: Ports
    fleet: Fleet
    links: dict[str, str] = field(default_factory=dict)

    @property
    def site(self) -> Site:
        return Site(ports=self.ports, overview=PortsOverview(self.ports), dags=self.dags)

    def app(self, pages: tuple[Page, ...] = PAGES, **more: Any) -> FastAPI:
        named = {"identify": people(), "now": self.clock, **more}
        return pages_app(lambda: self.site, pages=pages, **named)

    def client(self, role: Role = Role.OPERATOR, **more: Any) -> TestClient:
        """A browser of a person with this role: the cookie, and this site as the origin of its forms."""
        found = TestClient(self.app(**more), cookies={"_token": TOKENS[role]}, follow_redirects=False)
        found.headers.update({"origin": ORIGIN, "accept": "text/html"})
        return found

    # --- filling ---------------------------------------------------------------------------------------------------------

    def add(self, agent: str, task: str, texts: Sequence[str], label: Any = "sports", **more: Any) -> list[UUID]:
        """Admitted rows; returns their ids."""
        made = [
            Example(agent=agent, task=task, input_text=text, expected_output=label, uncertainty=0.4, created_at=NOW, **more)
            for text in texts
        ]  # fmt: skip
        ids = self.buffer.add_many(made).ids
        from tests.contract.test_stores import accept

        MemoryAdmission(self.buffer).run(agent, accept)
        return list(ids)

    def release(
        self, agent: str, version: str, *, report: dict[str, Any] | None = None, base: str | None = None, rows: int = 3,
        texts: Sequence[str] = (), reason: Reason = Reason.THRESHOLD, requested_by: str = "", note: str = "trained",
        score: float = 0.9,
    ) -> Release:  # fmt: skip
        """A version whose job, rows, gate report and ledger entry are all there; it does not serve yet."""
        self.add(agent, "topic", texts or [f"text {number} of {agent} {version}" for number in range(rows)])
        run_id = f"manual__{agent}__{version}"
        job_id = self.buffer.open_job(JobRequest(agent=agent, run_id=run_id, reason=reason, requested_by=requested_by))
        attempt = self.buffer.start_attempt(job_id, 3600.0) or 1
        claimed = self.buffer.claim(agent, job_id, attempt, 500)
        made = self.ledger.release(agent, version)
        made = replace(made, job_id=job_id, base_version=base, created_at=self.clock())
        self.ledger._releases[-1] = made
        made.manifest.update(job_id=str(job_id), reason=reason.value, base_version=base)  # type: ignore[attr-defined]
        self.ledger._reports.pop()
        self.ledger.add_gate_report(
            agent=agent, job_id=job_id, attempt=attempt, content_digest=made.manifest["content_digest"],
            action=(report or {}).get("action", "pass"), report=report or gate_report(claimed=[str(row.example_id) for row in claimed]),
        )  # fmt: skip
        from perennial.registry.recipe import Role as Use

        self.ledger.record_examples(agent, version, {("topic", Use.NEW): [row.example_id for row in claimed]})
        self.buffer.settle_trained(job_id, attempt, version)
        self.buffer.record_performance(
            agent=agent, model_name=f"{agent}-{version}", before=0.88, after=score, examples=len(claimed), rollback=False,
            job_id=job_id, version=version,
        )  # fmt: skip
        self.buffer.finish(job_id, attempt, JobStatus.COMPLETED, note=note, version=version)
        return made

    def serve(self, agent: str, version: str, *, actor: str = "perennial", reason: str = "rollout") -> None:
        """Take a released version to all traffic."""
        from perennial.flows.rollout import plan_of

        plan = plan_of(self.ports.fleet().agent(agent))
        row = self.rollouts.open(agent=agent, version=version, plan=plan, run_id=f"rollout-{agent}-{version}")
        self.rollouts.begin_shadow(row.id)
        self.rollouts.look(row.id, action=RolloutAction.PROMOTE, reason="shadow agreed", evidence={})
        self.rollouts.promote_full(row.id, actor=actor, reason=reason)
        self.ledger.move_alias(agent, "champion", version, actor=actor, reason=reason)
        self.clock.move(60)

    def canary(self, agent: str, version: str) -> int:
        """Put a released version into its first canary step, 5 % of the keys; returns the rollout's id."""
        from perennial.flows.rollout import plan_of

        plan = plan_of(self.ports.fleet().agent(agent))
        row = self.rollouts.open(agent=agent, version=version, plan=plan, run_id=f"rollout-{agent}-{version}")
        self.rollouts.begin_shadow(row.id)
        self.rollouts.set_step(row.id, step=0, weight=plan.steps[0], actor="perennial")
        self.ledger.move_alias(agent, "candidate", version, actor="perennial", reason="canary")
        return row.id


def gate_report(action: str = "pass", summary: str = "passes every gate", claimed: Sequence[str] = (), label: str = "sports",
                reason: str = "no worse than the champion") -> dict[str, Any]:  # fmt: skip
    """A stored gate report with every part that a page shows."""
    slices = [
        {"kind": "label", "name": label, "title": f"label {label!r}", "rows": 60, "measured": True, "candidate": 0.91,
         "champion": 0.88, "difference": 0.03, "low": -0.02, "high": 0.08, "confidence": 0.99, "p": 0.9, "p_family": 1.0},
        {"kind": "time", "name": "recent", "title": "time 'recent'", "rows": 40, "measured": True, "candidate": 0.85,
         "champion": 0.9, "difference": -0.05, "low": -0.12, "high": 0.02, "confidence": 0.99, "p": 0.04, "p_family": 0.2},
        {"kind": "source", "name": "0442f206da", "title": "source '0442f206da'", "rows": 7, "measured": False,
         "candidate": 0.9, "champion": 0.9},
    ]  # fmt: skip
    return {
        "action": action, "summary": summary, "major": False, "bootstrap": False, "champion": "1.0.0",
        "question": "Is it not worse than the champion?", "settings": {}, "not_measured": ["topic: the group region: no row names it"],
        "verdicts": [
            {"gate": "non_inferiority", "action": action, "reason": reason, "evidence": {"tasks": {}}},
            {"gate": "slices", "action": "pass", "reason": "no slice fell", "evidence": {}},
        ],
        "tables": [
            {"task": "topic", "kind": "classification", "rows": 120, "candidate": 0.91, "champion": 0.89, "difference": 0.02,
             "low": -0.01, "high": 0.05, "confidence": 0.95, "changes": {"fixed": 6, "broken": 4, "same": 110},
             "changed_ids": {"fixed": list(claimed[:1]), "broken": list(claimed[1:2])},
             "slices": slices, "groups": {"recent": {"rows": 40, "champion": 0.9, "candidate": 0.85},
                                          "stress": {"missing": "switched off (stress_rows 0), or no rows"}},
             "paired": {"bootstrap_low": -0.01, "bootstrap_high": 0.05, "gains": 6, "losses": 4, "mcnemar_exact": 0.75,
                        "mcnemar_mid_p": 0.7},
             "baselines": {"majority": 0.4}, "metrics": {"candidate": {"accuracy": 0.91, "macro_f1": 0.9},
                                                         "champion": {"accuracy": 0.89, "macro_f1": 0.88}},
             "corrections": {"rows": 2, "right": 2}, "regression": {"rows": 0, "right": None}},
        ],
    }  # fmt: skip


def make_pages_world(
    *, full: bool = True, broken: str = "", settings: Settings | None = None, owner: str = "newsroom"
) -> PagesWorld:
    """Agents scout and desk; ``full`` gives scout two versions, a canary, held and quarantined rows; ``broken`` a bad file."""
    clock = Clock(NOW)
    agents = [
        Agent(name=name, owner=owner, tasks=(Task(name="topic"), Task(name="quality")), trainer=Nothing(),
              description="Sorts the news" if name == "scout" else "")
        for name in ("desk", "scout")
    ]  # fmt: skip
    errors = (FleetFileError(file="fleet/bad.py", line=3, message=broken),) if broken else ()
    fleet = Fleet(
        members=tuple(Member(agent=agent, file=Path(f"{agent.name}.py"), digest="0" * 64) for agent in agents),
        errors=errors,
    )
    rollouts, buffer, audit = MemoryRollouts(clock), MemoryBuffer(), MemoryAuditLog()
    ledger = JoinedLedger(rollouts, clock)
    links: dict[str, str] = {}
    ports = Ports(
        settings=settings or Settings(), fleet=lambda: fleet, buffer=buffer, jobs=SimpleNamespace(), relay=lambda: 0,  # type: ignore[arg-type]
        admission=None, ledger=ledger, models=SimpleNamespace(links=lambda agent, version: dict(links)),  # type: ignore[arg-type]
        audit=audit, rollouts=rollouts, targets={}, bases=SimpleNamespace(), embeddings=None,  # type: ignore[arg-type]
    )  # fmt: skip
    dags = MemoryDags(
        {
            "train_scout": DagFacts(paused=False), "train_desk": DagFacts(paused=True),
            "nightly_retrain": DagFacts(paused=False, next_run=NOW + timedelta(hours=12)),
        }
    )  # fmt: skip
    buffer.sync_agents(
        [{"agent": agent.name, "record": {"name": agent.name}, "file_digest": "0" * 64, "update_threshold": 50,
          "max_buffer_size": 1000, "holdout_share": 0.0,
          "tasks": [{"task": task.name, "kind": "classification", "labels": None, "max_length": 20_000, "aliases": []}
                    for task in agent.tasks]} for agent in agents]
    )  # fmt: skip
    world = PagesWorld(
        clock=clock,
        buffer=buffer,
        ledger=ledger,
        rollouts=rollouts,
        audit=audit,
        dags=dags,
        ports=ports,
        fleet=fleet,
        links=links,
    )
    if full:
        world.release("scout", "1.0.0", score=0.86)
        world.serve("scout", "1.0.0")
        world.release("scout", "1.0.1", base="1.0.0", score=0.91, requested_by="ana")
        world.canary("scout", "1.0.1")
        world.add("scout", "topic", [f"fresh {number}" for number in range(7)])
        links.update(
            run_url="http://mlflow.test/#/experiments/1/runs/2",
            version_url="http://mlflow.test/#/models/scout/versions/1",
        )
    return world


# --- reading what a page says -----------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]
