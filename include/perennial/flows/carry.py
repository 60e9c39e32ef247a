"""Carry a release from one deployment to another: signed there, judged and signed anew here, never trained again."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perennial.domain.job import BatchRef, JobRequest
from perennial.domain.model import ModelRef
from perennial.domain.words import GateAction, JobStatus, Mode, Reason
from perennial.errors import NotConfigured, PerennialError, RegistryError, UnknownLabel, UntrustedBundle
from perennial.fleet.agent import Agent
from perennial.flows.champion import bundle_folder, champion_folder, component
from perennial.flows.ports import Ports
from perennial.flows.train.claim import LEASE_SECONDS
from perennial.flows.train.evaluate import evaluate
from perennial.flows.train.gate import gate
from perennial.flows.train.register import metrics_of, require_permission
from perennial.flows.workspace import Workspace
from perennial.registry.archive import Header, Opened, pack, unpack
from perennial.registry.ledger import version_part
from perennial.registry.manifest import Manifest
from perennial.registry.permission import Permission
from perennial.registry.release import make_release
from perennial.registry.signing import verify_bundle

MOST_JUDGED = 500  # own rows, of each task together, that a first version's baselines learn from


@dataclass(frozen=True, kw_only=True)
class Brought:
    """What became of an import. ``version``: ours, None when the gates did not let it through; ``origin``: what it was there."""

    agent: str
    version: str | None
    origin: str
    sender: str
    action: str
    note: str


def export(ports: Ports, agent: str, version: str, out: Path, *, actor: str) -> Header:
    """Write a released, verified version with its encoders to one file; audited. RegistryError when there is no such version."""
    release = ports.ledger.version(agent, version)
    if release is None:
        raise RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")
    bundle_folder(ports, agent, version)  # verified, and permitted to serve
    header = Header(agent=agent, version=version, digest=release.digest)
    with tempfile.TemporaryDirectory() as room:
        folder, signature = ports.models.fetch(agent, version, Path(room), digest=release.digest)
        copy = verify_bundle(folder, signature, _key(ports), release, into=Path(room))
        bases = {digest: ports.bases.path(digest) for digest in sorted(set(Manifest.read(copy).encoders.values()))}
        pack(out, header, copy, signature, bases)
    ports.audit.append(
        actor=actor, action="bundle_exported", agent=agent, subject=version, detail={"digest": release.digest}
    )
    return header


def bring(ports: Ports, file: Path, *, actor: str, why: str, agent: str | None = None) -> Brought:
    """Judge a release of another deployment by our own gates on our own holdout; released under a version of ours when they pass it.

    The sender's public key must lie in the folder PERENNIAL_TRUSTED_SENDERS. Killed and run again it goes on, and brings nothing twice.
    Raises UntrustedBundle for a file that is not what a trusted sender signed, UnknownLabel and RegistryError for one that does
    not fit the agent here. What the gates want a person for is not released: there is no form to answer.
    """
    if not actor.strip() or not why.strip():
        raise RegistryError("an import needs the name of who decides, and a reason")
    ports.work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=ports.work) as room:
        opened = unpack(file, Path(room))
        if agent is not None and opened.header.agent != agent:
            raise UntrustedBundle(
                f"the file holds {opened.header.agent[:64]!r} and not {agent}; nothing of it is loaded"
            )
        sender, copy = _verified(ports, opened, Path(room))
        origin = Manifest.read(copy)
        member = ports.fleet().agent(origin.agent)
        _check_fits(member, origin)
        _bring_bases(ports, origin, opened)
        return _judge(ports, member, origin, copy, opened.header, sender, actor=actor, why=why)


def _key(ports: Ports) -> Path:
    if ports.settings.verify_key_file is None:
        raise NotConfigured("PERENNIAL_VERIFY_KEY_FILE", "nothing travels unverified; `perennial up` makes the key")
    return ports.settings.verify_key_file


def _verified(ports: Ports, opened: Opened, room: Path) -> tuple[str, Path]:
    """The sender's name (of the key's file) and a private copy that one of the trusted keys signed."""
    folder = ports.settings.trusted_senders
    keys = sorted(folder.glob("*.pub")) if folder is not None and folder.is_dir() else []
    if not keys:
        raise NotConfigured(
            "PERENNIAL_TRUSTED_SENDERS", "name a folder with the public keys (NAME.pub) of who may send releases"
        )
    header = opened.header
    expected = ModelRef(agent=header.agent, version=header.version, digest=header.digest)
    refusals = []
    for key in keys:
        try:
            return key.stem, verify_bundle(opened.bundle, opened.signature, key, expected, into=room)
        except UntrustedBundle as error:
            refusals.append(f"{key.stem}: {error}")
    raise UntrustedBundle(f"no trusted sender signed this file; nothing of it is loaded ({'; '.join(refusals)[:500]})")


def _check_fits(agent: Agent, origin: Manifest) -> None:
    known = {task.name: task for task in agent.tasks}
    for task, labels in origin.labels.items():
        if task not in known:
            raise RegistryError(
                f"{agent.name} has no task {task[:64]!r} here; declare it in its fleet file, or export another version"
            )
        closed = known[task].labels
        odd = sorted(set(labels) - set(closed)) if closed is not None else []
        if odd:
            raise UnknownLabel(
                f"{agent.name}/{task}: the release knows {len(odd)} labels that the fleet file here does not; add them there"
            )
        made_by = origin.trainers[task].get("key")
        if made_by != agent.trainer.key:
            raise RegistryError(
                f"{agent.name}/{task} was made by {str(made_by)[:64]}, and the fleet file here says {agent.trainer.key}"
            )


def _bring_bases(ports: Ports, origin: Manifest, opened: Opened) -> None:
    for digest in sorted(set(origin.encoders.values())):
        try:
            ports.bases.path(digest)
            continue
        except PerennialError:
            folder = opened.bases.get(digest)
        if folder is None or ports.bases.put(folder) != digest:
            raise UntrustedBundle(
                f"the encoder {digest[:12]} of the file is not the one that the release names; export it again"
            )


def _judge(
    ports: Ports, agent: Agent, origin: Manifest, copy: Path, header: Header, sender: str, *, actor: str, why: str
) -> Brought:  # fmt: skip
    told: dict[str, Any] = {"agent": agent.name, "origin": origin.version, "sender": sender}
    request = JobRequest(
        agent=agent.name,
        run_id=f"import__{header.digest}",
        reason=Reason.REQUEST,
        mode=Mode.BATCH,
        requested_by=actor,
        why=why,
    )
    job_id = ports.buffer.open_job(request)
    attempt = ports.buffer.start_attempt(job_id, LEASE_SECONDS)
    if attempt is None:
        done = ports.ledger.version_of_job(job_id)
        if done is None:
            raise RegistryError(f"{agent.name} trains now; import it when that is done")
        return Brought(
            **told, version=done.version, action="pass", note=f"{agent.name} {done.version} was imported before"
        )
    ref = BatchRef(agent=agent.name, job_id=job_id, attempt=attempt, mode=Mode.BATCH, reason=Reason.REQUEST, count=0)
    try:
        _lay_out(ports, agent, ref, copy, origin)
        evaluate(ports, ref)
        verdict = gate(ports, ref)
        version = (
            _release(ports, ref, origin, header, sender, actor) if verdict["action"] == GateAction.PASS.value else None
        )
    except BaseException:
        note = f"{agent.name}: the import of {origin.version} failed"
        _finish(ports, ref, JobStatus.FAILED, note=note, error="failed")
        raise
    what = f"{agent.name} {origin.version} of {sender}"
    note = f"{what} is {version} here" if version else f"{what} is not released here: {verdict['summary']}"
    _finish(ports, ref, JobStatus.COMPLETED, note=note[:500], version=version)
    Workspace.of(ports.work, ref).remove()
    return Brought(**told, version=version, action=verdict["action"], note=note)


def _finish(ports: Ports, ref: BatchRef, status: JobStatus, **told: Any) -> None:
    """End the job. Nothing was trained on: rows and the holdout's newcomers wait again as they were, together."""
    claimed = [row.example_id for row in ports.buffer.claimed_rows(ref.job_id, ref.attempt)]
    ports.buffer.give_back(ref.job_id, ref.attempt, refused=False, reason="", spared=claimed)
    ports.buffer.finish(ref.job_id, ref.attempt, status, **told)


def _lay_out(ports: Ports, agent: Agent, ref: BatchRef, copy: Path, origin: Manifest) -> None:
    """The workspace as trainings leave it, with the sender's components and our own rows. Corrections of ours are not judged as
    learned, since nobody trained on them; those learned here before are, as the regression slice."""
    space = Workspace.of(ports.work, ref)
    started = ports.buffer.job_started(ref.job_id)
    champion = champion_folder(ports, agent.name)
    claimed = ports.buffer.claim(agent.name, ref.job_id, ref.attempt, MOST_JUDGED)
    tasks: dict[str, Any] = {}
    for task, labels in sorted(origin.labels.items()):
        out = space.aside(task)
        shutil.copytree(copy / "tasks" / task, out, dirs_exist_ok=True)
        space.keep(out, f"components/{task}")
        holdout = ports.buffer.holdout(agent.name, task, started, agent.selection.holdout_max)
        own = [row for row in claimed if row.task == task and not row.correction]
        space.write_rows(f"{task}/new.json", own)
        space.write_rows(f"{task}/replay.json", [])
        space.write_rows(f"{task}/holdout.json", holdout)
        space.write_rows(f"{task}/regression.json", ports.buffer.regression(agent.name, task))
        space.write_json(f"{task}/trained.json", {"seconds": 0.0, "metrics": {}, "from": None})
        before = component(champion[1], task) if champion else None
        known = json.loads((before / "component.json").read_text(encoding="utf-8"))["labels"] if before else labels
        tasks[task] = {
            "new": len(own), "holdout": len(holdout), "labels": list(labels), "new_labels": sorted(set(labels) - set(known)),
        }  # fmt: skip
    space.write_json("select.json", {"champion": champion[0] if champion else None, "tasks": tasks})


def _release(ports: Ports, ref: BatchRef, origin: Manifest, header: Header, sender: str, actor: str) -> str:
    space = Workspace.of(ports.work, ref)
    evaluation = space.read_json("evaluation.json")
    digest = str(evaluation["content_digest"])
    if digest != origin.content_digest:
        raise RegistryError(
            "the release lacks a task that serves here, so it would not be the same bytes; export one that has all"
        )
    permission = require_permission(ports, ref, digest)
    key, password = ports.settings.signing_key_file, ports.settings.signing_key_password
    if key is None:
        raise NotConfigured(
            "PERENNIAL_SIGNING_KEY_FILE", "releases are never published unsigned; `perennial up` makes a key"
        )
    part = version_part(batch=True, new_labels=False, new_base=evaluation["champion"] is None)
    release = make_release(
        ledger=ports.ledger, store=ports.models, agent=ref.agent, job_id=ref.job_id, part=part, tasks=space.root / "candidate" / "tasks",
        describe=lambda version, order: _manifest(ports, ref, space, origin, header, sender, version, order, permission),
        gate_report=space.read_json("gate_report.json"), out=space.root / "release", key_file=key,
        password=password.get_secret_value() if password else None,
        tags={"run_id": ports.buffer.run_of_job(ref.job_id), "reason": ref.reason.value, "mode": ref.mode.value},
    )  # fmt: skip
    ports.audit.append(
        actor=actor, action="bundle_imported", agent=ref.agent, subject=release.version,
        detail={"digest": release.digest, "origin_digest": header.digest, "origin_version": origin.version, "sender": sender},
    )  # fmt: skip
    return release.version


def _manifest(
    ports: Ports, ref: BatchRef, space: Workspace, origin: Manifest, header: Header, sender: str, version: str, order: int,
    permission: Permission,
) -> Manifest:  # fmt: skip
    """The sender's record of how it was made, and ours of how it was judged. No recipe: its rows are not here to train on again."""
    holdout = sorted({str(row.example_id) for task in origin.labels for row in space.read_rows(f"{task}/holdout.json")})
    made = Manifest.build(
        agent=ref.agent, version=version, base_version=space.read_json("evaluation.json")["champion"], order=order,
        job_id=str(ref.job_id), reason=ref.reason.value, mode=ref.mode.value, examples=list(origin.ids.get("new", ())),
        replayed=list(origin.ids.get("replay", ())), holdout=holdout, seed=origin.seed, settings=origin.settings,
        fleet_file_digest=ports.fleet().member(ref.agent).digest, code_digest=origin.code_digest, environment=origin.environment,
        metrics=metrics_of(space), content_digest=origin.content_digest, components=space.root / "candidate" / "tasks",
        gate_action=permission.action.value, permission=permission.as_dict(),
    )  # fmt: skip
    return replace(made, origin={"digest": header.digest, "version": origin.version, "sender": sender})
