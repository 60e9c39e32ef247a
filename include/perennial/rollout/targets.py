"""Where a champion is put: the gateway follows the serving row by itself; ``folder`` is for agents that load their
own files."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from perennial.domain.model import SemanticVersion
from perennial.errors import RolloutError, UntrustedBundle
from perennial.rollout.store import RolloutStore

_AGENT = re.compile(r"^[a-z][a-z0-9_]{0,47}$")
_BLOCK = 1 << 20


class Target(Protocol):
    """A place that serves champions. Every verb may be repeated."""

    def point(self, agent: str, version: str, folder: Path) -> None:
        """Make this version the one that serves there; ``folder`` is its verified bundle. Also how a rollback is
        done."""
        ...

    def current(self, agent: str) -> str | None:
        """The version that serves there now."""
        ...

    def digest(self, agent: str) -> str | None:
        """sha256 hex over the files that serve there now; None when there are none."""
        ...

    def digest_of(self, agent: str, version: str) -> str | None:
        """The same of any version that is kept there."""
        ...

    def kept(self, agent: str) -> tuple[str, ...]:
        """Versions whose files lie there."""
        ...

    def remove(self, agent: str, version: str) -> None:
        """Take the files of a version away that does not serve there; RolloutError when it does."""
        ...


class FolderTarget:
    """Versions under ``<root>/<agent>/versions/<version>`` and a link that is swapped in one rename, so a reader
    always finds a whole version.

    The link is ``<root>/<agent>/current``, or the path in ``<AGENT>_MODEL_PATH`` (such as SCOUT_MODEL_PATH) of the
    environment. Files are copied once, read-only, and never changed; a rollback links back to the bytes that are there.
    Runs in rollout tasks and in the watch; of two writers the later one's link stays, readers need no lock.
    """

    def __init__(self, root: Path, environment: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._environment = os.environ if environment is None else environment

    def link(self, agent: str) -> Path:
        """The path that the agent reads."""
        chosen = self._environment.get(f"{_checked(agent).upper()}_MODEL_PATH")
        return Path(chosen) if chosen else self._root / agent / "current"

    def point(self, agent: str, version: str, folder: Path) -> None:
        """See ``Target.point``. RolloutError when the link's place holds real files; UntrustedBundle when kept files
        changed."""
        link, kept = self.link(agent), self._keep(agent, version, folder)
        if link.exists() and not link.is_symlink():
            raise RolloutError(
                f"{link} holds real files, not a link; move them away, or point {agent.upper()}_MODEL_PATH elsewhere"
            )
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and Path(os.readlink(link)) == kept.absolute():
            return
        aside = link.with_name(f".{link.name}.{uuid4().hex}")
        aside.symlink_to(kept.absolute(), target_is_directory=True)
        os.replace(aside, link)
        _sync(link.parent)

    def current(self, agent: str) -> str | None:
        """See ``Target.current``."""
        link = self.link(agent)
        if not link.is_symlink():
            return None
        kept = Path(os.readlink(link))
        return kept.name if kept.parent == (self._root / agent / "versions").absolute() else None

    def digest(self, agent: str) -> str | None:
        """See ``Target.digest``; follows the link, as the agent does."""
        link = self.link(agent)
        return tree_digest(link.resolve()) if link.is_dir() else None

    def digest_of(self, agent: str, version: str) -> str | None:
        """See ``Target.digest_of``."""
        kept = self._place(agent, version)
        return tree_digest(kept) if kept.is_dir() else None

    def kept(self, agent: str) -> tuple[str, ...]:
        """See ``Target.kept``."""
        folder = self._root / _checked(agent) / "versions"
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return tuple(name for name in found if not name.startswith("."))

    def remove(self, agent: str, version: str) -> None:
        """See ``Target.remove``. The folder is renamed first, so that a reader finds all of it or nothing."""
        if self.current(agent) == version:
            raise RolloutError(f"{agent} {version} serves from its folder; point it elsewhere before its files go")
        kept = self._place(agent, version)
        if kept.is_dir():
            aside = kept.with_name(f".removed-{uuid4().hex}")
            os.rename(kept, aside)
            shutil.rmtree(aside)

    def _place(self, agent: str, version: str) -> Path:
        try:
            SemanticVersion.parse(version)  # it becomes a folder's name
        except ValueError as error:
            raise RolloutError(str(error)) from error
        return self._root / _checked(agent) / "versions" / version

    def _keep(self, agent: str, version: str, folder: Path) -> Path:
        kept, expected = self._place(agent, version), tree_digest(folder)
        if kept.is_dir():
            if tree_digest(kept) != expected:
                raise UntrustedBundle(
                    f"the files of {agent} {version} in {kept} were changed; remove that folder and run this again"
                )
            return kept
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_name(f".{version}.{uuid4().hex}")
        try:
            _copy(folder, aside)
            if tree_digest(aside) != expected:
                raise UntrustedBundle(f"the files of {agent} {version} changed while they were copied; try again")
            try:
                os.rename(aside, kept)
            except OSError:
                if not kept.is_dir():
                    raise
                return self._keep(agent, version, folder)  # another writer put them there meanwhile
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        _sync(kept.parent)
        return kept


class GatewayTarget:
    """The gateways, which follow the serving row by themselves: pointing there means waiting until the living ones
    say so."""

    def __init__(self, rollouts: RolloutStore, *, wait_seconds: float = 30.0) -> None:
        self._rollouts, self._wait = rollouts, wait_seconds

    def point(self, agent: str, version: str, folder: Path) -> None:
        """Wait until every living gateway serves ``version``; RolloutError when the serving row says otherwise or
        time is up."""
        serving = self._rollouts.serving(agent)
        if serving.champion != version:
            raise RolloutError(f"{agent} is to serve {serving.champion}, not {version}; promote or roll it back first")
        deadline = time.monotonic() + self._wait
        while behind := [row for row in self._rollouts.gateways(agent) if row.champion != version]:
            if time.monotonic() > deadline:
                why = "; ".join(f"{row.instance}: {row.error or row.champion}" for row in behind)
                raise RolloutError(f"gateways do not serve {agent} {version} after {self._wait:.0f} s ({why})")
            time.sleep(0.1)

    def current(self, agent: str) -> str | None:
        """The version that every living gateway serves; None when they differ or none lives."""
        served = {row.champion for row in self._rollouts.gateways(agent)}
        return served.pop() if len(served) == 1 else None

    def digest(self, agent: str) -> str | None:
        """Gateways verify their own copies; there is no folder to read."""
        return None

    def digest_of(self, agent: str, version: str) -> str | None:
        """As ``digest``."""
        return None

    def kept(self, agent: str) -> tuple[str, ...]:
        """As ``digest``."""
        return ()

    def remove(self, agent: str, version: str) -> None:
        """Nothing lies here."""


def tree_digest(folder: Path) -> str:
    """sha256 hex over ``relative path NUL sha256 of the bytes`` of all files, sorted. UntrustedBundle when there is a
    link inside."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda item: item.relative_to(folder).as_posix()):
        if path.is_symlink():
            raise UntrustedBundle(f"{path.relative_to(folder)} of a bundle is a link; bundles hold real files only")
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    return total.hexdigest()


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
            continue
        with path.open("rb") as reader, copy.open("wb") as writer:
            shutil.copyfileobj(reader, writer, _BLOCK)
            writer.flush()
            os.fsync(writer.fileno())
        copy.chmod(0o444)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checked(agent: str) -> str:
    if not _AGENT.match(agent):
        raise RolloutError(f"{agent[:48]!r} is not an agent's name")
    return agent
