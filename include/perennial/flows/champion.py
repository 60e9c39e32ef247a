"""The files of the serving version, verified, on this machine."""

from __future__ import annotations

from pathlib import Path

from perennial.errors import FilesRemoved, RegistryError
from perennial.flows.permission import require_served_permission
from perennial.flows.ports import Ports
from perennial.registry.cache import fetch_verified


def champion_folder(ports: Ports, agent: str) -> tuple[str, Path] | None:
    """Version and verified bundle folder of the agent's champion, or None before the first.

    Raises UntrustedBundle when the bundle does not agree with its signature or its ledger row.
    """
    version = ports.ledger.champion(agent)
    if version is None:
        return None
    return version, bundle_folder(ports, agent, version)


def bundle_folder(ports: Ports, agent: str, version: str) -> Path:
    """Verified folder of any released version; fetched once per machine, verified once per process.

    Everything that trains on, promotes, serves or rolls back to a version comes through here, so here it is asked once more
    whether the ledger let these bytes be registered: PromotionRefused otherwise. That is judged as of the registration, so
    an approval that lapsed since takes nothing down. Asked when a version is loaded, never when a request is answered.
    Raises FilesRemoved, with when and why, for a version whose files retention took.
    """
    settings = ports.settings
    try:
        folder = fetch_verified(
            agent, version, ledger=ports.ledger, store=ports.models, public_key=settings.verify_key_file,
            into=settings.home / "cache" / "bundles",
        )  # fmt: skip
    except RegistryError as error:
        removal = ports.retention.removal(agent, version) if ports.retention is not None else None
        if removal is None:
            raise
        raise FilesRemoved(removal.told()) from error
    require_served_permission(ports, agent, version, folder)
    return folder


def component(folder: Path, task: str) -> Path | None:
    """The folder of one task in a bundle, when the bundle knows the task."""
    path = folder / "tasks" / task
    return path if path.is_dir() else None
