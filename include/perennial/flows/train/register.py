"""Make the release: assemble, sign, publish, and write it into the ledger."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from perennial.audit.once import append_once
from perennial.domain.job import BatchRef
from perennial.domain.words import Mode
from perennial.errors import NotConfigured, RegistryError
from perennial.flows.overrides import frozen_overrides, member_of
from perennial.flows.ports import Ports
from perennial.flows.provenance import code_digest, environment
from perennial.flows.questions import rule_of
from perennial.flows.train.approval import requester_of
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.train.fit import trainer_of
from perennial.flows.train.measure import flat_metrics
from perennial.flows.workspace import Workspace
from perennial.registry.bundle import content_digest
from perennial.registry.ledger import version_part
from perennial.registry.manifest import Manifest
from perennial.registry.permission import Permission, permit
from perennial.registry.recipe import Recipe, Role, RowMark, Rows, TaskRecipe, rows_digest
from perennial.registry.release import make_release
from perennial.registry.rows import Release

logger = logging.getLogger(__name__)


def register(ports: Ports, ref: BatchRef) -> dict[str, Any]:
    """Publish the candidate as a new version, if a live verdict (and approval, where one is asked for) covers its bytes.

    Raises PromotionRefused otherwise. Killed and run again it finds its own version in the ledger and makes none twice; what a
    kill left out after the ledger's row is made up for.
    """
    ports.buffer.renew(ref.job_id, ref.attempt, LEASE_SECONDS)
    done = ports.ledger.version_of_job(ref.job_id)
    if done is not None:
        _note(ports, done)
        return _links(ports, ref.agent, done.version, done.digest)
    space = Workspace.of(ports.work, ref)
    candidate = space.root / "candidate"
    permission = require_permission(ports, ref, content_digest(candidate))
    key = ports.settings.signing_key_file
    if key is None:
        raise NotConfigured(
            "PERENNIAL_SIGNING_KEY_FILE", "releases are never published unsigned; `perennial up` makes a key"
        )
    password = ports.settings.signing_key_password
    release = make_release(
        ledger=ports.ledger, store=ports.models, agent=ref.agent, job_id=ref.job_id, part=_part(ref, space),
        tasks=candidate / "tasks", describe=lambda version, order: _manifest(ports, ref, space, version, order, permission),
        gate_report=space.read_json("gate_report.json"), out=space.root / "release", key_file=key,
        password=password.get_secret_value() if password else None,
        tags={"run_id": ports.buffer.run_of_job(ref.job_id), "reason": ref.reason.value, "mode": ref.mode.value},
    )  # fmt: skip
    _note(ports, release)
    return _links(ports, ref.agent, release.version, release.digest)


def _note(ports: Ports, release: Release) -> None:
    """Put the release into the audit log, once."""
    approvals = (release.manifest.get("permission") or {}).get("approvals", ())
    append_once(
        ports.audit, actor="perennial", action="registered", agent=release.agent, subject=release.version,
        detail={
            "digest": release.digest, "job_id": str(release.job_id), "base_version": release.base_version,
            "approved_by": [approval["actor"] for approval in approvals],
        },
    )  # fmt: skip


def require_permission(ports: Ports, ref: BatchRef, digest: str) -> Permission:
    """What lets exactly these bytes be released: the stored verdict of this attempt, with live approvals where it asks for them.

    Raises PromotionRefused otherwise. Reads our own tables alone: nothing that Airflow keeps can grant it.
    """
    judgements = ports.ledger.judgements(ref.job_id)
    return permit(
        judgements[-1] if judgements else None, ports.ledger.decisions(job_id=ref.job_id), rule_of(ports, ref.agent),
        content_digest=digest, attempt=ref.attempt, requested_by=requester_of(ports, ref.job_id), at=ports.ledger.now(),
    )  # fmt: skip


def _part(ref: BatchRef, space: Workspace) -> str:
    first = space.read_json("evaluation.json")["champion"] is None
    new_labels = bool(space.read_json("gate_report.json").get("new_labels"))
    return version_part(batch=ref.mode is Mode.BATCH, new_labels=new_labels, new_base=first)


def _manifest(
    ports: Ports, ref: BatchRef, space: Workspace, version: str, order: int, permission: Permission
) -> Manifest:
    permission.check_version(version)
    agent = member_of(ports, ref)
    trainer = trainer_of(ports, ref, agent.agent)
    selection, evaluation = space.read_json("select.json"), space.read_json("evaluation.json")
    tasks = list(selection["tasks"])
    rows = {
        part: [row for task in tasks for row in space.read_rows(f"{task}/{part}.json")]
        for part in ("new", "replay", "holdout")
    }
    marks = _rows(space, tasks)
    return Manifest.build(
        agent=ref.agent,
        version=version,
        base_version=evaluation["champion"],
        job_id=str(ref.job_id),
        order=order,
        reason=ref.reason.value,
        mode=ref.mode.value,
        examples=sorted(str(row.example_id) for row in rows["new"]),
        replayed=sorted(str(row.example_id) for row in rows["replay"]),
        holdout=sorted(str(row.example_id) for row in rows["holdout"]),
        seed=agent.agent.seed,
        settings={"trainer": trainer.key, **replace(agent.agent, trainer=trainer).as_record()["trainer"]},
        fleet_file_digest=agent.digest,
        code_digest=code_digest(),
        environment=environment(),
        metrics=metrics_of(space),
        content_digest=evaluation["content_digest"],
        components=space.root / "candidate" / "tasks",
        gate_action=permission.action.value,
        permission=permission.as_dict(),
        overrides=tuple(frozen_overrides(ports, ref.job_id)),
        rows=marks,
        recipe=_recipe(space, marks, selection, evaluation, agent.agent.seed).as_dict(),
    )


def _rows(space: Workspace, tasks: list[str]) -> dict[str, dict[Role, tuple[RowMark, ...]]]:
    return {
        task: {role: tuple(RowMark.of(row) for row in space.read_rows(f"{task}/{role}.json")) for role in Role}
        for task in tasks
    }


def _recipe(space: Workspace, marks: Rows, selection: dict[str, Any], evaluation: dict[str, Any], seed: int) -> Recipe:
    """What the weights depend on beside rows, settings and mode, as the training tasks left it.

    ``seed`` is the agent's now, for a task that was trained before trainings noted theirs.
    """
    tasks = {}
    for task in marks:
        trained, details = space.read_json(f"{task}/trained.json"), space.read_json(f"{task}/details.json")
        tasks[task] = TaskRecipe(
            kind=evaluation["tasks"][task]["kind"], labels=tuple(selection["tasks"][task]["labels"]), base=trained["from"],
            seed=details.get("seed", seed), threads=details.get("threads"), device=str(details.get("device", "")),
            machine=details.get("machine", {}),
        )  # fmt: skip
    carried = dict.fromkeys(evaluation["unchanged"], evaluation["champion"])
    return Recipe(rows_digest=rows_digest(marks), tasks=tasks, carried=carried)


def metrics_of(space: Workspace) -> dict[str, float]:
    """What was measured of a candidate, flat, by ``task.name``."""
    metrics: dict[str, float] = {}
    for task, record in space.read_json("evaluation.json")["tasks"].items():
        for arm in ("champion", "candidate"):
            value = record["summary"][arm]
            if value is not None:
                metrics[f"{task}.{arm}"] = float(value)
        metrics[f"{task}.holdout_rows"] = float(record["summary"]["rows"])
        metrics |= {f"{task}.{name}": value for name, value in flat_metrics(record).items()}
        trained = space.read_json(f"{task}/trained.json")
        metrics[f"{task}.train_seconds"] = float(trained["seconds"])
        metrics |= {f"{task}.{name}": float(value) for name, value in trained["metrics"].items()}
    return metrics


def _links(ports: Ports, agent: str, version: str, digest: str) -> dict[str, Any]:
    """What the task hands on. The release is made: without its links it is rolled out all the same."""
    try:
        links = ports.models.links(agent, version)
    except RegistryError as error:
        logger.warning("%s %s is released, without links to its run: %s", agent, version, type(error).__name__)
        links = {}
    return {"version": version, "digest": digest, **links}
