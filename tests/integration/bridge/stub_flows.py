"""Flows for the bridge's tests: state in a folder, every call in a journal, each agent's behaviour in a script.

``due/<agent>.json`` says that an agent is due; a claim takes the file away. ``script/<agent>.json`` says what its steps answer.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5


def folder() -> Path:
    return Path(os.environ["PERENNIAL_STUB"])


def journal(agent: str, step: str, **more: Any) -> None:
    line = (
        json.dumps(
            {
                "at": time.time(),
                "agent": agent,
                "step": step,
                "pid": os.getpid(),
                "cpu": round(time.process_time(), 3),
                **more,
            }
        )
        + "\n"
    )
    with open(folder() / "journal.jsonl", "a") as file:
        file.write(line)


def script(agent: str) -> dict[str, Any]:
    path = folder() / "script" / f"{agent}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _begin(agent: str, step: str, **more: Any) -> dict[str, Any]:
    journal(agent, step, **more)
    said = script(agent)
    once = folder() / f"{agent}.{step}.killed"
    if said.get("kill") == step and not once.exists():
        once.touch()
        os.kill(os.getpid(), 9)
    while said.get("wait") == step and not (folder() / f"{agent}.go").exists():
        time.sleep(0.05)
    if said.get("fail") == step:
        from perennial.errors import ValidationFailed

        raise ValidationFailed(f"{step} was told to fail")
    return said


# due and train


def due_agents(ports: Any) -> list[tuple[str, Any]]:
    from perennial.domain.words import Reason

    found = []
    for path in sorted((folder() / "due").glob("*.json")):
        if not (folder() / "running" / path.stem).exists():
            found.append((path.stem, Reason(json.loads(path.read_text())["reason"])))
    return found


def admit(ports: Any, agent: str) -> dict[str, Any]:
    _begin(agent, "admit", may_admit=ports.admission is not None)
    return {"ready": 1}


def claim(ports: Any, request: Any) -> Any:
    from perennial.domain.job import BatchRef
    from perennial.domain.words import Mode

    _begin(
        request.agent, "claim", run=request.run_id, reason=request.reason.value, mode=request.mode.value, force=request.force,
        by=request.requested_by, overrides=request.overrides, may_admit=ports.admission is not None,
    )  # fmt: skip
    due = folder() / "due" / f"{request.agent}.json"
    try:
        due.rename(folder() / "claimed" / f"{request.agent}.json")
    except FileNotFoundError:
        return None
    (folder() / "running" / request.agent).touch()
    job_id = uuid5(NAMESPACE_URL, f"{request.agent}/{request.run_id}")
    return BatchRef(agent=request.agent, job_id=job_id, attempt=1, mode=Mode.ONLINE, reason=request.reason, count=1)


def validate(ports: Any, ref: Any) -> dict[str, Any]:
    _begin(ref.agent, "validate", may_admit=ports.admission is not None)
    return {"rows": ref.count}


def redact(ports: Any, ref: Any) -> dict[str, Any]:
    _begin(ref.agent, "redact")
    return {"rows": ref.count}


def select(ports: Any, ref: Any) -> list[str]:
    said = _begin(ref.agent, "select")
    if said.get("empty"):
        from perennial.errors import EmptyBatch

        raise EmptyBatch("everything waits for a new label's minimum")
    return list(said.get("tasks", ["topic", "tone"]))


def train(ports: Any, ref: Any, task: str) -> dict[str, Any]:
    journal(ref.agent, "train_begin", task=task, torch="torch" in sys.modules)
    _begin(ref.agent, "train", task=task)
    journal(ref.agent, "train_end", task=task)
    return {"task": task}


def evaluate(ports: Any, ref: Any) -> dict[str, Any]:
    _begin(ref.agent, "evaluate")
    return {"champion": "1.0.0"}


def gate(ports: Any, ref: Any) -> dict[str, Any]:
    said = _begin(ref.agent, "gate")
    action = said.get("gate", "pass")
    return {
        "action": action, "summary": f"gate says {action}", "text": f"# Gate report\n\n**{action}**", "content_digest": "00",
        "major": action == "approve",
    }  # fmt: skip


def fast_lane(ports: Any, ref: Any) -> dict[str, Any]:
    _begin(ref.agent, "fast_lane", may_admit=ports.admission is not None)
    validate(ports, ref)
    redact(ports, ref)
    for task in select(ports, ref):
        train(ports, ref, task)
    evaluate(ports, ref)
    return {**gate(ports, ref), "seconds": {}}


def question(ports: Any, ref: Any, run_id: str) -> dict[str, Any]:
    """The real evidence of a small report; ``two_people`` in the script lets one approval not be enough."""
    from perennial.gates.evidence import Asked, evidence

    _begin(ref.agent, "question", run=run_id)
    if (folder() / f"{ref.agent}.approved").exists() and script(ref.agent).get("two_people"):
        return {"granted": True, "actor": "editor"}
    report = {
        "summary": "sign_off",
        "verdicts": [{"gate": "sign_off", "action": "approve", "reason": "a major version"}],
    }
    asked = Asked(
        agent=ref.agent, version="2.0.0", part="major", digest="ab" * 32, champion="1.0.0", reason=ref.reason.value
    )
    body = "# Gate report\n\n" + evidence(report, asked)
    return {"granted": False, "subject": f"Release {ref.agent} 2.0.0 (major)?", "body": body}


def record_decision(
    ports: Any, ref: Any, approved: bool, actor: str, comment: str, *, attributable: bool = True, run_id: str | None = None
) -> dict[str, Any]:  # fmt: skip
    said = _begin(
        ref.agent, "decision", approved=approved, actor=actor, comment=comment, attributable=attributable, run=run_id
    )
    people = folder() / f"{ref.agent}.people"
    if approved:
        with people.open("a") as file:
            file.write(f"{actor}\n")
    enough = approved and (not said.get("two_people") or len(set(people.read_text().split())) > 1)
    if enough:
        (folder() / f"{ref.agent}.approved").touch()
    return {"approved": enough, "actor": actor, "why": "" if enough else "1 of 2 people approved", "again": approved}


def register(ports: Any, ref: Any) -> dict[str, Any]:
    said = _begin(ref.agent, "register")
    if said.get("gate") == "approve" and not (folder() / f"{ref.agent}.approved").exists():
        from perennial.errors import PromotionRefused

        raise PromotionRefused("a person must approve this candidate first")
    (folder() / "released" / ref.agent).touch()
    return {
        "version": "1.0.1", "digest": "ab", "run_url": "http://mlflow/run", "version_url": "http://mlflow/version",
    }  # fmt: skip


def settle(ports: Any, ref: Any, outcome: str) -> dict[str, Any]:
    _begin(ref.agent, "settle", outcome=outcome)
    (folder() / "running" / ref.agent).unlink(missing_ok=True)
    return {"note": f"{ref.agent}: {outcome}", "version": None}


# harvest


def sources(ports: Any) -> list[str]:
    return sorted(path.name for path in (folder() / "inbox").iterdir())


def drain(ports: Any, source: str) -> dict[str, Any]:
    journal(source, "drain", may_admit=ports.admission is not None)
    lines = (folder() / "inbox" / source).read_text().splitlines()
    (folder() / "inbox" / source).unlink()
    return {"source": source, "accepted": len(lines), "rejected": 0}


def admit_waiting(ports: Any) -> dict[str, Any]:
    journal("", "admit_waiting", may_admit=ports.admission is not None)
    return {}


def relay_outbox(ports: Any) -> dict[str, Any]:
    return {"relayed": 0}


def seal(ports: Any) -> None:
    journal("", "seal", may_admit=ports.admission is not None)


# rollout


def verify(ports: Any, agent: str, run_id: str) -> dict[str, Any] | None:
    _begin(agent, "verify", run=run_id)
    released = folder() / "released" / agent
    if not released.exists():
        return None
    released.unlink()
    (folder() / "state" / agent).write_text("pending")
    return {"rollout_id": agent, "agent": agent, "version": "1.0.1", "previous": "1.0.0", "steps": [0.05, 0.5, 1.0]}


def shadow(ports: Any, ref: dict[str, Any]) -> dict[str, Any]:
    said = _begin(ref["agent"], "shadow")
    return {"action": said.get("shadow", "promote"), "reason": "told so"}


def begin_step(ports: Any, ref: dict[str, Any], index: int) -> dict[str, Any]:
    _begin(ref["agent"], "begin_step", index=index)
    if index >= len(ref["steps"]) - 1:
        return {"action": "promote", "reason": "the plan has no such step"}
    (folder() / "state" / ref["agent"]).write_text("canary")
    return {"action": "hold", "reason": f"step {index + 1}"}


def look(ports: Any, ref: dict[str, Any], index: int) -> dict[str, Any]:
    said = script(ref["agent"])
    journal(ref["agent"], "look", index=index)
    if said.get("look") in {"rollback", "superseded"} and index == said.get("look_index", 0):
        state = "reverted" if said["look"] == "rollback" else "superseded"
        (folder() / "state" / ref["agent"]).write_text(state)
        return {"action": said["look"], "reason": "told so"}
    return {"action": "promote", "reason": "enough samples"}


def full(ports: Any, ref: dict[str, Any]) -> dict[str, Any]:
    _begin(ref["agent"], "full")
    (folder() / "state" / ref["agent"]).write_text("baking")
    return {"version": "1.0.1", "note": f"{ref['agent']} 1.0.1 serves everything"}


def revert(ports: Any, ref: dict[str, Any], reason: str) -> dict[str, Any]:
    _begin(ref["agent"], "revert", reason=reason)
    (folder() / "state" / ref["agent"]).write_text("reverted")
    return {"version": "1.0.1", "note": f"{ref['agent']} reverted: {reason}"}


def _row(agent: str) -> Any:
    from perennial.domain.words import RolloutState

    state = RolloutState((folder() / "state" / agent).read_text())
    return types.SimpleNamespace(agent=agent, version="1.0.1", state=state, reason="told so", parked=None)


def _rows(job_id: Any, attempt: int) -> list[Any]:
    claimed = {path.stem: json.loads(path.read_text())["priority"] for path in (folder() / "claimed").glob("*.json")}
    owner = next(agent for agent in claimed if (folder() / "running" / agent).exists() and _job_of(agent, job_id))
    return [types.SimpleNamespace(priority=claimed[owner])]


def _job_of(agent: str, job_id: Any) -> bool:
    return any(
        line["agent"] == agent and line["step"] == "claim" and uuid5(NAMESPACE_URL, f"{agent}/{line['run']}") == job_id
        for line in _journal_lines()
    )


def _moves(agent: str) -> list[Any]:
    promoted = [line["at"] for line in _journal_lines() if line["agent"] == agent and line["step"] == "full"]
    return [
        types.SimpleNamespace(alias="champion", version="1.0.1", moved_at=datetime.fromtimestamp(at, UTC))
        for at in reversed(promoted)
    ]


def _journal_lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder() / "journal.jsonl").read_text().splitlines()]


def ports_from(settings: Any) -> Any:
    return types.SimpleNamespace(
        settings=settings,
        admission=object() if settings.admit_database_url is not None else None,
        buffer=types.SimpleNamespace(
            claimed_rows=_rows,
            waiting=lambda: {path.stem: 1 for path in (folder() / "due").glob("*.json")},
            job_of_run=lambda agent, run_id: None,
            performance=lambda agent, last: [],
            renew=lambda job_id, attempt, seconds: journal("", "renew", seconds=seconds),
        ),
        rollouts=types.SimpleNamespace(get=_row),
        ledger=types.SimpleNamespace(gate_report=lambda job_id: None, moves=_moves, promoted_since=_promoted_since),
        fleet=_fleet,
    )  # fmt: skip


def _promoted_since(time: Any) -> frozenset[str]:
    return frozenset(name for name in _fleet().names if any(move.moved_at > time for move in _moves(name)))


def _fleet() -> Any:
    from perennial.fleet import loader
    from perennial.settings import load_settings

    return loader.load(load_settings().fleet_folder)


def install() -> None:
    """Put the functions above where the bridge looks for flows and wiring."""
    import perennial.flows  # noqa: F401 - the parent of what is replaced

    here = sys.modules[__name__]
    parts = {
        "perennial.wiring": ["ports_from"],
        "perennial.flows.due": ["due_agents"],
        "perennial.flows.harvest": ["sources", "drain", "admit_waiting", "relay_outbox"],
        "perennial.flows.sealing": ["seal"],
        "perennial.flows.train": [
            "admit", "claim", "validate", "redact", "select", "train", "evaluate", "gate", "fast_lane", "question",
            "record_decision", "register", "settle",
        ],
        "perennial.flows.rollout": ["verify", "shadow", "begin_step", "look", "full", "revert"],
    }  # fmt: skip
    for name, functions in parts.items():
        module = types.ModuleType(name)
        for function in functions:
            setattr(module, function, getattr(here, function))
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        setattr(sys.modules[parent], last, module)
