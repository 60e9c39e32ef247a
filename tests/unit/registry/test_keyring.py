"""A retired key counts for what was registered in its time, a revoked one for nothing; a rotation may be killed anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from perennial.audit.heads import HeadFile, Signer, Worth, keep, worth
from perennial.audit.memory import MemoryAuditLog
from perennial.domain.model import ModelRef
from perennial.errors import RegistryError, UntrustedBundle
from perennial.flows import rotation, sealing
from perennial.registry import keyring
from perennial.registry.signing import verify_bundle
from tests.unit.registry.samples import PASSWORD, Keys, release


class World:
    """One signer with a ledger's clock."""

    def __init__(self, room: Path) -> None:
        self.room, self.now, self.running = room, datetime.now(UTC), []  # type: Path, datetime, list[str]
        self.keys = Keys.make(room / "keys")
        settings = SimpleNamespace(
            home=room, signing_key_file=self.keys.private, verify_key_file=self.keys.public,
            signing_key_password=SecretStr(PASSWORD),
        )  # fmt: skip
        self.audit = MemoryAuditLog()
        self.ports: Any = SimpleNamespace(
            settings=settings, ledger=SimpleNamespace(now=lambda: self.now), audit=self.audit,
            buffer=SimpleNamespace(running=lambda: self.running),
        )  # fmt: skip

    def rotate(self) -> tuple[str, str]:
        return rotation.rotate(self.ports, actor="ana", reason="yearly")

    def release(self, **changes: Any) -> Any:
        made = release(self.room / "releases", self.keys, **changes)
        return replace(made, row=replace(made.row, created_at=self.now))

    def load(self, made: Any) -> None:
        verify_bundle(made.folder, made.signature, self.keys.public, made.row, into=self.room / "private")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    return World(tmp_path)


@pytest.mark.req("K69", "M74")
def test_versions_from_before_and_after_a_rotation_load_and_later_ones_of_the_old_key_do_not(world: World) -> None:
    before = world.release()
    old_private = world.keys.private.read_bytes()
    world.now += timedelta(hours=1)
    old, new = world.rotate()
    assert old != new
    assert world.keys.private.stat().st_mode & 0o077 == 0
    after = world.release(version="1.0.1", base_version="1.0.0", order=2)
    world.load(before)
    world.load(after)
    # a thief of the old key signs something now
    world.now += timedelta(hours=1)
    present = world.keys.private.read_bytes()
    world.keys.private.write_bytes(old_private)
    forged = world.release(version="1.0.2", base_version="1.0.1", order=3)
    world.keys.private.write_bytes(present)
    with pytest.raises(UntrustedBundle, match="was retired"):
        world.load(forged)
    assert [(one.action, one.actor) for one in world.audit.entries()] == [("key_rotated", "ana")]


@pytest.mark.req("K69", "M74")
def test_a_revoked_key_counts_for_nothing_and_the_present_one_cannot_be_revoked(world: World) -> None:
    made = world.release()
    present = keyring.key_id(world.keys.public.read_bytes())
    with pytest.raises(RegistryError, match="signs now"):
        rotation.revoke(world.ports, present, actor="ana", reason="stolen")
    world.now += timedelta(hours=1)
    old, _ = world.rotate()
    world.load(made)
    with pytest.raises(RegistryError, match="no retired key"):
        rotation.revoke(world.ports, "0" * 16, actor="ana", reason="stolen")
    with pytest.raises(RegistryError, match="a reason"):
        rotation.revoke(world.ports, old, actor="ana", reason=" ")
    rotation.revoke(world.ports, old, actor="ana", reason="stolen")
    with pytest.raises(UntrustedBundle, match="revoked"):
        world.load(made)
    assert world.audit.entries()[0].action == "key_revoked"


def test_without_the_ledgers_time_a_retired_key_proves_nothing(world: World) -> None:
    made = world.release()
    world.now += timedelta(hours=1)
    world.rotate()
    ref = ModelRef(agent="scout", version="1.0.0", digest=made.digest)
    with pytest.raises(UntrustedBundle, match="not known"):
        verify_bundle(made.folder, made.signature, world.keys.public, ref, into=world.room / "private")


def test_a_damaged_list_of_keys_loads_nothing(world: World) -> None:
    made = world.release()
    keyring.ring_file(world.keys.public).write_text('{"keys": [{"pem": "no key"}]}')
    with pytest.raises(UntrustedBundle, match="retired"):
        world.load(made)


def test_an_unknown_key_is_refused_as_before(world: World, tmp_path: Path) -> None:
    other = Keys.make(tmp_path / "others")
    made = release(world.room / "releases", other)
    with pytest.raises(UntrustedBundle, match="does not verify"):
        world.load(made)


def test_no_rotation_while_something_trains(world: World) -> None:
    world.running = ["scout"]
    with pytest.raises(RegistryError, match="scout trains"):
        world.rotate()
    assert keyring.read(world.keys.public) == ()


# the two halves appear, the list of retired keys, the private key moves, the public one
_STEPS = [(step, after) for step in range(1, 6) for after in (False, True)][:-1]


@pytest.mark.parametrize(("step", "after"), _STEPS)
def test_a_rotation_that_was_killed_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    made = world.release()
    world.now += timedelta(hours=1)
    calls = [0]

    def killing(real: Any) -> Any:
        def call(source: Any, target: Any) -> None:
            calls[0] += 1
            if calls[0] == step and not after:
                raise KeyboardInterrupt
            real(source, target)
            if calls[0] == step:
                raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patch:
        for name in ("link", "replace"):
            patch.setattr(os, name, killing(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            world.rotate()
    private_is_old = (step, after) < (4, True)
    between = world.release(version="1.0.1", base_version="1.0.0", order=2) if private_is_old else None
    world.now += timedelta(hours=1)
    old, new = world.rotate()
    assert old != new
    if between is not None:  # the old key signed on until the rotation was done
        world.load(between)
    assert [one.id for one in keyring.read(world.keys.public)] == [old]
    world.load(made)
    world.load(world.release(version="1.0.2", base_version="1.0.1", order=3))
    assert not list(world.keys.public.parent.glob(".next-*"))
    assert [(one.action, one.subject) for one in world.audit.entries()] == [("key_rotated", new)]


@pytest.mark.parametrize("private", [None, b"", b"no key", "of another pair"])
def test_a_pair_that_is_none_replaces_no_key(world: World, tmp_path: Path, private: bytes | str | None) -> None:
    made, folder = world.release(), world.keys.private.parent
    strays = [Keys.make(tmp_path / name) for name in ("one", "two")]
    (folder / f".next-{world.keys.public.name}").write_bytes(strays[0].public.read_bytes())
    if private is not None:
        content = private if isinstance(private, bytes) else strays[1].private.read_bytes()
        (folder / f".next-{world.keys.private.name}").write_bytes(content)
    world.now += timedelta(hours=1)
    old, new = world.rotate()
    assert new not in {old, *(keyring.key_id(stray.public.read_bytes()) for stray in strays)}
    world.load(made)
    world.load(world.release(version="1.0.1", base_version="1.0.0", order=2))


def test_heads_of_the_audit_from_before_a_rotation_still_prove_it(world: World) -> None:
    world.audit.append(actor="ana", action="approved")
    world.audit.seal()
    file = sealing.heads_file(world.ports.settings)
    keep(file, world.audit.seals, Signer(world.keys.private, PASSWORD))
    head = HeadFile(file).newest()
    world.now += timedelta(hours=1)
    old, _ = world.rotate()
    assert worth(head, world.keys.public) is Worth.FORGED  # without the list
    assert sealing.verify(world.ports).worth is Worth.SIGNED
    rotation.revoke(world.ports, old, actor="ana", reason="stolen")
    assert sealing.verify(world.ports).worth is Worth.FORGED
