"""From an example to the versions that it touched, and from a version to its examples."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from perennial.errors import RegistryError, StoreError
from perennial.flows.champion import bundle_folder
from perennial.flows.ports import Ports
from perennial.registry.manifest import Manifest
from perennial.registry.recipe import Role
from perennial.registry.rows import ExampleUse


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """One example: where it stands now, without its text, and every use of it. ``state`` is "unknown" when its row is gone."""

    example_id: UUID
    agent: str
    task: str
    state: str
    source: str
    priority: int | None
    reason: str
    trained_with: str | None
    uses: tuple[ExampleUse, ...]


def trace_example(ports: Ports, example_id: UUID) -> Traced:
    """What became of an example; one query for its uses. StoreError when neither the buffer nor the ledger knows it."""
    row, uses = ports.buffer.example(example_id), ports.ledger.uses_of_example(example_id)
    if row is None and not uses:
        raise StoreError(f"no example {example_id} is known; ids stand in `perennial trace AGENT VERSION`")
    if row is None:
        return Traced(
            example_id=example_id, agent=uses[0].agent, task=uses[0].task, state="unknown", source="", priority=None,
            reason="its row is not in the buffer any more", trained_with=None, uses=uses,
        )  # fmt: skip
    return Traced(
        example_id=example_id, agent=row.agent, task=row.task, state=row.state.value, source=row.source,
        priority=row.priority, reason=row.reason, trained_with=row.model_version, uses=uses,
    )  # fmt: skip


def trace_version(ports: Ports, agent: str, version: str) -> tuple[ExampleUse, ...]:
    """The examples of a version, in training order; RegistryError when there is no such version."""
    if ports.ledger.version(agent, version) is None:
        raise RegistryError(f"{agent} has no version {version}; `perennial models {agent}` lists what there is")
    return ports.ledger.examples_of_version(agent, version)


def fill(ports: Ports, agent: str) -> dict[str, int]:
    """Note the examples of releases from before the ledger kept them, from their verified bundles; ids noted by version.

    What is noted already stays. An id whose row the buffer has lost has no task there, and stands under the task "".
    Raises UntrustedBundle when a bundle does not agree with the ledger.
    """
    noted: dict[str, int] = {}
    for release in ports.ledger.versions(agent):
        have = {use.role for use in ports.ledger.examples_of_version(agent, release.version)}
        if release.manifest.get("recipe") or Role.HOLDOUT in have:
            continue
        ids = Manifest.read(bundle_folder(ports, agent, release.version)).ids
        wanted = {role: [UUID(text) for text in ids.get(role.value, ())] for role in Role if role not in have}
        known = ports.buffer.rows_by_id([identity for listed in wanted.values() for identity in listed])
        examples: dict[tuple[str, Role], list[UUID]] = {}
        for role, listed in wanted.items():
            for identity in listed:
                row = known.get(identity)
                task = row.row.task if row is not None and row.row is not None else ""
                examples.setdefault((task, role), []).append(identity)
        ports.ledger.record_examples(agent, release.version, examples)
        noted[release.version] = sum(len(listed) for listed in examples.values())
    return noted
